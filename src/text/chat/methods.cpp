// Attributes, items, methods of strings and dictionaries.
#include <algorithm>

#include "base/utf8.h"
#include "text/chat/builtins.h"
#include "text/unicode.h"

namespace dmc::text::chat {
namespace {

template <bool left, bool right>
Value strip(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const bool given = arguments.find(0, "chars") && !arguments.find(0, "chars")->is_none();
  const std::string characters = given ? text_argument(runtime, arguments, 0, "chars").bytes() : "";
  if (given && characters.empty()) return self;
  return runtime.charged(stripped(*self.text(), left, right, characters));
}

Value list_of(Runtime& runtime, std::vector<Text> texts) {
  List list;
  runtime.charge_items(texts.size());
  for (Text& text : texts) list.items.push_back(runtime.charged(std::move(text)));
  return Value(std::move(list));
}

template <bool from_right>
Value split_at(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Value* separator = arguments.find(0, "sep");
  if (!separator || separator->is_none()) return list_of(runtime, split(*self.text()));
  const std::string& bytes = text_argument(runtime, arguments, 0, "sep").bytes();
  if (bytes.empty()) runtime.fail("split() needs a separator that is not empty");
  const int64_t most = integer_argument(runtime, arguments, 1, "maxsplit", -1);
  return list_of(runtime, split(*self.text(), bytes, most, from_right));
}

Value split_lines(Runtime& runtime, const Value& self, const Arguments&) {
  std::vector<Text> lines = split(*self.text(), "\n", -1, false);
  if (lines.back().bytes().empty()) lines.pop_back();
  for (Text& line : lines) {
    const std::string& bytes = line.bytes();
    if (bytes.ends_with('\r')) line = line.slice(0, bytes.size() - 1);
  }
  return list_of(runtime, std::move(lines));
}

// Whether the string has one of the prefixes (or suffixes) given, one or a tuple of them.
template <typename Predicate>
Value has_any(Runtime& runtime, const Value& self, const Arguments& arguments, Predicate has) {
  const Value* given = arguments.find(0, "prefix");
  const List* list = given ? given->list() : nullptr;
  if (!list) {
    return Value(has(self.text()->bytes(), text_argument(runtime, arguments, 0, "prefix").bytes()));
  }
  return Value(std::ranges::any_of(list->items, [&](const Value& item) {
    return item.text() && has(self.text()->bytes(), item.text()->bytes());
  }));
}

Value starts_with(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return has_any(runtime, self, arguments,
                 [](const std::string& text, const std::string& x) { return text.starts_with(x); });
}

Value ends_with(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return has_any(runtime, self, arguments,
                 [](const std::string& text, const std::string& x) { return text.ends_with(x); });
}

Value remove_prefix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& prefix = text_argument(runtime, arguments, 0, "prefix").bytes();
  const Text& text = *self.text();
  if (!text.bytes().starts_with(prefix)) return self;
  return runtime.charged(text.slice(prefix.size(), text.bytes().size()));
}

Value remove_suffix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& suffix = text_argument(runtime, arguments, 0, "suffix").bytes();
  const Text& text = *self.text();
  if (!text.bytes().ends_with(suffix)) return self;
  return runtime.charged(text.slice(0, text.bytes().size() - suffix.size()));
}

Value find(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& text = self.text()->bytes();
  const size_t at = text.find(text_argument(runtime, arguments, 0, "sub").bytes());
  if (at == text.npos) return Value(int64_t{-1});
  return Value(static_cast<int64_t>(character_offsets(text.substr(0, at)).size()) - 1);
}

Value count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& part = text_argument(runtime, arguments, 0, "sub").bytes();
  const std::string& text = self.text()->bytes();
  if (part.empty()) return Value(static_cast<int64_t>(character_offsets(text).size()));
  return Value(static_cast<int64_t>(count_of(text, part)));
}

// A string method that is also a filter of the same name, without arguments of its own.
template <char const* name>
Value as_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return find_filter(name)->call(runtime, self, arguments);
}
constexpr char kUpper[] = "upper", kLower[] = "lower", kTitle[] = "title",
               kCapitalize[] = "capitalize", kJoin[] = "join", kReplace[] = "replace";

Value join(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Value* items = arguments.find(0, "iterable");
  if (!items) runtime.fail("join() needs a list");
  return find_filter(kJoin)->call(runtime, *items, Arguments{{self}, {}});
}

Value is_digit(Runtime&, const Value& self, const Arguments&) {
  const std::string& text = self.text()->bytes();
  return Value(!text.empty() && text.find_first_not_of("0123456789") == text.npos);
}

constexpr Builtin kStringMethods[] = {
    {"capitalize", as_filter<kCapitalize>},
    {"count", count},
    {"endswith", ends_with},
    {"find", find},
    {"isdigit", is_digit},
    {"join", join},
    {"lower", as_filter<kLower>},
    {"lstrip", strip<true, false>},
    {"removeprefix", remove_prefix},
    {"removesuffix", remove_suffix},
    {"replace", as_filter<kReplace>},
    {"rsplit", split_at<true>},
    {"rstrip", strip<false, true>},
    {"split", split_at<false>},
    {"splitlines", split_lines},
    {"startswith", starts_with},
    {"strip", strip<true, true>},
    {"title", as_filter<kTitle>},
    {"upper", as_filter<kUpper>},
};

