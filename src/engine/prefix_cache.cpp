#include "engine/prefix_cache.h"

#include <algorithm>

namespace dmc::engine {
namespace {

bool begins(std::span<const int32_t> tokens, const std::vector<int32_t>& beginning) {
  return beginning.size() <= tokens.size() &&
         std::ranges::equal(beginning, tokens.first(beginning.size()));
}

}  // namespace

int64_t tokens_alike(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

const Sequence* PrefixCache::find(std::span<const int32_t> tokens) const {
  const Entry* longest = nullptr;
  for (const Entry& entry : entries_) {
    const size_t size = entry.tokens.size();
    if (size >= tokens.size() || (longest != nullptr && size <= longest->tokens.size())) continue;
    if (begins(tokens, entry.tokens)) longest = &entry;
  }
  return longest != nullptr ? &longest->sequence : nullptr;
}

int64_t PrefixCache::alike(std::span<const int32_t> tokens) const {
  int64_t most = 0;
  for (const Entry& entry : entries_) most = std::max(most, tokens_alike(tokens, entry.tokens));
  return most;
}

void PrefixCache::used(const Sequence* snapshot) {
  const auto entry =
      std::ranges::find_if(entries_, [&](const Entry& each) { return &each.sequence == snapshot; });
  if (entry != entries_.end()) entries_.splice(entries_.begin(), entries_, entry);
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

bool PrefixCache::drop_oldest(const Sequence* kept) {
  const auto oldest = std::find_if(entries_.rbegin(), entries_.rend(),
                                   [&](const Entry& each) { return &each.sequence != kept; });
  if (oldest == entries_.rend()) return false;
  entries_.erase(std::next(oldest).base());
  return true;
}

}  // namespace dmc::engine
