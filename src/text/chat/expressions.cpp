#include "text/chat/expressions.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dmc::text::chat {
namespace {

using Operands = const Value&;

[[noreturn]] void fail_operands(Runtime& runtime, const char* name, Operands left, Operands right) {
  for (const Value* operand : {&left, &right}) {
    if (const Undefined* undefined = operand->undefined()) {
      runtime.fail("'" + undefined->name + "' is undefined");
    }
  }
  runtime.fail(std::string(left.type_name()) + " " + name + " " + right.type_name() +
               " has no meaning");
}

bool are_integers(Operands left, Operands right) {
  const auto whole = [](Operands value) { return value.integer() || value.boolean(); };
  return whole(left) && whole(right);
}

int64_t integer_of(Operands value) {
  return value.integer() ? *value.integer() : static_cast<int64_t>(*value.boolean());
}

// An operation on numbers: exact on integers, where an overflow fails, else on doubles.
template <typename OnIntegers, typename OnReals>
Value arithmetic(Runtime& runtime, const char* name, Operands left, Operands right,
                 OnIntegers on_integers, OnReals on_reals) {
  if (!left.is_number() || !right.is_number()) fail_operands(runtime, name, left, right);
  if (!are_integers(left, right)) return Value(on_reals(left.number(), right.number()));
  int64_t result = 0;
  if (on_integers(integer_of(left), integer_of(right), &result)) {
    runtime.fail("an integer grows beyond 64 bits");
  }
  return Value(result);
}

Value joined(const List& left, const List& right) {
  List list = left;
  list.items.insert(list.items.end(), right.items.begin(), right.items.end());
  return Value(std::move(list));
}

Value add(Runtime& runtime, Operands left, Operands right) {
  if (left.text() && right.text()) {
    Text text = *left.text();
    text.append(*right.text());
    return runtime.charged(std::move(text));
  }
  if (left.list() && right.list() && left.list()->is_tuple == right.list()->is_tuple) {
    runtime.charge_items(left.list()->items.size() + right.list()->items.size());
    return joined(*left.list(), *right.list());
  }
  return arithmetic(
      runtime, "+", left, right,
      [](int64_t a, int64_t b, int64_t* r) { return __builtin_add_overflow(a, b, r); },
      [](double a, double b) { return a + b; });
}

Value subtract(Runtime& runtime, Operands left, Operands right) {
  return arithmetic(
      runtime, "-", left, right,
      [](int64_t a, int64_t b, int64_t* r) { return __builtin_sub_overflow(a, b, r); },
      [](double a, double b) { return a - b; });
}

Value repeated(Runtime& runtime, Operands sequence, int64_t count) {
  const auto times = static_cast<size_t>(std::max<int64_t>(count, 0));
  if (sequence.text()) {
    const size_t size = sequence.text()->bytes().size();
    if (size > 0 && times > runtime.limits.output / size) runtime.fail("a string grows too long");
    Text text;
    for (size_t i = 0; i < times && size > 0; ++i) text.append(*sequence.text());
    return runtime.charged(std::move(text));
  }
  List list{.items = {}, .is_tuple = sequence.list()->is_tuple};
  const auto& items = sequence.list()->items;
  for (size_t i = 0; i < times && !items.empty(); ++i) {
    runtime.charge_items(items.size());
    list.items.insert(list.items.end(), items.begin(), items.end());
  }
  return Value(std::move(list));
}

Value multiply(Runtime& runtime, Operands left, Operands right) {
  if ((left.text() || left.list()) && right.integer()) {
    return repeated(runtime, left, *right.integer());
  }
  if ((right.text() || right.list()) && left.integer()) {
    return repeated(runtime, right, *left.integer());
  }
  return arithmetic(
      runtime, "*", left, right,
      [](int64_t a, int64_t b, int64_t* r) { return __builtin_mul_overflow(a, b, r); },
      [](double a, double b) { return a * b; });
}

void check_divisor(Runtime& runtime, const char* name, Operands left, Operands right) {
  if (!left.is_number() || !right.is_number()) fail_operands(runtime, name, left, right);
  if (right.number() == 0) runtime.fail("division by zero");
}

Value divide(Runtime& runtime, Operands left, Operands right) {
  check_divisor(runtime, "/", left, right);
  return Value(left.number() / right.number());
}

// Python rounds down; the remainder takes the sign of the divisor.
Value floor_divide(Runtime& runtime, Operands left, Operands right) {
  check_divisor(runtime, "//", left, right);
  return arithmetic(
      runtime, "//", left, right,
      [](int64_t a, int64_t b, int64_t* r) {
        if (a == std::numeric_limits<int64_t>::min() && b == -1) return true;
        *r = a / b - (a % b != 0 && (a < 0) != (b < 0));
        return false;
      },
      [](double a, double b) { return std::floor(a / b); });
}

Value modulo(Runtime& runtime, Operands left, Operands right) {
  check_divisor(runtime, "%", left, right);
  return arithmetic(
      runtime, "%", left, right,
      [](int64_t a, int64_t b, int64_t* r) {
        *r = b == -1 ? 0 : a % b;
        if (*r != 0 && (*r < 0) != (b < 0)) *r += b;
        return false;
      },
      [](double a, double b) { return a - b * std::floor(a / b); });
}

Value power(Runtime& runtime, Operands left, Operands right) {
  return arithmetic(
      runtime, "**", left, right,
      [](int64_t a, int64_t b, int64_t* r) {
        const double size = std::pow(static_cast<double>(a), static_cast<double>(b));
        *r = static_cast<int64_t>(std::abs(size) < 9e15 ? size : 0);
        return b < 0 || std::abs(size) >= 9e15;
      },
      [](double a, double b) { return std::pow(a, b); });
}

Value concatenate(Runtime& runtime, Operands left, Operands right) {
  Text text = to_text(left);
  text.append(to_text(right));
  return runtime.charged(std::move(text));
}

int order(Runtime& runtime, const char* name, Operands left, Operands right) {
  if (left.is_undefined() || right.is_undefined()) fail_operands(runtime, name, left, right);
  runtime.charge_comparison(left, right);
  return compare(left, right);
}

bool are_equal(Runtime& runtime, Operands left, Operands right) {
  runtime.charge_comparison(left, right);
  return left == right;
}

bool contains(Runtime& runtime, Operands item, Operands container) {
  if (container.is_undefined()) return false;
  if (container.text() && item.text()) {
    return container.text()->bytes().find(item.text()->bytes()) != std::string::npos;
  }
  if (container.dict()) return item.text() && container.dict()->find(item.text()->bytes());
  if (container.list()) {
    runtime.charge_items(container.list()->items.size());
    runtime.charge_comparison(container, container);
    return std::ranges::find(container.list()->items, item) != container.list()->items.end();
  }
  fail_operands(runtime, "in", item, container);
}

struct Operation {
  const char* name;
  BinaryOperation apply;
};
constexpr Operation kOperations[] = {
    {"+", add},
    {"-", subtract},
    {"*", multiply},
    {"/", divide},
    {"//", floor_divide},
    {"%", modulo},
    {"**", power},
    {"~", concatenate},
    {"==", [](Runtime& r, Operands a, Operands b) { return Value(are_equal(r, a, b)); }},
    {"!=", [](Runtime& r, Operands a, Operands b) { return Value(!are_equal(r, a, b)); }},
    {"<", [](Runtime& r, Operands a, Operands b) { return Value(order(r, "<", a, b) < 0); }},
    {"<=", [](Runtime& r, Operands a, Operands b) { return Value(order(r, "<=", a, b) <= 0); }},
    {">", [](Runtime& r, Operands a, Operands b) { return Value(order(r, ">", a, b) > 0); }},
    {">=", [](Runtime& r, Operands a, Operands b) { return Value(order(r, ">=", a, b) >= 0); }},
    {"in", [](Runtime& r, Operands a, Operands b) { return Value(contains(r, a, b)); }},
    {"not in", [](Runtime& r, Operands a, Operands b) { return Value(!contains(r, a, b)); }},
};

std::optional<int64_t> slice_bound(Runtime& runtime, const ExpressionPtr& bound,
                                   const Scope& scope) {
  if (!bound) return std::nullopt;
  const Value value = bound->eval(runtime, scope);
  if (value.is_none()) return std::nullopt;
  if (!value.integer()) runtime.fail("a slice goes from and to integers");
  return *value.integer();
}

// The indices of a sequence of `size` that a slice takes, as Python counts them.
std::vector<size_t> slice_indices(int64_t size, std::optional<int64_t> begin,
                                  std::optional<int64_t> end, int64_t step) {
  const auto bound = [&](std::optional<int64_t> given, int64_t otherwise) {
    if (!given) return otherwise;
    const int64_t index = *given < 0 ? *given + size : *given;
    return std::clamp<int64_t>(index, step < 0 ? -1 : 0, step < 0 ? size - 1 : size);
  };
  const int64_t first = bound(begin, step < 0 ? size - 1 : 0);
  const int64_t last = bound(end, step < 0 ? -1 : size);
  std::vector<size_t> indices;
  const int64_t stride = std::clamp<int64_t>(step, -size - 1, size + 1);  // no overflow below
  for (int64_t i = first; step > 0 ? i < last : i > last; i += stride) {
    indices.push_back(static_cast<size_t>(i));
  }
  return indices;
}

Text text_of_characters(const Text& text, const std::vector<size_t>& offsets,
                        const std::vector<size_t>& indices, bool adjacent) {
  if (indices.empty()) return Text();
  if (adjacent) return text.slice(offsets[indices.front()], offsets[indices.back() + 1]);
  Text out;
  for (size_t i : indices) out.append(text.slice(offsets[i], offsets[i + 1]));
  return out;
}

}  // namespace

