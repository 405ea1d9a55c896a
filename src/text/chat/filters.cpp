#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/utf8.h"
#include "text/chat/builtins.h"
#include "text/unicode.h"

namespace dmc::text::chat {
namespace {

Text text_of(const Value& self) { return to_text(self); }

Value trim(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const bool given = arguments.find(0, "chars") != nullptr;
  const std::string characters = given ? text_argument(runtime, arguments, 0, "chars").bytes() : "";
  return runtime.charged(stripped(text_of(self), true, true, characters));
}

Value to_json_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  JsonStyle style;
  style.ascii = truth_argument(arguments, 0, "ensure_ascii", false);
  const Value* indent = arguments.find(1, "indent");
  if (indent && !indent->is_none()) {
    style.indent = std::clamp<int64_t>(integer_argument(runtime, arguments, 1, "indent"), 0, 16);
  }
  const Value* separators = arguments.find(2, "separators");
  if (separators && separators->list() && separators->list()->items.size() == 2) {
    style.item_separator = to_text(separators->list()->items[0]).bytes();
    style.key_separator = to_text(separators->list()->items[1]).bytes();
  }
  style.sort_keys = truth_argument(arguments, 3, "sort_keys", false);
  return runtime.charged(to_json(self, style));
}

Value length(Runtime& runtime, const Value& self, const Arguments&) {
  if (self.text()) {
    return Value(static_cast<int64_t>(character_offsets(self.text()->bytes()).size()) - 1);
  }
  if (self.list()) return Value(static_cast<int64_t>(self.list()->items.size()));
  if (self.dict()) return Value(static_cast<int64_t>(self.dict()->entries().size()));
  if (self.is_undefined()) return Value(int64_t{0});
  runtime.fail(std::string(self.type_name()) + " has no length");
}

// The value of an attribute path such as "function.name".
Value attribute_of(Runtime& runtime, const Value& item, const Text& path) {
  Value value = item;
  for (const Text& name : split(path, ".", -1, false)) {
    value = get_item(runtime, value, Value(name.bytes()));
  }
  return value;
}

Value join(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Value* separator = arguments.find(0, "d");
  const Value* attribute = arguments.find(1, "attribute");
  const Text between = separator ? to_text(*separator) : Text();
  Text out;
  bool first = true;
  for (const Value& item : items_of(runtime, self)) {
    if (!first) out.append(between);
    first = false;
    const bool whole = !attribute || !attribute->text();
    out.append(to_text(whole ? item : attribute_of(runtime, item, *attribute->text())));
    if (out.bytes().size() > runtime.limits.output) runtime.fail("a string grows too long");
  }
  return runtime.charged(std::move(out));
}

Value default_value(Runtime&, const Value& self, const Arguments& arguments) {
  const bool falsy_too = truth_argument(arguments, 1, "boolean", false);
  if (!self.is_undefined() && (!falsy_too || self.is_true())) return self;
  const Value* otherwise = arguments.find(0, "default_value");
  return otherwise ? *otherwise : Value("");
}

Value first(Runtime& runtime, const Value& self, const Arguments&) {
  const std::vector<Value> items = items_of(runtime, self);
  return items.empty() ? Value(Undefined{"the first item"}) : items.front();
}

Value last(Runtime& runtime, const Value& self, const Arguments&) {
  const std::vector<Value> items = items_of(runtime, self);
  return items.empty() ? Value(Undefined{"the last item"}) : items.back();
}

Value list(Runtime& runtime, const Value& self, const Arguments&) {
  return Value(List{.items = items_of(runtime, self)});
}

Value items(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (self.is_undefined()) return Value(List{});
  if (!self.dict()) runtime.fail(std::string(self.type_name()) + " has no items");
  return find_dict_method("items")->call(runtime, self, arguments);
}

Value reverse(Runtime& runtime, const Value& self, const Arguments&) {
  std::vector<Value> reversed = items_of(runtime, self);
  std::ranges::reverse(reversed);
  if (!self.text()) return Value(List{.items = std::move(reversed)});
  Text text;
  for (const Value& character : reversed) text.append(*character.text());
  return runtime.charged(std::move(text));
}

// What sorting and comparing without regard to case goes by.
Value folded(const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.text()) return value;
  return Value(lower_case(value.text()->bytes()));
}

Value sort(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const bool descending = truth_argument(arguments, 0, "reverse", false);
  const bool case_sensitive = truth_argument(arguments, 1, "case_sensitive", false);
  const Value* attribute = arguments.find(2, "attribute");
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items_of(runtime, self)) {
    const bool whole = !attribute || !attribute->text();
    const Value key = whole ? item : attribute_of(runtime, item, *attribute->text());
    keyed.emplace_back(folded(key, case_sensitive), item);
  }
  std::ranges::stable_sort(keyed, [&](const auto& a, const auto& b) {
    runtime.charge_items(1);
    runtime.charge_comparison(a.first, b.first);
    return descending ? compare(b.first, a.first) < 0 : compare(a.first, b.first) < 0;
  });
  List sorted;
  for (auto& entry : keyed) sorted.items.push_back(std::move(entry.second));
  return Value(std::move(sorted));
}

