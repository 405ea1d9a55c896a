// The lanes of a warp as a team, and what they can do together (device_warp.cuh).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/lanes/device_warp.cuh"
#include "kernels/cuda/lanes/team.h"

namespace dmc::kernels::cuda {

// The warp as a team of lanes that shares the work on one stream (team.h).
struct WarpTeam {
  DMC_DEVICE static int lane() { return static_cast<int>(threadIdx.x % kLanes); }
  DMC_DEVICE static constexpr int size() { return kLanes; }
  template <class T>
  DMC_DEVICE static T sum(T x) {
    DMC_UNROLL
    for (int apart = 1; apart < kLanes; apart *= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
    return x;
  }
  DMC_DEVICE static float max(float x) {
    DMC_UNROLL
    for (int apart = 1; apart < kLanes; apart *= 2) x = fmaxf(x, DeviceWarp::exchange(x, apart));
    return x;
  }
  DMC_DEVICE static Ranked least(Ranked x) {
    DMC_UNROLL
    for (int apart = 1; apart < kLanes; apart *= 2) {
      const Ranked other{__shfl_xor_sync(0xffffffffu, x.worth, apart),
                         __shfl_xor_sync(0xffffffffu, x.index, apart)};
      if (other.before(x)) x = other;
    }
    x.index = of_first(x.index);  // NaN has no order, but all lanes must agree
    return x;
  }
  // What lane 0 has. All lanes' writes before it can be read by all lanes after it.
  DMC_DEVICE static int32_t of_first(int32_t x) {
    __syncwarp();
    return __shfl_sync(0xffffffffu, x, 0);
  }
  DMC_DEVICE static void sync() { __syncwarp(); }
  DMC_DEVICE static void fence() { __threadfence(); }
  DMC_DEVICE static int32_t add(int32_t* counter, int32_t by) { return atomicAdd(counter, by); }
  template <class T>
  DMC_DEVICE static T load_once(const T* from) {
    static_assert(sizeof(T) == sizeof(uint4));
    const uint4 words = __ldcs(reinterpret_cast<const uint4*>(from));
    T to;
    __builtin_memcpy(&to, &words, sizeof(to));
    return to;
  }
  DMC_DEVICE static uint16_t to_bf16(float x) {
    return static_cast<uint16_t>(DeviceWarp::pack_bf16(x, 0.0f));
  }
  DMC_DEVICE static uint16_t to_f16(float x) {
    return static_cast<uint16_t>(DeviceWarp::pack_f16(x, 0.0f));
  }
  DMC_DEVICE static uint8_t to_f8(float x) { return DeviceWarp::to_f8(x); }
  DMC_DEVICE static float from_f16(uint16_t bits) { return DeviceWarp::float_of_f16(bits); }
};

}  // namespace dmc::kernels::cuda
