#include "text/tokenizer/byte_trie.h"

namespace dmc::text {

void ByteTrie::add(std::string_view text, int32_t value) {
  uint32_t node = 0;
  for (char byte : text) {
    const auto fresh = static_cast<uint32_t>(values_.size());
    const auto [found, inserted] = edges_.try_emplace(edge(node, byte), fresh);
    if (inserted) values_.push_back(kNone);
    node = found->second;
  }
  if (values_[node] == kNone) values_[node] = value;
}

}  // namespace dmc::text
