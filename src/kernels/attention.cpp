#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/parallel.h"
#include "kernels/backend.h"
#include "kernels/dot.h"

namespace dmc::kernels {
namespace {

// Slots a piece of decode work covers. Boundaries depend on the stream alone, so a result has the
// same bits whatever else is in the batch.
constexpr int64_t kSplitSlots = 512;

// Query tokens a piece of prefill work covers: enough to pay for laying out a block of keys.
constexpr int64_t kTileTokens = 64;

constexpr float kNoScore = -1e30f;  // finite, so that exp(kNoScore - kNoScore) is not NaN

// The state of a query that has seen one key only.
AttnState state_of(const float* q, const float* key, const float* value, float mass, int head_dim,
                   float scale, float* out) {
  std::copy_n(value, head_dim, out);
  return {scale * dot(q, key, head_dim) + mass, 1.0f};
}

void merge(const AttnState& other, const float* other_out, int head_dim, AttnState* state,
           float* out) {
  const float max = std::max(state->max, other.max);
  const float keep = std::exp(state->max - max), take = std::exp(other.max - max);
  for (int i = 0; i < head_dim; ++i) out[i] = out[i] * keep + other_out[i] * take;
  *state = {max, state->sum * keep + other.sum * take};
}

void normalize(const AttnState& state, int head_dim, float* out) {
  const float factor = 1.0f / state.sum;
  for (int i = 0; i < head_dim; ++i) out[i] *= factor;
}

// Scores become what the softmax gave them.
void to_weights(const AttnState& state, int64_t count, float* scores) {
  for (int64_t i = 0; i < count; ++i) scores[i] = std::exp(scores[i] - state.max) / state.sum;
}

struct Piece {
  size_t item;
  int64_t first, last;  // slots
};

std::vector<Piece> cut(std::span<const DecodeItem> items) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < items.size(); ++i) {
    for (int64_t first = 0; first < items[i].closed_slots; first += kSplitSlots) {
      pieces.push_back({i, first, std::min(first + kSplitSlots, items[i].closed_slots)});
    }
  }
  return pieces;
}

// Pieces a thread takes at a time: a few slots are not worth waking a thread for.
int64_t pieces_at_once(const std::vector<Piece>& pieces) {
  int64_t slots = 0;
  for (const Piece& piece : pieces) slots += piece.last - piece.first;
  const int64_t mean = slots / std::max<int64_t>(1, static_cast<int64_t>(pieces.size()));
  return std::max<int64_t>(1, kSplitSlots / std::max<int64_t>(1, mean));
}

// The passing slots for query tokens first..last-1, `group` rows each. What all of them see in the
// end is one staircase; what only the earlier ones still see is at most `last - first` tokens old
// and taken a token at a time.
void attend_passing(const PoolView& pool, const PassingView& passing, int64_t first, int64_t last,
                    const float* q, int group, float scale, AttnState* states, float* out) {
  const int d = pool.format.head_dim;
  const int64_t common = passing.from[last - 1];
  std::vector<int64_t> visible;
  for (int64_t t = first; t < last; ++t) {
    visible.insert(visible.end(), static_cast<size_t>(group), passing.to[t]);
    const int64_t end = std::min(common, passing.to[t]), row = (t - first) * group;
    if (passing.from[t] >= end) continue;
    backend().attend_slots(pool, {passing.pages, passing.from[t], end}, q + row * d, group, scale,
                           states + row, out + row * d);
  }
  if (common == passing.to[last - 1]) return;
  backend().attend_rows(pool, {passing.pages, common, passing.to[last - 1]}, q,
                        (last - first) * group, visible.data(), scale, states, out);
}

