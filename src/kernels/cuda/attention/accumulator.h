// Softmax attention of a warp's queries over tiles of slots, one tile at a time: the running
// maximum, sum and output of kernels::AttnState, kept in registers in the layout of the tensor
// cores. Scores are in units of log2, so that weights are exp2.
//
// `Warp` says what a warp can do: Lanes<T> (a T per lane), each(fn) (fn(lane) on every lane),
// copies, conversions, mma and exchanges between lanes. DeviceWarp is the real one (warp.cuh); the
// unit tests run the same code on an emulated one (host_warp.h).
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/slot_tile.h"

namespace dmc::kernels::cuda {

constexpr float kLog2e = 1.44269504f;
constexpr float kFloorScore = -1e30f;  // a maximum before any slot; finite, so differences are

// `kGroups` groups of 8 queries share every fragment of K and V. Queries and weights are rounded to
// the slots' type (8-bit slots: to f16; f32 ones: not at all, fragment_parts); sums are f32.
//
// 8-bit values have a scale per slot. Folding it into the weight could leave the range of f16, so
// the maximum is taken over score + log2(scale): the weights that meet the tensor cores are then at
// most 1, and `sum` and `out` are both in units of 2^max.
template <class Warp, DType kType, int kDim, int kGroups>
class Accumulator {
 public:
  using Stage = TileStage<kType, kDim>;
  static constexpr DType kSlotType = kType;
  static constexpr int kHeadDim = kDim;
  static constexpr int kQueries = 8 * kGroups;

  // query(n): q of query n, [kDim] f32, or null for a query that does not exist.
  template <class Query>
  DMC_DEVICE void set_queries(Query&& query) {
    using Layout = TileLayout<kType, kDim>;
    Warp::each([&](int lane) {
      DMC_UNROLL
      for (int n = 0; n < kGroups; ++n) {
        const float* const q = query(8 * n + lane / 4);
        DMC_UNROLL
        for (int step = 0; step < kSteps; ++step) {
          FragmentsB<kType>& b = queries_[n][step][lane];
          b = {};
          if (q == nullptr) continue;
          const float* const at = q + Layout::query_channel(lane, step);
          DMC_UNROLL
          for (int i = 0; i < 2; ++i) {
            pack<Warp, kType>(at[2 * i], at[2 * i + 1],
                              [&](int part) -> uint32_t& { return b.part[part].pairs[i]; });
          }
        }
      }
    });
  }

  // No slot seen.
  DMC_DEVICE void clear() {
    start([](int) { return kFloorScore; }, [](int) -> const float* { return nullptr; });
  }

  // One pair seen: its score (in log2 units) and value [kDim] for each query. A null value stands
  // for none seen.
  template <class Score, class Value>
  DMC_DEVICE void start(Score&& score, Value&& value) {
    using Layout = TileLayout<kType, kDim>;
    Warp::each([&](int lane) {
      DMC_UNROLL
      for (int n = 0; n < kGroups; ++n) {
        DMC_UNROLL
        for (int c = 0; c < 2; ++c) {
          const int query = query_of(lane, n, c);
          const float* const from = value(query);
          max_[n][c][lane] = score(query);
          sum_[n][c][lane] = from != nullptr && lane < 4 ? 1.0f : 0.0f;  // lanes' sums add up
          DMC_UNROLL
          for (int block = 0; block < kBlocks; ++block) {
            const int channel = Layout::out_channel(lane, block);
            FragmentC& out = out_[n][block][lane];
            out.numbers[c] = from != nullptr ? from[channel] : 0.0f;
            out.numbers[c + 2] = from != nullptr ? from[channel + 1] : 0.0f;
          }
        }
      }
    });
  }

