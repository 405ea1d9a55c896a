// Lanes that share the work on one stream or row: i = lane(), lane() + size(), ... The device's
// teams are a warp (WarpTeam, warp.cuh) and a block (BlockTeam, block_team.cuh); SoloTeam is one
// lane that does it all, for the unit tests.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/dtype.h"
#include "kernels/cuda/lanes/portable.h"

namespace dmc::kernels::cuda {

// The nearest number that f16 can hold.
DMC_HOST_DEVICE float clamp_to_f16(float x) {
  constexpr float kLargest = 65504.0f;
  return fminf(fmaxf(x, -kLargest), kLargest);
}

// What a lane has found; the least is that of least worth, the first of several.
struct Ranked {
  double worth;
  int32_t index;

  DMC_HOST_DEVICE bool before(const Ranked& other) const {
    return worth < other.worth || (worth == other.worth && index < other.index);
  }
};

struct SoloTeam {
  static int lane() { return 0; }
  static constexpr int size() { return 1; }
  template <class T>
  static T sum(T x) {
    return x;
  }
  static float max(float x) { return x; }
  static Ranked least(Ranked x) { return x; }
  // The sum over all lanes before this one; *total: over all.
  static int32_t sum_before(int32_t x, int32_t* total) {
    *total = x;
    return 0;
  }
  static int32_t of_first(int32_t x) { return x; }
  static void sync() {}
  // What this lane has read and written comes before its next add() for the whole device.
  static void fence() {}
  // *counter += by; returns what it was.
  static int32_t add(int32_t* counter, int32_t by) {
    const int32_t before = *counter;
    *counter += by;
    return before;
  }
  static uint32_t add(uint32_t* counter, uint32_t by) {
    const uint32_t before = *counter;
    *counter += by;
    return before;
  }
  // *from, of which nobody else has need: on the device it does not push others out of the cache.
  template <class T>
  static T load_once(const T* from) {
    return *from;
  }
  static uint16_t to_bf16(float x) { return f32_to_bf16(x); }
  static uint16_t to_f16(float x) { return f32_to_f16(x); }
  static uint8_t to_f8(float x) { return f32_to_f8(x); }
  static float from_f16(uint16_t bits) { return f16_to_f32(bits); }
};

}  // namespace dmc::kernels::cuda
