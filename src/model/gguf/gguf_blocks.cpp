#include "model/gguf/gguf_blocks.h"

#include <cstring>

#include "base/dtype.h"
#include "base/named.h"

namespace dmc::model {
namespace {

using Bytes = const uint8_t*;

float half_at(Bytes from) {
  uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return f16_to_f32(bits);
}

// 16 bytes are 32 numbers of 4 bits: the low halves come first.
void unpack_nibbles(Bytes from, int64_t bytes, int8_t* numbers) {
  for (int64_t i = 0; i < bytes; ++i) {
    numbers[i] = static_cast<int8_t>(from[i] & 15);
    numbers[bytes + i] = static_cast<int8_t>(from[i] >> 4);
  }
}

// Bit i of the word is the fifth of number i.
void add_fifth_bits(Bytes from, int8_t* numbers) {
  uint32_t bits;
  std::memcpy(&bits, from, sizeof bits);
  for (int i = 0; i < 32; ++i) numbers[i] = static_cast<int8_t>(numbers[i] | (bits >> i & 1) << 4);
}

void subtract(int8_t middle, int8_t* numbers) {
  for (int i = 0; i < 32; ++i) numbers[i] = static_cast<int8_t>(numbers[i] - middle);
}

void unpack_q8_0(const std::byte* block, int8_t* numbers, float* scales, float*) {
  const auto* const from = reinterpret_cast<Bytes>(block);
  scales[0] = half_at(from);
  std::memcpy(numbers, from + 2, 32);
}

void unpack_q4_0(const std::byte* block, int8_t* numbers, float* scales, float*) {
  const auto* const from = reinterpret_cast<Bytes>(block);
  scales[0] = half_at(from);
  unpack_nibbles(from + 2, 16, numbers);
  subtract(8, numbers);
}

void unpack_q4_1(const std::byte* block, int8_t* numbers, float* scales, float* minima) {
  const auto* const from = reinterpret_cast<Bytes>(block);
  scales[0] = half_at(from);
  minima[0] = half_at(from + 2);
  unpack_nibbles(from + 4, 16, numbers);
}

void unpack_q5_0(const std::byte* block, int8_t* numbers, float* scales, float*) {
  const auto* const from = reinterpret_cast<Bytes>(block);
  scales[0] = half_at(from);
  unpack_nibbles(from + 6, 16, numbers);
  add_fifth_bits(from + 2, numbers);
  subtract(16, numbers);
}

void unpack_q5_1(const std::byte* block, int8_t* numbers, float* scales, float* minima) {
  const auto* const from = reinterpret_cast<Bytes>(block);
  scales[0] = half_at(from);
  minima[0] = half_at(from + 2);
  unpack_nibbles(from + 8, 16, numbers);
  add_fifth_bits(from + 4, numbers);
}

// Blocks of 256 begin with a scale and a minimum for all of them, and in 12 bytes 8 factors of each
// in 6 bits: the first four of both in whole bytes, whose upper bits belong to the last four.
void unpack_factors(Bytes from, float* scales, float* minima) {
  const float scale = half_at(from), minimum = half_at(from + 2);
  const Bytes packed = from + 4;
  for (int g = 0; g < 8; ++g) {
    const int low = g % 4;
    const int of_scale = g < 4 ? packed[g] & 63 : (packed[8 + low] & 15) | packed[low] >> 6 << 4;
    const int of_minimum =
        g < 4 ? packed[4 + g] & 63 : packed[8 + low] >> 4 | packed[4 + low] >> 6 << 4;
    scales[g] = scale * static_cast<float>(of_scale);
    minima[g] = -(minimum * static_cast<float>(of_minimum));
  }
}

void unpack_q4_k(const std::byte* block, int8_t* numbers, float* scales, float* minima) {
  const auto* const from = reinterpret_cast<Bytes>(block);
  unpack_factors(from, scales, minima);
  for (int i = 0; i < 4; ++i) unpack_nibbles(from + 16 + 32 * i, 32, numbers + 64 * i);
}

// Bit g of byte i is the fifth of number i of group g.
void unpack_q5_k(const std::byte* block, int8_t* numbers, float* scales, float* minima) {
  const auto* const from = reinterpret_cast<Bytes>(block);
  unpack_factors(from, scales, minima);
  for (int i = 0; i < 4; ++i) unpack_nibbles(from + 48 + 32 * i, 32, numbers + 64 * i);
  for (int n = 0; n < 256; ++n) {
    numbers[n] = static_cast<int8_t>(numbers[n] | (from[16 + n % 32] >> n / 32 & 1) << 4);
  }
}

// Halves of 128 numbers, four runs of 32 each: the low four bits of runs 0 and 1 lie in the low
// halves of 64 bytes, those of runs 2 and 3 in the high ones; byte i of 32 more has the upper two
// bits of number i of all four runs.
void unpack_q6_k(const std::byte* block, int8_t* numbers, float* scales, float*) {
  const auto* const from = reinterpret_cast<Bytes>(block);
  const float scale = half_at(from + 208);
  for (int g = 0; g < 16; ++g) {
    scales[g] = scale * static_cast<float>(static_cast<int8_t>(from[192 + g]));
  }
  for (int half = 0; half < 2; ++half) {
    const Bytes low = from + 64 * half, high = from + 128 + 32 * half;
    for (int n = 0; n < 128; ++n) {
      const int run = n / 32, nibble = low[n % 64] >> (run < 2 ? 0 : 4) & 15;
      const int upper = high[n % 32] >> 2 * run & 3;
      numbers[128 * half + n] = static_cast<int8_t>((nibble | upper << 4) - 32);
    }
  }
}

// 16 factors in 6 bits, less 32: byte i of the first 8 has the low four bits of factor i and, above
// them, of factor i + 8; the last 4 bytes have the upper two of those of places i, i + 4, ... each.
void unpack_signed_factors(Bytes packed, float scale, float* scales) {
  for (int g = 0; g < 16; ++g) {
    const int low = packed[g % 8] >> (g < 8 ? 0 : 4) & 15;
    const int upper = packed[8 + g % 4] >> 2 * (g / 4) & 3;
    scales[g] = scale * static_cast<float>((low | upper << 4) - 32);
  }
}

// Halves of 128 numbers, four runs of 32 each: byte i of 32 has two bits of number i of all four
// runs; the third bits stand before, bit r of byte i for number i of run r of both halves.
void unpack_q3_k(const std::byte* block, int8_t* numbers, float* scales, float*) {
  const auto* const from = reinterpret_cast<Bytes>(block);
  unpack_signed_factors(from + 96, half_at(from + 108), scales);
  for (int n = 0; n < 256; ++n) {
    const int run = n / 32;
    const int low = from[32 + 32 * (n / 128) + n % 32] >> 2 * (run % 4) & 3;
    const int third = from[n % 32] >> run & 1;
    numbers[n] = static_cast<int8_t>((low | third << 2) - 4);
  }
}

// 4 bits choose one of 16 numbers, which stand closer where weights are many.
void unpack_iq4_nl(const std::byte* block, int8_t* numbers, float* scales, float*) {
  constexpr int8_t kChoices[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};
  const auto* const from = reinterpret_cast<Bytes>(block);
  scales[0] = half_at(from);
  unpack_nibbles(from + 2, 16, numbers);
  for (int i = 0; i < 32; ++i) numbers[i] = kChoices[numbers[i]];
}

constexpr BlockFormat kFormats[] = {
    {"Q8_0", {8, 32, false}, unpack_q8_0}, {"Q4_0", {4, 32, false}, unpack_q4_0},
    {"Q4_1", {4, 32, true}, unpack_q4_1},  {"Q5_0", {5, 32, false}, unpack_q5_0},
    {"Q5_1", {5, 32, true}, unpack_q5_1},  {"Q4_K", {4, 32, true}, unpack_q4_k},
    {"Q5_K", {5, 32, true}, unpack_q5_k},  {"Q6_K", {6, 16, false}, unpack_q6_k},
    {"Q3_K", {3, 16, false}, unpack_q3_k}, {"IQ4_NL", {8, 32, false}, unpack_iq4_nl},
};

}  // namespace

const BlockFormat* block_format(const GgufType& type) { return find_named(kFormats, type.name); }

}  // namespace dmc::model
