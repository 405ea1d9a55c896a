// Token texts and their ids, both ways.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dmc::text {

struct StringHash {  // lets a map of strings be searched by string_view
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <typename T>
using StringMap = std::unordered_map<std::string, T, StringHash, std::equal_to<>>;

class Vocabulary {
 public:
  static constexpr size_t kMostTokens = size_t{1} << 22;

  // 0 <= id < kMostTokens. Where two tokens share a text, the first keeps it.
  void put(int32_t id, std::string text);
  std::optional<int32_t> find(std::string_view text) const;
  // "" for an id that no token has.
  const std::string& text(int32_t id) const { return texts_[static_cast<size_t>(id)]; }
  int32_t size() const { return static_cast<int32_t>(texts_.size()); }  // largest id + 1

 private:
  std::vector<std::string> texts_;
  StringMap<int32_t> ids_;
};

}  // namespace dmc::text