  // Takes in a tile. Query n sees slot i of it if sees(n, i); scale is in log2 units.
  template <class Sees>
  DMC_DEVICE void absorb(const Stage& stage, float scale, Sees&& sees) {
    Lanes<FragmentC> scores[kGroups];
    multiply_keys(stage, scores);
    Lanes<FragmentsB<kType>> weights[kGroups];
    DMC_UNROLL
    for (int n = 0; n < kGroups; ++n) {
      Warp::each([&](int lane) { mask_and_scale(stage, scale, sees, n, lane, scores[n][lane]); });
      to_weights(stage, n, scores[n], weights[n]);
    }
    multiply_values(stage, weights);
  }

  // Must be called once, after the last tile: lanes' sums become the queries'.
  DMC_DEVICE void finish() {
    DMC_UNROLL
    for (int n = 0; n < kGroups; ++n) {
      DMC_UNROLL
      for (int c = 0; c < 2; ++c) Warp::sum_over_groups(sum_[n][c]);
    }
  }

  // fn(query, max, sum), once for each query; then fn(query, channel, sum, out) for each channel.
  template <class Fn>
  DMC_DEVICE void each_state(Fn&& fn) {
    Warp::each([&](int lane) {
      if (lane >= 4) return;
      DMC_UNROLL
      for (int n = 0; n < kGroups; ++n) {
        DMC_UNROLL
        for (int c = 0; c < 2; ++c) {
          fn(query_of(lane, n, c), max_[n][c][lane], sum_[n][c][lane]);
        }
      }
    });
  }
  template <class Fn>
  DMC_DEVICE void each_out(Fn&& fn) {
    using Layout = TileLayout<kType, kDim>;
    Warp::each([&](int lane) {
      DMC_UNROLL
      for (int n = 0; n < kGroups; ++n) {
        DMC_UNROLL
        for (int block = 0; block < kBlocks; ++block) {
          const int channel = Layout::out_channel(lane, block);
          DMC_UNROLL
          for (int i = 0; i < 4; ++i) {
            fn(query_of(lane, n, i % 2), channel + i / 2, sum_[n][i % 2][lane],
               out_[n][block][lane].numbers[i]);
          }
        }
      }
    });
  }

 private:
  template <class T>
  using Lanes = typename Warp::template Lanes<T>;
  using Keys = KeyChunks<kType, kDim>;
  using Values = ValueChunks<kType, kDim>;
  static constexpr int kSteps = kDim / 16, kBlocks = kDim / 16;
  static constexpr bool kScaled = TileLayout<kType, kDim>::kScaled;

  // The query of column c (of 2) of a lane in fragments C.
  DMC_DEVICE static int query_of(int lane, int group, int c) {
    return 8 * group + 2 * (lane % 4) + c;
  }

  DMC_DEVICE void multiply_keys(const Stage& stage, Lanes<FragmentC> (&scores)[kGroups]) {
    DMC_UNROLL
    for (int n = 0; n < kGroups; ++n) Warp::each([&](int lane) { scores[n][lane] = {}; });
    DMC_UNROLL
    for (int chunk = 0; chunk < kSteps / Keys::kSteps; ++chunk) {
      Lanes<Keys> loaded;
      Warp::each([&](int lane) { loaded[lane] = load_keys<Warp>(stage, chunk, lane); });
      DMC_UNROLL
      for (int part = 0; part < Keys::kSteps; ++part) {
        Lanes<FragmentsA<kType>> keys;
        Warp::each(
            [&](int lane) { keys[lane] = key_fragments<Warp, kType, kDim>(loaded[lane], part); });
        DMC_UNROLL
        for (int n = 0; n < kGroups; ++n) {
          multiply<Warp, kType>(scores[n], keys, queries_[n][chunk * Keys::kSteps + part]);
        }
      }
    }
  }

  // Scores in log2 units, of 8-bit slots with the logarithm of the value's scale; -inf where
  // unseen.
  template <class Sees>
  DMC_DEVICE static void mask_and_scale(const Stage& stage, float scale, Sees&& sees, int group,
                                        int lane, FragmentC& scores) {
    DMC_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int slot = lane / 4 + 8 * (i / 2);
      float score = scores.numbers[i] * scale;
      if constexpr (kScaled) {
        score = score * stage.scales[i / 2][lane] + Warp::log2(value_scale(stage, lane, i / 2));
      }
      scores.numbers[i] = sees(query_of(lane, group, i % 2), slot) ? score : Warp::kNever;
    }
  }

