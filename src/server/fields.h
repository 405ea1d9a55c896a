// Every field of a request for texts, once: the parser, /openapi.json and the fuzzer read this
// table.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dmc::server {

enum class Endpoint : uint8_t { kCompletions = 1, kChat = 2, kBoth = 3 };

enum class FieldType {
  kInteger,
  kNumber,
  kBoolean,
  kString,
  kStrings,   // one, or a list
  kIntegers,  // a list
  kPrompt,    // text or token ids, one or a list
  kMessages,  // of a chat
  kBias,      // from token id to number
  kObject,
  kAny,  // for fields that must be neutral
};

struct Field {
  std::string_view name;
  FieldType type;
  Endpoint where;
  std::string_view summary;
  double least = 0.0, most = 0.0;  // of numbers, and of each element; of strings and lists: sizes
  bool above = false;              // more than `least`
  std::string_view fallback = "";  // JSON; empty: absent
  // What a field must be that is known but not supported, as JSON values; empty: it is supported.
  std::span<const std::string_view> neutral = {};
};

std::span<const Field> request_fields();
bool has_field(const Field& field, Endpoint where);

// The fields of one request, checked. Explicit null is absent; unknown fields are not looked at.
class RequestFields {
 public:
  // `body` must outlive it. Error(kInvalidArgument) naming the first field that is wrong.
  RequestFields(const nlohmann::json& body, Endpoint where);

  bool has(std::string_view name) const;
  const nlohmann::json& at(std::string_view name) const;  // which it has
  // The value, or the table's fallback.
  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  bool boolean(std::string_view name) const;
  std::optional<int64_t> maybe_integer(std::string_view name) const;
  std::vector<std::string> strings(std::string_view name) const;
  std::vector<int64_t> integers(std::string_view name) const;

 private:
  nlohmann::json value(std::string_view name) const;

  const nlohmann::json& body_;
};

// A number that is whole, however it is written (1, 1.0); nothing for anything else.
std::optional<int64_t> whole_number(const nlohmann::json& value);

}  // namespace dmc::server
