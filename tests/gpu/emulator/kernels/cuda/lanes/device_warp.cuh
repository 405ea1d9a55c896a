// In the place of src/kernels/cuda/lanes/device_warp.cuh where kernels run on the CPU: the same
// with lanes that are threads of their own (block.h), by the plain definitions of HostWarp.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/lanes/host_warp.h"

namespace dmc::kernels::cuda {

struct DeviceWarp {
  static constexpr float kNever = HostWarp::kNever;

  template <class T>
  struct Lanes {
    T mine;
    T& operator[](int) { return mine; }
    const T& operator[](int) const { return mine; }
  };

  template <class Fn>
  static void each(Fn&& fn) {
    fn(emulated::lane());
  }

  template <class T>
  static void copy(T& to, const void* from, bool valid) {
    emulated::start_copy(&to, valid ? from : nullptr, sizeof(T));
  }
  static void commit_copies() { emulated::commit_copies(); }
  template <int kPending>
  static void wait_copies() {
    emulated::wait_copies(kPending);
  }
  template <int kBytes>
  static Chunk<kBytes> load(const Chunk<kBytes>& from) {
    return from;
  }

  static float exp2(float x) { return HostWarp::exp2(x); }
  static float log2(float x) { return HostWarp::log2(x); }
  static float float_of(uint32_t bits) { return HostWarp::float_of(bits); }
  static float float_of_f16(uint16_t bits) { return f16_to_f32(bits); }
  static uint32_t pack_bf16(float a, float b) { return HostWarp::pack_bf16(a, b); }
  static uint32_t pack_f16(float a, float b) { return HostWarp::pack_f16(a, b); }
  static uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t order) {
    return HostWarp::pick_bytes(low, high, order);
  }
  static uint8_t to_f8(float x) { return HostWarp::to_f8(x); }
  template <DType kType>
  static void widen_bytes(uint32_t bytes, uint32_t& first, uint32_t& second) {
    HostWarp::widen_bytes<kType>(bytes, first, second);
  }

  template <DType kType>
  static void mma(Lanes<FragmentC>& c, const Lanes<FragmentsA<kType>>& a,
                  const Lanes<FragmentsB<kType>>& b, int part_a, int part_b) {
    struct Operands {
      FragmentC* c;
      const FragmentsA<kType>* a;
      const FragmentsB<kType>* b;
    } mine{&c.mine, &a.mine, &b.mine};
    emulated::meet_with("mma", mine, [=](const auto& lanes) {
      HostWarp::Lanes<FragmentC> all_c;
      HostWarp::Lanes<FragmentsA<kType>> all_a;
      HostWarp::Lanes<FragmentsB<kType>> all_b;
      HostWarp::each([&](int lane) {
        const Operands& of = *lanes[static_cast<size_t>(lane)];
        all_c[lane] = *of.c;
        all_a[lane] = *of.a;
        all_b[lane] = *of.b;
      });
      HostWarp::mma<kType>(all_c, all_a, all_b, part_a, part_b);
      HostWarp::each([&](int lane) { *lanes[static_cast<size_t>(lane)]->c = all_c[lane]; });
    });
  }

  template <DType kType>
  static void transpose(Lanes<FragmentsB<kType>>& fragments) {
    emulated::meet_with("movmatrix", fragments.mine, [](const auto& lanes) {
      HostWarp::Lanes<FragmentsB<kType>> all;
      HostWarp::each([&](int lane) { all[lane] = *lanes[static_cast<size_t>(lane)]; });
      HostWarp::transpose<kType>(all);
      HostWarp::each([&](int lane) { *lanes[static_cast<size_t>(lane)] = all[lane]; });
    });
  }

  static void sum_over_groups(Lanes<float>& x) {
    for (int apart = 4; apart < kLanes; apart *= 2) x.mine += exchange(x.mine, apart);
  }
  static void max_over_groups(Lanes<float>& x) {
    for (int apart = 4; apart < kLanes; apart *= 2) {
      x.mine = std::fmax(x.mine, exchange(x.mine, apart));
    }
  }
  static float exchange(float x, int apart) { return __shfl_xor_sync(0xffffffffu, x, apart); }
};

template <class T>
T& shared_memory() {
  return *reinterpret_cast<T*>(emulated::shared_memory());
}

}  // namespace dmc::kernels::cuda
