// Reads the keys of one JSON object that nobody vouches for; every complaint names file and key.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"

namespace dmc {

constexpr int64_t kLargestSize = int64_t{1} << 24;  // of any one dimension of a model

class JsonFields {
 public:
  // `origin` is what messages call the object: a file's path, with what leads to an inner object.
  // `object` must outlive this. Error(kData) if it is not an object.
  JsonFields(const nlohmann::json& object, std::string origin);

  bool has(const std::string& key) const;  // present and not null
  const nlohmann::json& at(const std::string& key) const;
  JsonFields object(const std::string& key) const;

  // The value of a key, Error(kData) if it is missing, of another type or out of range.
  int64_t size(const std::string& key, int64_t least = 1, int64_t most = kLargestSize) const;
  double number(const std::string& key) const;
  double positive(const std::string& key) const;
  bool boolean(const std::string& key) const;
  std::string text(const std::string& key) const;
  // A token id or a list of them; none where the key is absent or null.
  std::vector<int64_t> token_ids(const std::string& key) const;
  // The same, or `otherwise` where the key is absent or null.
  int64_t size_or(const std::string& key, int64_t otherwise) const;
  bool boolean_or(const std::string& key, bool otherwise) const;

  // Error(kData) unless the key is there with this value.
  void expect(const std::string& key, const nlohmann::json& value) const;
  // For a feature that is not implemented: absent, null or `neutral`, else Error(kData).
  void refuse_unless(const std::string& key, const nlohmann::json& neutral) const;
  // The error for a key that is there with a wrong value.
  Error wrong(const std::string& key, const std::string& expected) const;
  const std::string& origin() const { return origin_; }

 private:
  const nlohmann::json& object_;
  std::string origin_;
};

}  // namespace dmc
