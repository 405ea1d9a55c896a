#include "text/chat/value.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "base/utf8.h"
#include "text/chat/number_text.h"
#include "text/unicode.h"

namespace dmc::text::chat {
namespace {

bool same_items(const List& a, const List& b) {
  return a.is_tuple == b.is_tuple && std::ranges::equal(a.items, b.items);
}

bool same_entries(const Dict& a, const Dict& b) {
  return a.entries().size() == b.entries().size() &&
         std::ranges::all_of(a.entries(), [&](const auto& entry) {
           const Value* other = b.find(entry.first.bytes());
           return other && entry.second == *other;
         });
}

bool is_plain_word(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
}

// Python's repr() of a string.
std::string python_literal(std::string_view text) {
  const bool single = text.find('\'') == text.npos || text.find('"') != text.npos;
  const char quote = single ? '\'' : '"';
  std::string out(1, quote);
  while (!text.empty()) {
    const char32_t c = take_code_point(&text);
    char hex[16];
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\\' || c == static_cast<char32_t>(quote)) {
      out.append({'\\', static_cast<char>(c)});
    } else if (c != ' ' && (is_other(c) || is_white_space(c))) {
      const char* format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
      std::snprintf(hex, sizeof hex, format, static_cast<unsigned>(c));
      out += hex;
    } else {
      append_utf8(c, &out);
    }
  }
  return out + quote;
}

Text repr(const Value& value) {
  if (value.is_undefined()) return Text("Undefined");
  const Text* text = value.text();
  return text ? text->with_bytes(python_literal(text->bytes())) : to_text(value);
}

void require_short(const Text& text) {
  if (text.bytes().size() > kLongestText) throw std::length_error("a string grows too long");
}

Text list_text(const List& list) {
  Text out(list.is_tuple ? "(" : "[");
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.append(Text(", "));
    out.append(repr(list.items[i]));
    require_short(out);
  }
  const char* end = !list.is_tuple ? "]" : list.items.size() == 1 ? ",)" : ")";
  out.append(Text(end));
  return out;
}

Text dict_text(const Dict& dict) {
  Text out("{");
  bool first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!first) out.append(Text(", "));
    first = false;
    out.append(key.with_bytes(python_literal(key.bytes())));
    out.append(Text(": "));
    out.append(repr(value));
    require_short(out);
  }
  out.append(Text("}"));
  return out;
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  void write(const Value& value, int64_t level) {
    if (value.is_none()) return put("null");
    if (const bool* truth = value.boolean()) return put(*truth ? "true" : "false");
    if (value.is_number()) return out_.append(to_text(value));
    if (const Text* text = value.text()) return out_.append(text->with_bytes(quote(*text)));
    if (const List* list = value.list()) return write_list(*list, level);
    if (const Dict* dict = value.dict()) return write_dict(*dict, level);
    throw std::invalid_argument(std::string(value.type_name()) + " has no JSON form");
  }

  Text take() { return std::move(out_); }

 private:
  void put(const std::string& bytes) {
    out_.append(Text(bytes));
    require_short(out_);
  }

  std::string quote(const Text& text) const {
    return nlohmann::json(text.bytes())
        .dump(-1, ' ', style_.ascii, nlohmann::json::error_handler_t::replace);
  }

  void line_break(int64_t level) {
    if (style_.indent >= 0)
      put("\n" + std::string(static_cast<size_t>(style_.indent * level), ' '));
  }

  void separate(bool first, int64_t level) {
    if (!first)
      put(style_.indent >= 0 && style_.item_separator == ", " ? "," : style_.item_separator);
    line_break(level);
  }

  void write_list(const List& list, int64_t level) {
    put("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      separate(i == 0, level + 1);
      write(list.items[i], level + 1);
    }
    if (!list.items.empty()) line_break(level);
    put("]");
  }

  void write_dict(const Dict& dict, int64_t level) {
    std::vector<const std::pair<Text, Value>*> entries;
    for (const auto& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::ranges::sort(entries, {},
                        [](const auto* e) -> const std::string& { return e->first.bytes(); });
    }
    put("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      separate(i == 0, level + 1);
      out_.append(entries[i]->first.with_bytes(quote(entries[i]->first)));
      put(style_.key_separator);
      write(entries[i]->second, level + 1);
    }
    if (!entries.empty()) line_break(level);
    put("}");
  }

  const JsonStyle& style_;
  Text out_;
};

}  // namespace

void Dict::set(const Text& key, Value value) {
  const auto [found, inserted] = index_.try_emplace(key.bytes(), entries_.size());
  if (inserted) {
    entries_.emplace_back(key, std::move(value));
  } else {
    entries_[found->second].second = std::move(value);
  }
}

