// The values of the template language: those of Python that chat templates use.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "text/chat/text.h"

namespace dmc::text::chat {

class Value;
class Runtime;

struct Undefined {
  std::string name;  // what was looked for, for messages
};
struct None {};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
};

class Dict {  // keeps the order of insertion
 public:
  void set(const Text& key, Value value);
  const Value* find(std::string_view key) const;
  const std::vector<std::pair<Text, Value>>& entries() const { return entries_; }

 private:
  std::vector<std::pair<Text, Value>> entries_;
  std::unordered_map<std::string, size_t> index_;
};

struct Namespace {  // the one value that changes: namespace(), set by {% set ns.x = ... %}
  Dict attributes;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `index` or called `name`; null if it was not given.
  const Value* find(size_t index, std::string_view name) const;
};

struct Function {  // a macro, a global function or a method with its object bound
  std::function<Value(Runtime&, const Arguments&)> call;
};

class Value {
 public:
  Value();  // undefined
  explicit Value(Undefined undefined)
      : data_(std::make_shared<const Undefined>(std::move(undefined))) {}
  explicit Value(None) : data_(None{}) {}
  explicit Value(bool value) : data_(value) {}
  explicit Value(int64_t value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(Text text)
      : data_(std::make_shared<const Text>(std::move(text))),
        weight_(1 + this->text()->bytes().size()) {}
  explicit Value(std::string text) : Value(Text(std::move(text))) {}
  explicit Value(const char* text) : Value(std::string(text)) {}
  // Throw std::length_error if it would nest deeper than kDeepest, since freeing it recurses, or
  // weigh more than kHeaviest.
  explicit Value(List list);
  explicit Value(Dict dict);
  explicit Value(Function function)
      : data_(std::make_shared<const Function>(std::move(function))) {}
  explicit Value(std::shared_ptr<Namespace> ns);

  static constexpr int kDeepest = 100;
  // Levels of lists and dictionaries. A namespace counts as the most, so that nothing can hold one
  // and no cycle can arise.
  int depth() const { return depth_; }

  static constexpr size_t kHeaviest = size_t{1} << 24;
  // Values in it, and bytes of its strings, those counted again that are in it more than once: a
  // list that holds a list twice is small in memory, but long to print or to compare.
  size_t weight() const { return weight_; }

  bool is_undefined() const { return undefined() != nullptr; }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  const Undefined* undefined() const { return shared<const Undefined>(); }
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  const Text* text() const { return shared<const Text>(); }
  const List* list() const { return shared<const List>(); }
  const Dict* dict() const { return shared<const Dict>(); }
  const Function* function() const { return shared<const Function>(); }
  Namespace* name_space() const { return shared<Namespace>(); }
  bool is_number() const { return integer() || real() || boolean(); }
  double number() const;  // of a number

  bool is_true() const;           // as Python's bool()
  const char* type_name() const;  // for messages

 private:
  template <typename T>
  T* shared() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&data_);
    return pointer ? pointer->get() : nullptr;
  }

  std::variant<std::shared_ptr<const Undefined>, None, bool, int64_t, double,
               std::shared_ptr<const Text>, std::shared_ptr<const List>,
               std::shared_ptr<const Dict>, std::shared_ptr<const Function>,
               std::shared_ptr<Namespace>>
      data_;
  void contain(const Value& part);  // counts a part's depth and weight in

  int depth_ = 0;
  size_t weight_ = 1;
};

bool operator==(const Value& a, const Value& b);
// Negative, zero or positive. Throws std::invalid_argument for what has no order.
int compare(const Value& a, const Value& b);

// JSON from a request: all strings and keys are untrusted if `untrusted` says so, but not the value
// of a key "role" that is a plain word, which templates build control tokens from.
Value from_json(const nlohmann::ordered_json& json, bool untrusted);

// What to_text() and to_json() make of lists and dictionaries ends here with std::length_error:
// those that hold one thing many times are small, and their text is not.
constexpr size_t kLongestText = size_t{4} << 20;  // bytes
Text to_text(const Value& value);                 // as Python's str()

struct JsonStyle {
  int64_t indent = -1;  // negative: all on one line
  std::string item_separator = ", ", key_separator = ": ";
  bool ascii = false, sort_keys = false;
};
// As Python's json.dumps(); throws std::invalid_argument for what has no JSON.
Text to_json(const Value& value, const JsonStyle& style);

}  // namespace dmc::text::chat
