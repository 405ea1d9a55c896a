// Which of many strings a text goes on with.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dmc::text {

class ByteTrie {
 public:
  // The first value (not negative) of a text counts.
  void add(std::string_view text, int32_t value);

  // Calls fn(size, value) for every added text that `text` starts with, the shortest first. Gives
  // the bytes that were looked at.
  template <typename Fn>
  size_t for_each_prefix(std::string_view text, Fn fn) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const auto found = edges_.find(edge(node, text[i]));
      if (found == edges_.end()) return i + 1;
      node = found->second;
      if (values_[node] != kNone) fn(i + 1, values_[node]);
    }
    return text.size();
  }

 private:
  static constexpr int32_t kNone = -1;
  static uint64_t edge(uint32_t node, char byte) {
    return uint64_t{node} << 8 | static_cast<unsigned char>(byte);
  }

  std::unordered_map<uint64_t, uint32_t> edges_;  // (node, byte) -> node; node 0 is the root
  std::vector<int32_t> values_ = {kNone};         // of each node
};

}  // namespace dmc::text