BinaryOperation find_operation(std::string_view name) {
  const auto* found = std::ranges::find_if(
      kOperations, [&](const Operation& operation) { return name == operation.name; });
  return found == std::end(kOperations) ? nullptr : found->apply;
}

Arguments ArgumentList::eval(Runtime& runtime, const Scope& scope) const {
  Arguments arguments;
  for (const auto& item : positional) arguments.positional.push_back(item->eval(runtime, scope));
  for (const auto& [name, item] : named) {
    arguments.named.emplace_back(name, item->eval(runtime, scope));
  }
  return arguments;
}

Value Name::value(Runtime&, const Scope& scope) const {
  const Value* found = scope.find(name_);
  return found ? *found : Value(Undefined{name_});
}

Value ListDisplay::value(Runtime& runtime, const Scope& scope) const {
  List list{.items = {}, .is_tuple = is_tuple_};
  for (const auto& item : items_) list.items.push_back(item->eval(runtime, scope));
  return Value(std::move(list));
}

Value DictDisplay::value(Runtime& runtime, const Scope& scope) const {
  Dict dict;
  for (const auto& [key, item] : entries_) {
    const Value name = key->eval(runtime, scope);
    if (!name.text()) runtime.fail(std::string(name.type_name()) + " cannot be a key");
    dict.set(*name.text(), item->eval(runtime, scope));
  }
  return Value(std::move(dict));
}