Value dict_sort(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const bool case_sensitive = truth_argument(arguments, 0, "case_sensitive", false);
  const Value* by = arguments.find(1, "by");
  const size_t part = by && by->text() && by->text()->bytes() == "value" ? 1 : 0;
  const bool descending = truth_argument(arguments, 2, "reverse", false);
  List pairs = *items(runtime, self, {}).list();
  std::ranges::stable_sort(pairs.items, [&](const Value& a, const Value& b) {
    runtime.charge_items(1);
    runtime.charge_comparison(a, b);
    const Value x = folded(a.list()->items[part], case_sensitive);
    const Value y = folded(b.list()->items[part], case_sensitive);
    return descending ? compare(y, x) < 0 : compare(x, y) < 0;
  });
  return Value(std::move(pairs));
}

Value unique(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const bool case_sensitive = truth_argument(arguments, 0, "case_sensitive", false);
  List result;
  std::vector<Value> seen;
  for (const Value& item : items_of(runtime, self)) {
    const Value key = folded(item, case_sensitive);
    for (const Value& other : seen) runtime.charge_comparison(key, other);
    runtime.charge_items(seen.size());
    if (std::ranges::find(seen, key) != seen.end()) continue;
    seen.push_back(key);
    result.items.push_back(item);
  }
  return Value(std::move(result));
}

Arguments rest_of(const Arguments& arguments, size_t from) {
  Arguments rest;
  for (size_t i = from; i < arguments.positional.size(); ++i) {
    rest.positional.push_back(arguments.positional[i]);
  }
  return rest;
}

// Keeps the items for which the test named by argument `index` holds, or without it those that are
// true; `key` gives what is tested.
template <typename Key>
Value keep(Runtime& runtime, const Value& self, const Arguments& arguments, size_t index,
           bool wanted, Key key) {
  const Builtin* test = nullptr;
  if (arguments.positional.size() > index) {
    const std::string& name = text_argument(runtime, arguments, index, "test").bytes();
    test = find_test(name);
    if (!test) runtime.fail("test " + name + " is not supported");
  }
  const Arguments rest = rest_of(arguments, index + 1);
  List kept;
  for (const Value& item : items_of(runtime, self)) {
    const Value tested = key(item);
    const bool holds = (test ? test->call(runtime, tested, rest) : tested).is_true();
    if (holds == wanted) kept.items.push_back(item);
  }
  return Value(std::move(kept));
}

template <bool wanted>
Value select(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return keep(runtime, self, arguments, 0, wanted, [](const Value& item) { return item; });
}

template <bool wanted>
Value select_by_attribute(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Text& path = text_argument(runtime, arguments, 0, "attribute");
  return keep(runtime, self, arguments, 1, wanted,
              [&](const Value& item) { return attribute_of(runtime, item, path); });
}

Value map_attribute(Runtime& runtime, const Value& item, const Arguments& arguments) {
  const Value value =
      attribute_of(runtime, item, text_argument(runtime, arguments, 9, "attribute"));
  const Value* otherwise = arguments.find(9, "default");
  return value.is_undefined() && otherwise ? *otherwise : value;
}

Value map(Runtime& runtime, const Value& self, const Arguments& arguments) {
  List mapped;
  if (arguments.positional.empty()) {
    for (const Value& item : items_of(runtime, self)) {
      mapped.items.push_back(map_attribute(runtime, item, arguments));
    }
    return Value(std::move(mapped));
  }
  const std::string& name = text_argument(runtime, arguments, 0, "filter").bytes();
  const Builtin* filter = find_filter(name);
  if (!filter) runtime.fail("filter " + name + " is not supported");
  Arguments rest = rest_of(arguments, 1);
  rest.named = arguments.named;
  for (const Value& item : items_of(runtime, self)) {
    mapped.items.push_back(filter->call(runtime, item, rest));
  }
  return Value(std::move(mapped));
}

Value upper(Runtime& runtime, const Value& self, const Arguments&) {
  const Text text = text_of(self);
  return runtime.charged(text.with_bytes(upper_case(text.bytes())));
}

Value lower(Runtime& runtime, const Value& self, const Arguments&) {
  const Text text = text_of(self);
  return runtime.charged(text.with_bytes(lower_case(text.bytes())));
}

// The first letter of the string, or of each word, in upper case and the others in lower case.
Value recased(Runtime& runtime, const Value& self, bool each_word) {
  const Text text = text_of(self);
  const std::string lowered = lower_case(text.bytes());
  std::string out;
  bool begins = true;
  for (std::string_view rest = lowered; !rest.empty();) {
    const std::string_view character = rest.substr(0, utf8_sequence_length(rest));
    out += begins ? upper_case(character) : std::string(character);
    constexpr std::string_view kBetween = "-([{<";
    const char32_t c = take_code_point(&rest);
    begins = each_word &&
             (is_blank(c) || (c < 0x80 && kBetween.find(static_cast<char>(c)) != kBetween.npos));
  }
  return runtime.charged(text.with_bytes(std::move(out)));
}

