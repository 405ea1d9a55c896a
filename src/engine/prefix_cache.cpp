#include "engine/prefix_cache.h"

#include <algorithm>

namespace dmc::engine {
namespace {

bool begins(std::span<const int32_t> tokens, const std::vector<int32_t>& beginning) {
  return beginning.size() <= tokens.size() &&
         std::ranges::equal(beginning, tokens.first(beginning.size()));
}

}  // namespace

const Sequence* PrefixCache::find(std::span<const int32_t> tokens) {
  auto longest = entries_.end();
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    const size_t size = entry->tokens.size();
    if (size >= tokens.size() || (longest != entries_.end() && size <= longest->tokens.size())) {
      continue;
    }
    if (begins(tokens, entry->tokens)) longest = entry;
  }
  if (longest == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, longest);
  return &entries_.front().sequence;
}

bool PrefixCache::contains(std::span<const int32_t> tokens) const {
  return std::ranges::any_of(
      entries_, [&](const Entry& entry) { return std::ranges::equal(entry.tokens, tokens); });
}

void PrefixCache::insert(std::vector<int32_t> tokens, Sequence sequence) {
  if (!enabled() || contains(tokens)) return;
  while (entries_.size() >= capacity_) drop_oldest();
  entries_.push_front({std::move(tokens), std::move(sequence)});
}

bool PrefixCache::drop_oldest() {
  if (entries_.empty()) return false;
  entries_.pop_back();
  return true;
}

}  // namespace dmc::engine
