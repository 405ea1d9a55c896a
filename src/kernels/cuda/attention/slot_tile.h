// A tile of 16 slots on its way from a page to the tensor cores.
//
// Attention is computed transposed: scores^T [slots][queries] = K Q^T and out^T [channels][queries]
// = V^T P^T, so that the 16 slots fill the long side of mma.m16n8k16 and 8 queries its short one.
// Each lane copies exactly those bytes of a page that it will feed to the mma, 16 at a time, into a
// place of its own: no lane reads what another wrote, so there are no bank conflicts, no swizzle
// and no barrier, and pages keep the plain rows of slot_page.h. What makes this possible is that
// the order of channels within a product, and of channels among the rows of V^T, is free: a lane
// takes neighbouring channels and calls them what the fragment wants.
//
// In a fragment lane l has group g = l / 4 and place t = l % 4 (PTX ISA, mma.m16n8k16):
//   A [16 x 16] rows g, g + 8; columns 2t, 2t + 1, 2t + 8, 2t + 9
//   B [16 x 8]  rows 2t, 2t + 1, 2t + 8, 2t + 9; column g
//   C [16 x 8]  rows g, g + 8; columns 2t, 2t + 1
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/cache/device_cache.h"

namespace dmc::kernels::cuda {

constexpr int kLanes = 32;

// Channels that a lane copies at once when `lanes` lanes share a row: as many as 16 bytes hold, or
// fewer if a row has no multiple of that.
constexpr int channels_at_once(int dim, int lanes, int number_bytes) {
  int channels = 16 / number_bytes;
  while (dim % (lanes * channels) != 0) channels /= 2;
  return channels;
}

template <int kBytes>
struct alignas(kBytes) Chunk {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "what cp.async can copy");
  uint32_t words[kBytes / 4];
};

// How the numbers of a tile are dealt to lanes.
template <DType kType, int kDim>
struct TileLayout {
  static_assert(kDim % 16 == 0, "an mma takes 16 channels");
  static constexpr int kNumber = slot_number_bytes(kType);
  static constexpr bool kScaled = is_scaled(kType);
  static constexpr int64_t kRowBytes = int64_t{kDim} * kNumber;

  // Keys: lane (g, t) has rows g and g + 8, its chunk b starting at channel (4 b + t) kKeyChannels.
  static constexpr int kKeyChannels = channels_at_once(kDim, 4, kNumber);
  static constexpr int kKeyBytes = kKeyChannels * kNumber;
  static constexpr int kKeyChunks = 2 * kDim / (4 * kKeyChannels);  // [chunk of a row][row of 2]

  // Values: lane (g, t) has rows 2t, 2t + 1, 2t + 8, 2t + 9, its chunk b starting at channel
  // (8 b + g) kValueChannels.
  static constexpr int kValueChannels = channels_at_once(kDim, 8, kNumber);
  static constexpr int kValueBytes = kValueChannels * kNumber;
  static constexpr int kValueChunks = 4 * kDim / (8 * kValueChannels);  // [chunk][row of 4]

  DMC_HOST_DEVICE static int key_row(int lane, int chunk) { return lane / 4 + 8 * (chunk % 2); }
  DMC_HOST_DEVICE static int key_channel(int lane, int chunk) {
    return (4 * (chunk / 2) + lane % 4) * kKeyChannels;
  }
  DMC_HOST_DEVICE static int value_row(int lane, int chunk) {
    return 2 * (lane % 4) + chunk % 2 + 8 * (chunk / 2 % 2);
  }
  DMC_HOST_DEVICE static int value_channel(int lane, int chunk) {
    return (8 * (chunk / 4) + lane / 4) * kValueChannels;
  }

  // The channel of q that column 2t (first) of step `step`'s fragment stands for; 2t + 1, 2t + 8
  // and 2t + 9 stand for the next three.
  DMC_HOST_DEVICE static int query_channel(int lane, int step) {
    constexpr int kSteps = kKeyChannels / 4;  // in a chunk
    return key_channel(lane, 2 * (step / kSteps)) + 4 * (step % kSteps);
  }
  // The channel of out in row g of out^T's fragment `block`; row g + 8 is the next one.
  DMC_HOST_DEVICE static int out_channel(int lane, int block) {
    constexpr int kBlocks = kValueChannels / 2;  // in a chunk
    return value_channel(lane, 4 * (block / kBlocks)) + 2 * (block % kBlocks);
  }
};

// A tile as it waits in shared memory.
template <DType kType, int kDim>
struct TileStage {
  using Layout = TileLayout<kType, kDim>;
  Chunk<Layout::kKeyBytes> keys[Layout::kKeyChunks][kLanes];
  Chunk<Layout::kValueBytes> values[Layout::kValueChunks][kLanes];
  // 8-bit slots: scales of keys g, g + 8 and of values g, g + 8.
  float scales[Layout::kScaled ? 4 : 1][kLanes];
};

