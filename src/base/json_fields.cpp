#include "base/json_fields.h"

#include "base/quoted.h"

namespace dmc {

using nlohmann::json;

JsonFields::JsonFields(const json& object, std::string origin)
    : object_(object), origin_(std::move(origin)) {
  if (!object.is_object()) throw data_error(origin_ + ": not a JSON object");
}

bool JsonFields::has(const std::string& key) const {
  return object_.contains(key) && !object_.at(key).is_null();
}

const json& JsonFields::at(const std::string& key) const {
  if (!has(key)) throw data_error(origin_ + ": key " + in_quotes(key) + " is missing");
  return object_.at(key);
}

JsonFields JsonFields::object(const std::string& key) const {
  return {at(key), origin_ + ": " + key};
}

int64_t JsonFields::size(const std::string& key, int64_t least, int64_t most) const {
  const json& value = at(key);
  if (!value.is_number_integer() || value < least || value > most) {
    throw wrong(key,
                "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return value.get<int64_t>();
}

double JsonFields::number(const std::string& key) const {
  if (!at(key).is_number()) throw wrong(key, "a number");
  return at(key).get<double>();
}

double JsonFields::positive(const std::string& key) const {
  const json& value = at(key);
  if (!value.is_number() || !(value.get<double>() > 0)) throw wrong(key, "a positive number");
  return value.get<double>();
}

bool JsonFields::boolean(const std::string& key) const {
  if (!at(key).is_boolean()) throw wrong(key, "true or false");
  return at(key).get<bool>();
}

std::string JsonFields::text(const std::string& key) const {
  if (!at(key).is_string()) throw wrong(key, "a string");
  return at(key).get<std::string>();
}

int64_t JsonFields::size_or(const std::string& key, int64_t otherwise) const {
  return has(key) ? size(key) : otherwise;
}

bool JsonFields::boolean_or(const std::string& key, bool otherwise) const {
  return has(key) ? boolean(key) : otherwise;
}

std::vector<int64_t> JsonFields::token_ids(const std::string& key) const {
  if (!has(key)) return {};
  const json& value = at(key);
  const json list = value.is_array() ? value : json::array({value});
  std::vector<int64_t> ids;
  for (const json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > uint64_t{kLargestSize}) {
      throw wrong(key, "a token id, a list of them, or null");
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

void JsonFields::expect(const std::string& key, const json& value) const {
  if (at(key) != value) throw wrong(key, value.dump());
}

void JsonFields::refuse_unless(const std::string& key, const json& neutral) const {
  if (has(key)) expect(key, neutral);
}

Error JsonFields::wrong(const std::string& key, const std::string& expected) const {
  return data_error(origin_ + ": key " + in_quotes(key) + " is " +
                    printable(object_.at(key).dump()) + ", expected " + expected);
}

}  // namespace dmc