void attend_tile(const PoolView& pool, const PrefillItem& item, int64_t first, int64_t last,
                 int group, float scale) {
  const int d = pool.format.head_dim;
  const int64_t rows = (last - first) * group;
  std::vector<float> q(static_cast<size_t>(rows * d)), out(q.size());
  std::vector<AttnState> states(static_cast<size_t>(rows));
  std::vector<int64_t> visible(static_cast<size_t>(rows));
  const auto for_each_row = [&](auto&& fn) {
    for (int64_t t = first; t < last; ++t) {
      for (int g = 0; g < group; ++g) fn(t, (t - first) * group + g, t * item.q_stride + g * d);
    }
  };
  for_each_row([&](int64_t t, int64_t row, int64_t offset) {
    std::copy_n(item.q + offset, d, q.data() + row * d);
    visible[static_cast<size_t>(row)] = item.visible[t];
    states[static_cast<size_t>(row)] = state_of(
        item.q + offset, item.own_key + t * d, item.own_value + t * d,
        item.own_mass == nullptr ? 0.0f : item.own_mass[t], d, scale, out.data() + row * d);
  });
  backend().attend_rows(pool, {item.pages, 0, item.visible[last - 1]}, q.data(), rows,
                        visible.data(), scale, states.data(), out.data());
  if (item.passing.pages != nullptr) {
    attend_passing(pool, item.passing, first, last, q.data(), group, scale, states.data(),
                   out.data());
  }
  for_each_row([&](int64_t, int64_t row, int64_t offset) {
    normalize(states[static_cast<size_t>(row)], d, out.data() + row * d);
    std::copy_n(out.data() + row * d, d, item.out + offset);
  });
}

}  // namespace

void decode_attention(const PoolView& pool, std::span<const DecodeItem> items, int group,
                      float scale) {
  const int d = pool.format.head_dim;
  const std::vector<Piece> pieces = cut(items);
  const size_t per_piece = static_cast<size_t>(group * d);
  std::vector<AttnState> states(pieces.size() * static_cast<size_t>(group), {kNoScore, 0.0f});
  std::vector<float> outs(pieces.size() * per_piece, 0.0f);
  parallel_for(0, static_cast<int64_t>(pieces.size()), pieces_at_once(pieces),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const auto n = static_cast<size_t>(i);
                   const Piece& piece = pieces[n];
                   const DecodeItem& item = items[piece.item];
                   const SlotRange slots{item.pages, piece.first, piece.last, item.weights,
                                         item.closed_slots + 1};
                   backend().attend_slots(pool, slots, item.q, group, scale,
                                          &states[n * static_cast<size_t>(group)],
                                          &outs[n * per_piece]);
                 }
               });
  size_t next = 0;  // pieces are in the order of items and of slots
  for (size_t i = 0; i < items.size(); ++i) {
    const size_t first_piece = next;
    while (next < pieces.size() && pieces[next].item == i) ++next;
    for (int g = 0; g < group; ++g) {
      float* const out = items[i].out + g * d;
      AttnState state = state_of(items[i].q + g * d, items[i].open_key, items[i].open_value,
                                 items[i].open_mass, d, scale, out);
      const float open_score = state.max;
      for (size_t n = first_piece; n < next; ++n) {
        const size_t row = n * static_cast<size_t>(group) + static_cast<size_t>(g);
        merge(states[row], &outs[row * static_cast<size_t>(d)], d, &state, out);
      }
      normalize(state, d, out);
      if (items[i].weights != nullptr) {
        float* const weights = items[i].weights + g * (items[i].closed_slots + 1);
        weights[items[i].closed_slots] = open_score;
        to_weights(state, items[i].closed_slots + 1, weights);
      }
    }
  }
}

void prefill_attention(const PoolView& pool, std::span<const PrefillItem> items, int group,
                       float scale) {
  std::vector<std::pair<size_t, int64_t>> tiles;  // item, first token
  for (size_t i = 0; i < items.size(); ++i) {
    for (int64_t t = 0; t < items[i].tokens; t += kTileTokens) tiles.emplace_back(i, t);
  }
  // Later tiles see more slots; the longest work first leaves no thread waiting at the end.
  std::ranges::stable_sort(tiles, std::greater<>(), [](const auto& tile) { return tile.second; });
  parallel_for(0, static_cast<int64_t>(tiles.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const auto [item, first] = tiles[static_cast<size_t>(n)];
      const int64_t last = std::min(first + kTileTokens, items[item].tokens);
      attend_tile(pool, items[item], first, last, group, scale);
    }
  });
}

}  // namespace dmc::kernels