Value items(Runtime& runtime, const Value& self, const Arguments&) {
  List pairs;
  runtime.charge_items(self.dict()->entries().size());
  for (const auto& [key, value] : self.dict()->entries()) {
    pairs.items.push_back(Value(List{.items = {Value(key), value}, .is_tuple = true}));
  }
  return Value(std::move(pairs));
}

Value keys(Runtime& runtime, const Value& self, const Arguments&) {
  return Value(List{.items = items_of(runtime, self)});
}

Value values(Runtime& runtime, const Value& self, const Arguments&) {
  List list;
  runtime.charge_items(self.dict()->entries().size());
  for (const auto& entry : self.dict()->entries()) list.items.push_back(entry.second);
  return Value(std::move(list));
}

Value get(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Value* key = arguments.find(0, "key");
  if (!key) runtime.fail("get() needs a key");
  const Value* found = key->text() ? self.dict()->find(key->text()->bytes()) : nullptr;
  const Value* otherwise = arguments.find(1, "default");
  return found ? *found : otherwise ? *otherwise : Value(None{});
}

constexpr Builtin kDictMethods[] = {
    {"get", get}, {"items", items}, {"keys", keys}, {"values", values}};

template <size_t size>
const Builtin* find_in(const Builtin (&table)[size], std::string_view name) {
  const auto* found =
      std::ranges::find_if(table, [&](const Builtin& builtin) { return name == builtin.name; });
  return found == std::end(table) ? nullptr : found;
}

Value bound(const Builtin& method, const Value& self) {
  return Value(Function{[&method, self](Runtime& runtime, const Arguments& arguments) {
    return method.call(runtime, self, arguments);
  }});
}

const Builtin* find_method(const Value& object, std::string_view name) {
  if (object.text()) return find_string_method(name);
  return object.dict() ? find_dict_method(name) : nullptr;
}

const Value* find_entry(const Value& object, std::string_view name) {
  if (object.dict()) return object.dict()->find(name);
  return object.name_space() ? object.name_space()->attributes.find(name) : nullptr;
}

Value item_at(Runtime& runtime, const Value& sequence, int64_t index) {
  if (const List* list = sequence.list()) {
    const auto size = static_cast<int64_t>(list->items.size());
    const int64_t at = index < 0 ? index + size : index;
    if (at < 0 || at >= size) return Value(Undefined{"item " + std::to_string(index)});
    return list->items[static_cast<size_t>(at)];
  }
  const Text& text = *sequence.text();
  const std::vector<size_t> offsets = character_offsets(text.bytes());
  const auto size = static_cast<int64_t>(offsets.size()) - 1;
  const int64_t at = index < 0 ? index + size : index;
  if (at < 0 || at >= size) return Value(Undefined{"character " + std::to_string(index)});
  const auto i = static_cast<size_t>(at);
  runtime.charged(Text(text.bytes()));  // the search for the character reads the whole string
  return runtime.charged(text.slice(offsets[i], offsets[i + 1]));
}

void require_defined(Runtime& runtime, const Value& object) {
  if (const Undefined* undefined = object.undefined()) {
    runtime.fail("'" + undefined->name + "' is undefined");
  }
}

}  // namespace

const Builtin* find_string_method(std::string_view name) { return find_in(kStringMethods, name); }
const Builtin* find_dict_method(std::string_view name) { return find_in(kDictMethods, name); }

Value get_attribute(Runtime& runtime, const Value& object, const std::string& name) {
  require_defined(runtime, object);
  if (const Builtin* method = find_method(object, name)) return bound(*method, object);
  const Value* entry = find_entry(object, name);
  return entry ? *entry : Value(Undefined{name});
}

Value get_item(Runtime& runtime, const Value& object, const Value& index) {
  require_defined(runtime, object);
  if (index.integer() && (object.list() || object.text())) {
    return item_at(runtime, object, *index.integer());
  }
  if (!index.text()) return Value(Undefined{to_text(index).bytes()});
  const std::string& name = index.text()->bytes();
  if (const Value* entry = find_entry(object, name)) return *entry;
  if (const Builtin* method = find_method(object, name)) return bound(*method, object);
  return Value(Undefined{name});
}

std::vector<Value> items_of(Runtime& runtime, const Value& iterable) {
  std::vector<Value> items;
  if (iterable.is_undefined()) return items;
  if (const List* list = iterable.list()) {
    items = list->items;
  } else if (const Dict* dict = iterable.dict()) {
    for (const auto& entry : dict->entries()) items.push_back(Value(entry.first));
  } else if (const Text* text = iterable.text()) {
    const std::vector<size_t> offsets = character_offsets(text->bytes());
    runtime.charge_items(offsets.size());
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      items.push_back(Value(text->slice(offsets[i], offsets[i + 1])));
    }
  } else {
    runtime.fail(std::string(iterable.type_name()) + " cannot be looped over");
  }
  runtime.charge_items(items.size());
  return items;
}

Value call_function(Runtime& runtime, const Value& callee, const Arguments& arguments) {
  require_defined(runtime, callee);
  if (!callee.function()) runtime.fail(std::string(callee.type_name()) + " cannot be called");
  return callee.function()->call(runtime, arguments);
}

}  // namespace dmc::text::chat
