#include "decode_step.h"

#include <algorithm>
#include <cmath>

#include "kernels/attention.h"
#include "kernels/cuda/attention/slot_types.h"
#include "kernels/cuda/lanes/team.h"
#include "kernels/ref/attention_ref.h"

namespace dmc::kernels::cuda {
namespace {

int64_t pages_of_stream(const Case& c) { return c.longest / c.page_slots + 2; }
int64_t streams_of(const Case& c) { return int64_t{kLayers} * (c.batch + 1) * c.kv_heads; }

}  // namespace

std::string Case::text() const {
  return std::string(dtype_name(type)) + " d=" + std::to_string(head_dim) +
         " page=" + std::to_string(page_slots) + " group=" + std::to_string(group) +
         " kv_heads=" + std::to_string(kv_heads) + " batch=" + std::to_string(batch) +
         " longest=" + std::to_string(longest) + " window=" + std::to_string(window);
}

std::vector<float> random_numbers(size_t count, Rng& rng) {
  std::vector<float> numbers(count);
  for (float& x : numbers) x = static_cast<float>(2.0 * rng.uniform() - 1.0);
  return numbers;
}

Step::Step(const Case& of, Rng& rng)
    : c(of),
      cache_rows(c.batch + 1),
      cache({c.page_slots, c.head_dim, c.type}, streams_of(c) * pages_of_stream(c), streams_of(c),
            pages_of_stream(c), c.window) {
  for (int b = 0; b < c.batch; ++b) rows.push_back(c.batch - b);
  if (c.batch > 2) rows[1] = -1;
  for (size_t i = cache.free.size(); i > 1; --i) {
    std::swap(cache.free[i - 1], cache.free[rng.below(i)]);
  }
  std::vector<std::byte*> pages = page_addresses();
  const PoolView view{pages.data(), {c.page_slots, c.head_dim, c.type}};
  for (int64_t stream = 0; stream < streams(); ++stream) fill(stream, view, rng);
  const size_t items = static_cast<size_t>(c.batch * c.kv_heads);
  const auto d = static_cast<size_t>(c.head_dim);
  q = random_numbers(items * static_cast<size_t>(c.group) * d, rng);
  k = random_numbers(items * d, rng);
  v = random_numbers(items * d, rng);
  for (size_t i = 0; i < items; ++i) {
    importance.push_back(static_cast<float>(0.1 + rng.uniform()));
    merge.push_back(rng.below(2) == 0);
  }
  constexpr int kPositions = 50;
  for (int b = 0; b < c.batch; ++b)
    positions.push_back(static_cast<int32_t>(rng.below(kPositions)));
  for (size_t i = 0; i < kPositions * d / 2; ++i) {
    const double angle = rng.uniform();
    cos.push_back(static_cast<float>(std::cos(angle)));
    sin.push_back(static_cast<float>(std::sin(angle)));
  }
}

// Pages by id: those of the cache lie side by side.
std::vector<std::byte*> Step::page_addresses() {
  std::vector<std::byte*> pages;
  for (size_t i = 0; i < cache.free.size(); ++i) {
    pages.push_back(cache.memory.data() + static_cast<int64_t>(i) * cache.pool.page_bytes);
  }
  return pages;
}

void Step::fill(int64_t stream, const PoolView& view, Rng& rng) {
  const int64_t edges[] = {0, 1, c.page_slots - 1, c.page_slots, c.page_slots + 1, c.longest};
  const auto closed = static_cast<int32_t>(
      rng.below(3) == 0 ? edges[rng.below(6)] : static_cast<int64_t>(rng.below(c.longest + 1)));
  const auto d = static_cast<size_t>(c.head_dim);
  for (int32_t slot = 0; slot < closed; ++slot) {
    int32_t& page = cache.streams.table(stream)[slot / c.page_slots];
    if (slot % c.page_slots == 0) take_pages<SoloTeam>(cache.stack, 1, &page);
    const auto key = random_numbers(d, rng), value = random_numbers(d, rng);
    write_slot(view, page, slot % c.page_slots, key.data(), value.data());
  }
  cache.closed[static_cast<size_t>(stream)] = closed;
  if (rng.below(5) == 0) return;  // an empty open slot
  const auto key = random_numbers(d, rng), value = random_numbers(d, rng);
  take(stream, {key.data(), value.data(), 0.7f, true, nullptr, nullptr});
}

void Step::take(int64_t stream, const TokenPair& token) {
  with_slot_type(c.type, [&]<DType kType>() {
    take_token<kType, SoloTeam>(cache.pool, cache.stack, cache.streams, stream, c.head_dim, token);
  });
}

std::vector<float> Step::run_on_host(int layer, float scale) {
  std::vector<float> out(q.size(), std::nanf(""));
  const Batch all = batch(rows.data());
  std::vector<std::byte*> pages = page_addresses();
  const PoolView view{pages.data(), {c.page_slots, c.head_dim, c.type}};
  for (int item = 0; item < all.items(); ++item) {
    if (!all.active(item)) continue;
    const int64_t stream = all.stream(layer, item);
    const auto n = static_cast<size_t>(item), d = static_cast<size_t>(c.head_dim);
    const auto angle =
        static_cast<size_t>(positions[static_cast<size_t>(item / c.kv_heads)]) * d / 2;
    take(stream, {&k[n * d], &v[n * d], importance[n], merge[n] != 0, &cos[angle], &sin[angle]});
    const float* const open_key = cache.streams.open_key(stream, c.head_dim);
    const float* const open_value = cache.streams.open_value(stream, c.head_dim);
    for (int g = 0; g < c.group; ++g) {
      const size_t at = (n * static_cast<size_t>(c.group) + static_cast<size_t>(g)) * d;
      double score = 0.0;
      for (size_t i = 0; i < d; ++i) score += double{q[at + i]} * open_key[i];
      AttnState state{static_cast<float>(score * scale), 1.0f};
      std::copy_n(open_value, d, &out[at]);
      ref::attend_slots(view, {cache.streams.table(stream), 0, cache.streams.closed[stream]},
                        &q[at], 1, scale, &state, &out[at]);
      for (size_t i = 0; i < d; ++i) out[at + i] /= state.sum;
    }
  }
  return out;
}

}  // namespace dmc::kernels::cuda