Value Attribute::value(Runtime& runtime, const Scope& scope) const {
  return get_attribute(runtime, object_->eval(runtime, scope), name_);
}

Value Item::value(Runtime& runtime, const Scope& scope) const {
  const Value container = object_->eval(runtime, scope);
  return get_item(runtime, container, index_->eval(runtime, scope));
}

Value Slice::value(Runtime& runtime, const Scope& scope) const {
  const Value sequence = object_->eval(runtime, scope);
  const auto first = slice_bound(runtime, begin_, scope), last = slice_bound(runtime, end_, scope);
  const int64_t stride = slice_bound(runtime, step_, scope).value_or(1);
  if (stride == 0) runtime.fail("a slice cannot go in steps of 0");
  if (const Text* text = sequence.text()) {
    const std::vector<size_t> offsets = character_offsets(text->bytes());
    const auto indices =
        slice_indices(static_cast<int64_t>(offsets.size()) - 1, first, last, stride);
    return runtime.charged(text_of_characters(*text, offsets, indices, stride == 1));
  }
  if (!sequence.list()) {
    runtime.fail("a slice of " + std::string(sequence.type_name()) + " has no meaning");
  }
  List list{.items = {}, .is_tuple = sequence.list()->is_tuple};
  const auto& items = sequence.list()->items;
  for (size_t i : slice_indices(static_cast<int64_t>(items.size()), first, last, stride)) {
    list.items.push_back(items[i]);
  }
  runtime.charge_items(list.items.size());
  return Value(std::move(list));
}