Value capitalize(Runtime& runtime, const Value& self, const Arguments&) {
  return recased(runtime, self, /*each_word=*/false);
}

Value title(Runtime& runtime, const Value& self, const Arguments&) {
  return recased(runtime, self, /*each_word=*/true);
}

Value replace(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Text& from = text_argument(runtime, arguments, 0, "old");
  const Text& to = text_argument(runtime, arguments, 1, "new");
  const Text text = text_of(self);
  const size_t places = from.bytes().empty()
                            ? text.bytes().size() + 1
                            : count_of(text.bytes(), from.bytes());  // bounds the growth
  if (places * to.bytes().size() > runtime.limits.output) runtime.fail("a string grows too long");
  const Value* most = arguments.find(2, "count");
  const bool limited = most && !most->is_none();
  return runtime.charged(
      replaced(text, from, to, limited ? integer_argument(runtime, arguments, 2, "count") : -1));
}

Value to_integer(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (self.integer()) return self;
  if (self.is_number() && std::abs(self.number()) < 9e18) {
    return Value(static_cast<int64_t>(self.number()));
  }
  int64_t value = 0;
  const std::string text = stripped(to_text(self), true, true, "").bytes();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size() && !text.empty();
  return Value(whole ? value : integer_argument(runtime, arguments, 0, "default", 0));
}

Value to_float(Runtime&, const Value& self, const Arguments&) {
  if (self.is_number()) return Value(self.number());
  double value = 0;
  const std::string text = stripped(to_text(self), true, true, "").bytes();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return Value(error == std::errc() && end == text.data() + text.size() ? value : 0.0);
}

Value to_string(Runtime& runtime, const Value& self, const Arguments&) {
  return self.text() ? self : runtime.charged(to_text(self));
}

Value absolute(Runtime& runtime, const Value& self, const Arguments&) {
  if (!self.is_number()) runtime.fail(std::string(self.type_name()) + " has no absolute value");
  if (self.real()) return Value(std::abs(*self.real()));
  const auto integer = static_cast<int64_t>(self.integer() ? *self.integer() : *self.boolean());
  if (integer == INT64_MIN) runtime.fail("an integer grows beyond 64 bits");
  return Value(std::abs(integer));
}

Value rounded(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (!self.is_number()) runtime.fail(std::string(self.type_name()) + " cannot be rounded");
  const int64_t digits = integer_argument(runtime, arguments, 0, "precision", 0);
  const double scale = std::pow(10.0, static_cast<double>(std::clamp<int64_t>(digits, -300, 300)));
  return Value(std::nearbyint(self.number() * scale) / scale);
}

template <bool largest>
Value extreme(Runtime& runtime, const Value& self, const Arguments&) {
  const std::vector<Value> items = items_of(runtime, self);
  if (items.empty()) return Value(Undefined{largest ? "the largest item" : "the smallest item"});
  const auto less = [](const Value& a, const Value& b) { return compare(a, b) < 0; };
  return largest ? *std::ranges::max_element(items, less) : *std::ranges::min_element(items, less);
}

Value indent(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const int64_t width = integer_argument(runtime, arguments, 0, "width", 4);
  const bool first_too = truth_argument(arguments, 1, "first", false);
  const bool blank_too = truth_argument(arguments, 2, "blank", false);
  const Text margin(std::string(static_cast<size_t>(std::clamp<int64_t>(width, 0, 256)), ' '));
  Text out;
  bool first_line = true;
  for (const Text& line : split(text_of(self), "\n", -1, false)) {
    if (!first_line) out.append(Text("\n"));
    const bool wanted = first_line ? first_too : blank_too || !line.bytes().empty();
    if (wanted) out.append(margin);
    out.append(line);
    first_line = false;
    if (out.bytes().size() > runtime.limits.output) runtime.fail("a string grows too long");
  }
  return runtime.charged(std::move(out));
}

Value itself(Runtime&, const Value& self, const Arguments&) { return self; }

constexpr Builtin kFilters[] = {
    {"abs", absolute},
    {"capitalize", capitalize},
    {"count", length},
    {"d", default_value},
    {"default", default_value},
    {"dictsort", dict_sort},
    {"first", first},
    {"float", to_float},
    {"indent", indent},
    {"int", to_integer},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length},
    {"list", list},
    {"lower", lower},
    {"map", map},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", select<false>},
    {"rejectattr", select_by_attribute<false>},
    {"replace", replace},
    {"reverse", reverse},
    {"round", rounded},
    {"safe", itself},
    {"select", select<true>},
    {"selectattr", select_by_attribute<true>},
    {"sort", sort},
    {"string", to_string},
    {"title", title},
    {"tojson", to_json_filter},
    {"trim", trim},
    {"unique", unique},
    {"upper", upper},
};

}  // namespace

const Builtin* find_filter(std::string_view name) {
  const auto* found =
      std::ranges::find_if(kFilters, [&](const Builtin& filter) { return name == filter.name; });
  return found == std::end(kFilters) ? nullptr : found;
}

}  // namespace dmc::text::chat