// The rows of a tile in its page. Rows from `valid` on have not been written: they are read as
// zeros.
struct TileRows {
  const std::byte *keys, *values;
  const float *key_scales, *value_scales;  // 8-bit slots only
  int valid;
};

template <DType kType, int kDim>
DMC_HOST_DEVICE TileRows tile_rows(const PagePool& pool, int32_t page, int first_row, int valid) {
  constexpr int64_t kRowBytes = TileLayout<kType, kDim>::kRowBytes;
  const std::byte* const at = pool.memory + page * pool.page_bytes;
  const auto* const scales = reinterpret_cast<const float*>(at + 2 * pool.page_slots * kRowBytes);
  return {at + first_row * kRowBytes, at + (pool.page_slots + first_row) * kRowBytes,
          scales + first_row, scales + pool.page_slots + first_row, valid};
}

// Starts copying what `lane` needs of the keys, or of the values, of a tile.
template <class Warp, DType kType, int kDim>
DMC_DEVICE void copy_keys(const TileRows& rows, int lane, TileStage<kType, kDim>& stage) {
  using Layout = TileLayout<kType, kDim>;
  DMC_UNROLL
  for (int n = 0; n < Layout::kKeyChunks; ++n) {
    const int row = Layout::key_row(lane, n);
    Warp::copy(stage.keys[n][lane],
               rows.keys + row * Layout::kRowBytes + Layout::key_channel(lane, n) * Layout::kNumber,
               row < rows.valid);
  }
  if constexpr (Layout::kScaled) {
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      Warp::copy(stage.scales[half][lane], rows.key_scales + row, row < rows.valid);
    }
  }
}

template <class Warp, DType kType, int kDim>
DMC_DEVICE void copy_values(const TileRows& rows, int lane, TileStage<kType, kDim>& stage) {
  using Layout = TileLayout<kType, kDim>;
  DMC_UNROLL
  for (int n = 0; n < Layout::kValueChunks; ++n) {
    const int row = Layout::value_row(lane, n);
    Warp::copy(
        stage.values[n][lane],
        rows.values + row * Layout::kRowBytes + Layout::value_channel(lane, n) * Layout::kNumber,
        row < rows.valid);
  }
  if constexpr (Layout::kScaled) {
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      Warp::copy(stage.scales[2 + half][lane], rows.value_scales + row, row < rows.valid);
    }
  }
}

// Registers of a lane that hold a fragment: A has 4 pairs of 16-bit numbers, B has 2, C 4 floats.
struct FragmentA {
  uint32_t pairs[4];
};
struct FragmentB {
  uint32_t pairs[2];
};
struct FragmentC {
  float numbers[4];
};

// Tensor cores multiply 16-bit numbers. An f32 goes in as the sum of 3 bf16 ones, which hold its 24
// bits; of the 9 products those that can be seen in f32 are taken.
constexpr int fragment_parts(DType type) { return type == DType::kF32 ? 3 : 1; }

template <DType kType>
struct FragmentsA {
  FragmentA part[fragment_parts(kType)];
};
template <DType kType>
struct FragmentsB {
  FragmentB part[fragment_parts(kType)];
};

// Rounds two numbers to what kType is multiplied in, and puts each part's pair where place(part)
// says.
template <class Warp, DType kType, class Place>
DMC_DEVICE void pack(float first, float second, Place&& place) {
  if constexpr (kType == DType::kF32) {
    DMC_UNROLL
    for (int part = 0; part < fragment_parts(kType); ++part) {
      const uint32_t pair = Warp::pack_bf16(first, second);
      place(part) = pair;
      first -= Warp::float_of(pair << 16);
      second -= Warp::float_of(pair & 0xffff0000u);
    }
  } else if constexpr (kType == DType::kBF16) {
    place(0) = Warp::pack_bf16(first, second);
  } else {
    place(0) = Warp::pack_f16(first, second);
  }
}

// Four kF8E4M3 as f16, where there is no instruction for it (before sm_89). Moved to where an f16
// has its fields, they are 2^-8 of the number, subnormals too. (NaN becomes 480; slots hold none:
// the scale of such a row says it.)
template <class Warp>
DMC_DEVICE void widen_f8_by_moves(uint32_t bytes, uint32_t& first, uint32_t& second) {
  const auto number = [](uint32_t high_bytes) {
    constexpr uint32_t k256 = 0x5c005c00u;
    return Warp::multiply_f16((high_bytes & 0x80008000u) | (high_bytes >> 1 & 0x3f803f80u), k256);
  };
  first = number(Warp::pick_bytes(bytes, 0, 0x1404));
  second = number(Warp::pick_bytes(bytes, 0, 0x3424));
}