Value Call::value(Runtime& runtime, const Scope& scope) const {
  const Value function = callee_->eval(runtime, scope);
  return call_function(runtime, function, arguments_.eval(runtime, scope));
}

Filter::Filter(size_t at, std::string name, ExpressionPtr operand, ArgumentList arguments)
    : Expression(at),
      name_(std::move(name)),
      filter_(find_filter(name_)),
      operand_(std::move(operand)),
      arguments_(std::move(arguments)) {}

Value Filter::apply(Runtime& runtime, const Value& input, const Scope& scope) const {
  if (!filter_) runtime.fail("filter " + name_ + " is not supported");
  return filter_->call(runtime, input, arguments_.eval(runtime, scope));
}

Value Filter::value(Runtime& runtime, const Scope& scope) const {
  return apply(runtime, operand_->eval(runtime, scope), scope);
}

Test::Test(size_t at, std::string name, ExpressionPtr operand, ArgumentList arguments, bool negated)
    : Expression(at),
      name_(std::move(name)),
      test_(find_test(name_)),
      operand_(std::move(operand)),
      arguments_(std::move(arguments)),
      negated_(negated) {}

Value Test::value(Runtime& runtime, const Scope& scope) const {
  if (!test_) runtime.fail("test " + name_ + " is not supported");
  const Value input = operand_->eval(runtime, scope);
  return Value(test_->call(runtime, input, arguments_.eval(runtime, scope)).is_true() != negated_);
}

Value Binary::value(Runtime& runtime, const Scope& scope) const {
  const Value first = left_->eval(runtime, scope);
  return operation_(runtime, first, right_->eval(runtime, scope));
}

Value Comparison::value(Runtime& runtime, const Scope& scope) const {
  Value left = first_->eval(runtime, scope);
  for (const auto& [operation, expression] : links_) {
    Value right = expression->eval(runtime, scope);
    if (!operation(runtime, left, right).is_true()) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Logical::value(Runtime& runtime, const Scope& scope) const {
  Value first = left_->eval(runtime, scope);
  return first.is_true() == is_and_ ? right_->eval(runtime, scope) : first;
}

Value Unary::value(Runtime& runtime, const Scope& scope) const {
  const Value input = operand_->eval(runtime, scope);
  if (kind_ == Kind::kNot) return Value(!input.is_true());
  const Value zero(int64_t{0});
  return kind_ == Kind::kMinus ? subtract(runtime, zero, input) : add(runtime, zero, input);
}

Value Conditional::value(Runtime& runtime, const Scope& scope) const {
  if (condition_->eval(runtime, scope).is_true()) return then_->eval(runtime, scope);
  return otherwise_ ? otherwise_->eval(runtime, scope) : Value(Undefined{"the else of an if"});
}

}  // namespace dmc::text::chat
