// 16 bytes of a row of numbers, which a lane loads at once.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "kernels/cuda/cache/device_cache.h"

namespace dmc::kernels::cuda {

struct alignas(16) Packet {
  uint32_t words[4];
};

template <DType kType>
constexpr int kPacketNumbers = 16 / slot_number_bytes(kType);

// Number i of a packet, in types with a scale (base/dtype.h) before it is scaled. A NaN of kF8E4M3
// comes out as a number: rows that have one have NaN for their scale.
template <DType kType, class Team>
DMC_DEVICE float number_of(const Packet& packet, int i) {
  uint32_t bits = 0;
  if constexpr (kType == DType::kF16) {
    return Team::from_f16(static_cast<uint16_t>(packet.words[i / 2] >> (16 * (i % 2))));
  }
  if constexpr (is_scaled(kType)) {
    const auto byte = static_cast<uint8_t>(packet.words[i / 4] >> (8 * (i % 4)));
    if constexpr (kType == DType::kI8) {
      // As the last bits of 2^23 + 128 + x: cheaper on a GPU than a conversion.
      constexpr uint32_t kLargeBits = 0x4b000000u;
      constexpr float kLarge = 0x1p23f + 128.0f;
      bits = kLargeBits | (byte ^ 0x80u);
      float number;
      __builtin_memcpy(&number, &bits, sizeof(number));
      return number - kLarge;
    }
    // f16 has one more bit of exponent, whose bias is greater by 8.
    const uint32_t moved = uint32_t{byte & 0x80u} << 8 | uint32_t{byte & 0x7fu} << 7;
    return Team::from_f16(static_cast<uint16_t>(moved)) * 256.0f;
  }
  if constexpr (kType == DType::kF32) {
    bits = packet.words[i];
  } else {
    const uint32_t pair = packet.words[i / 2];
    bits = i % 2 == 0 ? pair << 16 : pair & 0xffff0000u;
  }
  float number;
  __builtin_memcpy(&number, &bits, sizeof(number));
  return number;
}

}  // namespace dmc::kernels::cuda