// A lane's chunk `chunk` of the keys of its 2 rows, and of the values of its 4. They are read once,
// for all the fragments that are made of them.
template <DType kType, int kDim>
struct KeyChunks {
  static constexpr int kSteps = TileLayout<kType, kDim>::kKeyChannels / 4;
  Chunk<TileLayout<kType, kDim>::kKeyBytes> rows[2];
};
template <DType kType, int kDim>
struct ValueChunks {
  static constexpr int kBlocks = TileLayout<kType, kDim>::kValueChannels / 2;
  Chunk<TileLayout<kType, kDim>::kValueBytes> rows[4];
};

template <class Warp, DType kType, int kDim>
DMC_DEVICE KeyChunks<kType, kDim> load_keys(const TileStage<kType, kDim>& stage, int chunk,
                                            int lane) {
  KeyChunks<kType, kDim> loaded;
  DMC_UNROLL
  for (int row = 0; row < 2; ++row)
    loaded.rows[row] = Warp::load(stage.keys[2 * chunk + row][lane]);
  return loaded;
}

template <class Warp, DType kType, int kDim>
DMC_DEVICE ValueChunks<kType, kDim> load_values(const TileStage<kType, kDim>& stage, int chunk,
                                                int lane) {
  ValueChunks<kType, kDim> loaded;
  DMC_UNROLL
  for (int row = 0; row < 4; ++row) {
    loaded.rows[row] = Warp::load(stage.values[4 * chunk + row][lane]);
  }
  return loaded;
}

// Fragments A of K for channels query_channel(lane, step) + 0..3, where `part` is the number of the
// step among those of the chunk.
template <class Warp, DType kType, int kDim>
DMC_DEVICE FragmentsA<kType> key_fragments(const KeyChunks<kType, kDim>& keys, int part) {
  FragmentsA<kType> a;
  DMC_UNROLL
  for (int half = 0; half < 2; ++half) {  // slots g, then g + 8
    const uint32_t* const words = keys.rows[half].words;
    const auto first = [&](int n) -> uint32_t& { return a.part[n].pairs[half]; };
    const auto second = [&](int n) -> uint32_t& { return a.part[n].pairs[half + 2]; };
    if constexpr (kType == DType::kF32) {
      const uint32_t* const at = words + 4 * part;
      pack<Warp, kType>(Warp::float_of(at[0]), Warp::float_of(at[1]), first);
      pack<Warp, kType>(Warp::float_of(at[2]), Warp::float_of(at[3]), second);
    } else if constexpr (is_scaled(kType)) {
      Warp::template widen_bytes<kType>(words[part], first(0), second(0));
    } else {
      first(0) = words[2 * part];
      second(0) = words[2 * part + 1];
    }
  }
  return a;
}

// Fragments A of V^T for channels out_channel(lane, block) + 0..1, where `part` is the number of
// the block among those of the chunk: a pair is one channel of two neighbouring slots.
template <class Warp, DType kType, int kDim>
DMC_DEVICE FragmentsA<kType> value_fragments(const ValueChunks<kType, kDim>& values, int part) {
  FragmentsA<kType> a;
  DMC_UNROLL
  for (int half = 0; half < 2; ++half) {  // slots 2t, 2t + 1, then 2t + 8, 2t + 9
    const uint32_t* const even = values.rows[2 * half].words;
    const uint32_t* const odd = values.rows[2 * half + 1].words;
    const auto first = [&](int n) -> uint32_t& { return a.part[n].pairs[2 * half]; };
    const auto second = [&](int n) -> uint32_t& { return a.part[n].pairs[2 * half + 1]; };
    if constexpr (kType == DType::kF32) {
      const int at = 2 * part;
      pack<Warp, kType>(Warp::float_of(even[at]), Warp::float_of(odd[at]), first);
      pack<Warp, kType>(Warp::float_of(even[at + 1]), Warp::float_of(odd[at + 1]), second);
    } else if constexpr (is_scaled(kType)) {
      // Bytes (even c, odd c, even c + 1, odd c + 1).
      const uint32_t order = part % 2 == 0 ? 0x5140u : 0x7362u;
      Warp::template widen_bytes<kType>(Warp::pick_bytes(even[part / 2], odd[part / 2], order),
                                        first(0), second(0));
    } else {
      first(0) = Warp::pick_bytes(even[part], odd[part], 0x5410);
      second(0) = Warp::pick_bytes(even[part], odd[part], 0x7632);
    }
  }
  return a;
}

// c += A B.
template <class Warp, DType kType, class LanesC, class LanesA, class LanesB>
DMC_DEVICE void multiply(LanesC& c, const LanesA& a, const LanesB& b) {
  constexpr int kParts = fragment_parts(kType);
  // The smallest products first.
  DMC_UNROLL
  for (int order = kParts - 1; order >= 0; --order) {
    DMC_UNROLL
    for (int part = 0; part <= order; ++part) {
      Warp::template mma<kType>(c, a, b, part, order - part);
    }
  }
}

}  // namespace dmc::kernels::cuda