const Value* Dict::find(std::string_view key) const {
  const auto found = index_.find(std::string(key));
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

const Value* Arguments::find(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [given, value] : named) {
    if (given == name) return &value;
  }
  return nullptr;
}

Value::Value() {
  static const auto nameless = std::make_shared<const Undefined>();
  data_ = nameless;
}

void Value::contain(const Value& part) {
  depth_ = std::max(depth_, part.depth() + 1);
  weight_ += part.weight();
  if (depth_ > kDeepest) {
    throw std::length_error("lists and dictionaries nest deeper than " + std::to_string(kDeepest) +
                            " levels");
  }
  if (weight_ > kHeaviest) throw std::length_error("a list or dictionary grows too large");
}

Value::Value(List list) {
  for (const Value& item : list.items) contain(item);
  data_ = std::make_shared<const List>(std::move(list));
}

Value::Value(Dict dict) {
  for (const auto& [key, value] : dict.entries()) {
    contain(value);
    weight_ += key.bytes().size();
  }
  data_ = std::make_shared<const Dict>(std::move(dict));
}

Value::Value(std::shared_ptr<Namespace> ns) : data_(std::move(ns)), depth_(kDeepest) {}

double Value::number() const {
  if (real()) return *real();
  return integer() ? static_cast<double>(*integer()) : *boolean();
}

bool Value::is_true() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (text()) return !text()->bytes().empty();
  if (list()) return !list()->items.empty();
  if (dict()) return !dict()->entries().empty();
  return true;
}

const char* Value::type_name() const {
  constexpr const char* kNames[] = {
      "an undefined value", "none",   "a boolean",    "an integer", "a float",
      "a string",           "a list", "a dictionary", "a function", "a namespace"};
  return kNames[data_.index()];
}

bool operator==(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return a.integer() && b.integer() ? *a.integer() == *b.integer() : a.number() == b.number();
  }
  if (a.text() && b.text()) return a.text()->bytes() == b.text()->bytes();
  if (a.list() && b.list()) return same_items(*a.list(), *b.list());
  if (a.dict() && b.dict()) return same_entries(*a.dict(), *b.dict());
  if (a.function() || a.name_space()) {
    return a.function() == b.function() && a.name_space() == b.name_space();
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

int compare(const Value& a, const Value& b) {
  if (a.integer() && b.integer()) {
    return *a.integer() < *b.integer() ? -1 : *a.integer() > *b.integer();
  }
  if (a.is_number() && b.is_number()) {
    return a.number() < b.number() ? -1 : a.number() > b.number();
  }
  if (a.text() && b.text()) return a.text()->bytes().compare(b.text()->bytes());
  if (a.list() && b.list()) {
    const auto& left = a.list()->items;
    const auto& right = b.list()->items;
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
      if (const int order = compare(left[i], right[i])) return order;
    }
    return left.size() < right.size() ? -1 : left.size() > right.size();
  }
  throw std::invalid_argument(std::string(a.type_name()) + " and " + b.type_name() +
                              " have no order");
}

Value from_json(const nlohmann::ordered_json& json, bool untrusted) {
  if (json.is_string()) return Value(Text(utf8_repaired(json.get<std::string>()), untrusted));
  if (json.is_boolean()) return Value(json.get<bool>());
  constexpr uint64_t kLargest = std::numeric_limits<int64_t>::max();
  const bool huge = json.is_number_unsigned() && json.get<uint64_t>() > kLargest;
  if (json.is_number_integer() && !huge) return Value(json.get<int64_t>());
  if (json.is_number()) return Value(json.get<double>());
  if (json.is_array()) {
    List list;
    for (const auto& item : json) list.items.push_back(from_json(item, untrusted));
    return Value(std::move(list));
  }
  if (!json.is_object()) return Value(None{});
  Dict dict;
  for (const auto& [key, item] : json.items()) {
    const bool plain_role =
        key == "role" && item.is_string() && is_plain_word(item.get_ref<const std::string&>());
    dict.set(Text(utf8_repaired(key), untrusted), from_json(item, untrusted && !plain_role));
  }
  return Value(std::move(dict));
}

Text to_text(const Value& value) {
  if (value.text()) return *value.text();
  if (value.is_undefined()) return Text("");
  if (value.is_none()) return Text("None");
  if (value.boolean()) return Text(*value.boolean() ? "True" : "False");
  if (value.integer()) return Text(std::to_string(*value.integer()));
  if (value.real()) return Text(float_text(*value.real()));
  if (value.list()) return list_text(*value.list());
  if (value.dict()) return dict_text(*value.dict());
  return Text(value.type_name());
}

Text to_json(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace dmc::text::chat
