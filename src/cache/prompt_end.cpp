// What happens to a stream when its prompt ends (Policy::keep_of_prompt).
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "cache/eviction.h"
#include "kernels/attention.h"

namespace dmc::cache {
namespace {

// What the stream's newest tokens, the observers, attend to before them, summed over their queries
// and averaged over the group: [slots before the observers]. Each sees the slots up to its own.
std::vector<double> observed_attention(const CacheConfig& config, const PagePool& pool,
                                       const Stream& stream, const Observers& observers) {
  const int64_t d = config.head_dim, before = stream.slots() - observers.queries;
  const int group = observers.group;
  std::vector<double> attention(static_cast<size_t>(before));
  std::vector<float> key(static_cast<size_t>(d)), value(key.size()), out(key.size() * group);
  std::vector<float> weights;
  for (int64_t i = 0; i < observers.queries; ++i) {
    const int64_t own = before + i, width = own + 1;
    const bool open = own == stream.closed.size();
    if (!open) stream.closed.read(pool, own, key.data(), value.data());
    weights.resize(static_cast<size_t>(group * width));
    const kernels::DecodeItem item{stream.closed.pages().data(),
                                   own,
                                   open ? stream.open.key() : key.data(),
                                   open ? stream.open.value() : value.data(),
                                   observers.q + i * observers.q_stride,
                                   out.data(),
                                   weights.data()};
    kernels::decode_attention(pool.view(), std::span(&item, 1), group, observers.scale);
    for (int g = 0; g < group; ++g) {
      for (int64_t slot = 0; slot < before; ++slot) {
        attention[static_cast<size_t>(slot)] +=
            static_cast<double>(weights[static_cast<size_t>(g * width + slot)]) / group;
      }
    }
  }
  return attention;
}

}  // namespace

void keep_of_prompt(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t budget,
                    const Observers& observers) {
  if (stream.slots() <= budget) return;
  DMC_CHECK(budget > observers.queries && observers.queries > 0);
  const std::vector<double> attention = observed_attention(config, pool, stream, observers);
  std::vector<size_t> kept =
      config.policy->keep_of_prompt(attention, static_cast<size_t>(budget - observers.queries));
  const size_t chosen = kept.size();
  kept.resize(chosen + static_cast<size_t>(observers.queries) - 1);  // and the closed observers
  std::iota(kept.begin() + static_cast<ptrdiff_t>(chosen), kept.end(), attention.size());
  stream.closed.keep(pool, kept);
  std::vector<policy::SlotStats> stats;
  for (size_t slot : kept) stats.push_back(stream.stats[slot]);
  stream.stats = std::move(stats);
}

}  // namespace dmc::cache
