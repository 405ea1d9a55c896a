// What may stand after "is".
#include <algorithm>

#include "text/chat/builtins.h"
#include "text/unicode.h"

namespace dmc::text::chat {
namespace {

using Self = const Value&;

const Value& other(Runtime& runtime, const Arguments& arguments) {
  const Value* value = arguments.find(0, "other");
  if (!value) runtime.fail("a test lacks what to compare with");
  return *value;
}

bool equal(Runtime& runtime, Self self, const Arguments& arguments) {
  const Value& value = other(runtime, arguments);
  runtime.charge_comparison(self, value);
  return self == value;
}

int order(Runtime& runtime, Self self, const Arguments& arguments) {
  const Value& value = other(runtime, arguments);
  runtime.charge_comparison(self, value);
  return compare(self, value);
}

Value divisible(Runtime& runtime, Self self, const Arguments& arguments) {
  const int64_t by = integer_argument(runtime, arguments, 0, "num");
  if (!self.integer() || by == 0) runtime.fail("divisibleby needs integers, and not 0");
  return Value(by == -1 || *self.integer() % by == 0);
}

Value in(Runtime& runtime, Self self, const Arguments& arguments) {
  const Value& container = other(runtime, arguments);
  if (container.text() && self.text()) {
    return Value(container.text()->bytes().find(self.text()->bytes()) != std::string::npos);
  }
  const std::vector<Value> items = items_of(runtime, container);
  runtime.charge_comparison(container, container);
  return Value(std::ranges::find(items, self) != items.end());
}

// Python's bool is an int, and a test for numbers says so.
bool is_number(Self self) { return self.is_number(); }

constexpr Builtin kTests[] = {
    {"boolean", [](Runtime&, Self x, const Arguments&) { return Value(x.boolean() != nullptr); }},
    {"callable", [](Runtime&, Self x, const Arguments&) { return Value(x.function() != nullptr); }},
    {"defined", [](Runtime&, Self x, const Arguments&) { return Value(!x.is_undefined()); }},
    {"divisibleby", divisible},
    {"eq", [](Runtime& r, Self x, const Arguments& a) { return Value(equal(r, x, a)); }},
    {"equalto", [](Runtime& r, Self x, const Arguments& a) { return Value(equal(r, x, a)); }},
    {"==", [](Runtime& r, Self x, const Arguments& a) { return Value(equal(r, x, a)); }},
    {"even", [](Runtime&, Self x,
                const Arguments&) { return Value(x.integer() && *x.integer() % 2 == 0); }},
    {"false",
     [](Runtime&, Self x, const Arguments&) { return Value(x.boolean() && !*x.boolean()); }},
    {"float", [](Runtime&, Self x, const Arguments&) { return Value(x.real() != nullptr); }},
    {"ge", [](Runtime& r, Self x, const Arguments& a) { return Value(order(r, x, a) >= 0); }},
    {"gt", [](Runtime& r, Self x, const Arguments& a) { return Value(order(r, x, a) > 0); }},
    {"in", in},
    {"integer", [](Runtime&, Self x, const Arguments&) { return Value(x.integer() != nullptr); }},
    {"iterable",
     [](Runtime&, Self x, const Arguments&) {
       return Value(x.list() || x.dict() || x.text() || x.is_undefined());
     }},
    {"le", [](Runtime& r, Self x, const Arguments& a) { return Value(order(r, x, a) <= 0); }},
    {"lower",
     [](Runtime&, Self x, const Arguments&) {
       return Value(x.text() && lower_case(x.text()->bytes()) == x.text()->bytes());
     }},
    {"lt", [](Runtime& r, Self x, const Arguments& a) { return Value(order(r, x, a) < 0); }},
    {"mapping", [](Runtime&, Self x, const Arguments&) { return Value(x.dict() != nullptr); }},
    {"ne", [](Runtime& r, Self x, const Arguments& a) { return Value(!equal(r, x, a)); }},
    {"none", [](Runtime&, Self x, const Arguments&) { return Value(x.is_none()); }},
    {"number", [](Runtime&, Self x, const Arguments&) { return Value(is_number(x)); }},
    {"odd", [](Runtime&, Self x,
               const Arguments&) { return Value(x.integer() && *x.integer() % 2 != 0); }},
    {"sequence",
     [](Runtime&, Self x, const Arguments&) {
       return Value(x.list() || x.dict() || x.text() || x.is_undefined());
     }},
    {"string", [](Runtime&, Self x, const Arguments&) { return Value(x.text() != nullptr); }},
    {"true", [](Runtime&, Self x, const Arguments&) { return Value(x.boolean() && *x.boolean()); }},
    {"undefined", [](Runtime&, Self x, const Arguments&) { return Value(x.is_undefined()); }},
    {"upper",
     [](Runtime&, Self x, const Arguments&) {
       return Value(x.text() && upper_case(x.text()->bytes()) == x.text()->bytes());
     }},
};

}  // namespace

const Builtin* find_test(std::string_view name) {
  const auto* found =
      std::ranges::find_if(kTests, [&](const Builtin& test) { return name == test.name; });
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace dmc::text::chat
