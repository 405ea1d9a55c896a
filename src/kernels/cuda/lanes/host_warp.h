// An emulated warp for unit tests: 32 lanes in lockstep, with the fragment layouts of the PTX ISA
// written down independently of the kernels' own arithmetic. Products are summed in f64.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cuda/attention/slot_tile.h"

namespace dmc::kernels::cuda {

struct HostWarp {
  static constexpr float kNever = -std::numeric_limits<float>::infinity();

  template <class T>
  struct Lanes {
    std::array<T, kLanes> of{};
    T& operator[](int lane) { return of[static_cast<size_t>(lane)]; }
    const T& operator[](int lane) const { return of[static_cast<size_t>(lane)]; }
  };

  template <class Fn>
  static void each(Fn&& fn) {
    for (int lane = 0; lane < kLanes; ++lane) fn(lane);
  }

  template <class T>
  static void copy(T& to, const void* from, bool valid) {
    if (valid) {
      std::memcpy(&to, from, sizeof(T));
    } else {
      to = {};
    }
  }

  template <int kBytes>
  static Chunk<kBytes> load(const Chunk<kBytes>& from) {
    return from;
  }

  static float exp2(float x) { return std::exp2(x); }
  static float log2(float x) { return std::log2(x); }
  static float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
  static uint32_t pack_bf16(float first, float second) {
    return f32_to_bf16(first) | static_cast<uint32_t>(f32_to_bf16(second)) << 16;
  }
  static uint32_t pack_f16(float first, float second) {
    return f32_to_f16(first) | static_cast<uint32_t>(f32_to_f16(second)) << 16;
  }

  // PTX prmt: each hexadecimal digit of `order` picks one of the 8 bytes of high:low.
  static uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t order) {
    const uint64_t bytes = (static_cast<uint64_t>(high) << 32) | low;
    uint32_t picked = 0;
    for (int i = 0; i < 4; ++i) {
      const uint32_t digit = order >> (4 * i) & 7;
      picked |= static_cast<uint32_t>(bytes >> (8 * digit) & 0xff) << (8 * i);
    }
    return picked;
  }
  static uint8_t to_f8(float x) { return f32_to_f8(x); }
  static uint32_t multiply_f16(uint32_t a, uint32_t b) {
    const auto product = [&](int shift) {
      const auto x = static_cast<uint16_t>(a >> shift), y = static_cast<uint16_t>(b >> shift);
      return f16_to_f32(x) * f16_to_f32(y);
    };
    return pack_f16(product(0), product(16));
  }
  // Four numbers of one byte as f16: the first two, the others.
  template <DType kType>
  static void widen_bytes(uint32_t bytes, uint32_t& first, uint32_t& second) {
    const auto at = [&](int i) {
      const auto byte = static_cast<uint8_t>(bytes >> (8 * i));
      return kType == DType::kI8 ? static_cast<float>(static_cast<int8_t>(byte)) : f8_to_f32(byte);
    };
    first = pack_f16(at(0), at(1));
    second = pack_f16(at(2), at(3));
  }

  template <DType kType>
  static void mma(Lanes<FragmentC>& c, const Lanes<FragmentsA<kType>>& a,
                  const Lanes<FragmentsB<kType>>& b, int part_a, int part_b) {
    double A[16][16], B[16][8];
    each([&](int lane) {
      const int group = lane / 4, place = lane % 4;
      for (int pair = 0; pair < 4; ++pair) {
        for (int i = 0; i < 2; ++i) {
          A[group + 8 * (pair % 2)][2 * place + 8 * (pair / 2) + i] =
              number<kType>(a[lane].part[part_a].pairs[pair], i);
        }
      }
      for (int pair = 0; pair < 2; ++pair) {
        for (int i = 0; i < 2; ++i) {
          B[2 * place + 8 * pair + i][group] = number<kType>(b[lane].part[part_b].pairs[pair], i);
        }
      }
    });
    each([&](int lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
        double sum = c[lane].numbers[i];
        for (int k = 0; k < 16; ++k) sum += A[row][k] * B[k][column];
        c[lane].numbers[i] = static_cast<float>(sum);
      }
    });
  }

  // Each of the 8 x 8 matrices of 16-bit numbers that the lanes' pairs make up (row g; columns 2t
  // and 2t + 1) becomes its transpose.
  template <DType kType>
  static void transpose(Lanes<FragmentsB<kType>>& fragments) {
    for (int part = 0; part < fragment_parts(kType); ++part) {
      for (int pair = 0; pair < 2; ++pair) {
        uint16_t matrix[8][8];
        each([&](int lane) {
          const uint32_t bits = fragments[lane].part[part].pairs[pair];
          matrix[lane / 4][2 * (lane % 4)] = static_cast<uint16_t>(bits);
          matrix[lane / 4][2 * (lane % 4) + 1] = static_cast<uint16_t>(bits >> 16);
        });
        each([&](int lane) {
          const int row = lane / 4, column = 2 * (lane % 4);
          fragments[lane].part[part].pairs[pair] =
              matrix[column][row] | static_cast<uint32_t>(matrix[column + 1][row]) << 16;
        });
      }
    }
  }

  static void sum_over_groups(Lanes<float>& x) {
    over_groups(x, [](float a, float b) { return a + b; });
  }
  static void max_over_groups(Lanes<float>& x) {
    over_groups(x, [](float a, float b) { return a > b ? a : b; });
  }

 private:
  template <DType kType>
  static double number(uint32_t pair, int i) {
    const auto bits = static_cast<uint16_t>(pair >> (16 * i));
    return kType == DType::kBF16 || kType == DType::kF32 ? bf16_to_f32(bits) : f16_to_f32(bits);
  }
  // Combines lanes of the same place.
  template <class Op>
  static void over_groups(Lanes<float>& x, Op&& op) {
    for (int apart : {4, 8, 16}) {
      const Lanes<float> before = x;
      each([&](int lane) { x[lane] = op(before[lane], before[lane ^ apart]); });
    }
  }
};

}  // namespace dmc::kernels::cuda