  // A slot whose values are all 0 has scale 0; its weight still counts in the sum.
  DMC_DEVICE static float value_scale(const Stage& stage, int lane, int half) {
    constexpr float kLeast = 0x1p-60f;
    const float scale = stage.scales[2 + half][lane];
    return scale < kLeast ? kLeast : scale;  // NaN stays NaN
  }

  // Raises the maximum, scales down what is there and turns scores into fragment B of the weights.
  DMC_DEVICE void to_weights(const Stage& stage, int n, Lanes<FragmentC>& scores,
                             Lanes<FragmentsB<kType>>& weights) {
    Lanes<float> top[2];
    Warp::each([&](int lane) {
      DMC_UNROLL
      for (int c = 0; c < 2; ++c) {
        const float* const s = scores[lane].numbers;
        top[c][lane] = s[c] > s[c + 2] ? s[c] : s[c + 2];
      }
    });
    Warp::max_over_groups(top[0]);
    Warp::max_over_groups(top[1]);
    Warp::each([&](int lane) {
      float weight[4], keep[2];
      DMC_UNROLL
      for (int c = 0; c < 2; ++c) {
        const float max = max_[n][c][lane] > top[c][lane] ? max_[n][c][lane] : top[c][lane];
        keep[c] = Warp::exp2(max_[n][c][lane] - max);
        max_[n][c][lane] = max;
        weight[c] = Warp::exp2(scores[lane].numbers[c] - max);
        weight[c + 2] = Warp::exp2(scores[lane].numbers[c + 2] - max);
        float sum = weight[c] + weight[c + 2];
        if constexpr (kScaled) {
          sum =
              weight[c] / value_scale(stage, lane, 0) + weight[c + 2] / value_scale(stage, lane, 1);
        }
        sum_[n][c][lane] = sum_[n][c][lane] * keep[c] + sum;
      }
      DMC_UNROLL
      for (int block = 0; block < kBlocks; ++block) {
        DMC_UNROLL
        for (int i = 0; i < 4; ++i) out_[n][block][lane].numbers[i] *= keep[i % 2];
      }
      DMC_UNROLL
      for (int half = 0; half < 2; ++half) {  // slots g, then g + 8
        pack<Warp, kType>(weight[2 * half], weight[2 * half + 1], [&](int part) -> uint32_t& {
          return weights[lane].part[part].pairs[half];
        });
      }
    });
    // From rows of slots (fragment C) to columns of queries (fragment B).
    Warp::transpose(weights);
  }

  DMC_DEVICE void multiply_values(const Stage& stage,
                                  Lanes<FragmentsB<kType>> (&weights)[kGroups]) {
    DMC_UNROLL
    for (int chunk = 0; chunk < kBlocks / Values::kBlocks; ++chunk) {
      Lanes<Values> loaded;
      Warp::each([&](int lane) { loaded[lane] = load_values<Warp>(stage, chunk, lane); });
      DMC_UNROLL
      for (int part = 0; part < Values::kBlocks; ++part) {
        Lanes<FragmentsA<kType>> values;
        Warp::each([&](int lane) {
          values[lane] = value_fragments<Warp, kType, kDim>(loaded[lane], part);
        });
        DMC_UNROLL
        for (int n = 0; n < kGroups; ++n) {
          multiply<Warp, kType>(out_[n][chunk * Values::kBlocks + part], values, weights[n]);
        }
      }
    }
  }

  Lanes<FragmentsB<kType>> queries_[kGroups][kSteps];
  Lanes<float> max_[kGroups][2], sum_[kGroups][2];
  Lanes<FragmentC> out_[kGroups][kBlocks];
};

}  // namespace dmc::kernels::cuda
