// What a warp can do, in the instructions of sm_80 and later (PTX ISA 8.0). The counterpart of
// HostWarp (host_warp.h), which says the same in plain C++. All that is written in PTX is here:
// where kernels are emulated, another file takes its place (tests/gpu/emulator).
#pragma once

#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention/slot_tile.h"

namespace dmc::kernels::cuda {

struct DeviceWarp {
  static constexpr float kNever = -__builtin_huge_valf();

  // One T a lane, in its registers. The lane is always the one that asks.
  template <class T>
  struct Lanes {
    T mine;
    DMC_DEVICE T& operator[](int) { return mine; }
    DMC_DEVICE const T& operator[](int) const { return mine; }
  };

  template <class Fn>
  DMC_DEVICE static void each(Fn&& fn) {
    fn(static_cast<int>(threadIdx.x % kLanes));
  }

  // Starts an asynchronous copy into shared memory; zeros if not valid (nothing is read then).
  template <class T>
  DMC_DEVICE static void copy(T& to, const void* from, bool valid) {
    const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(&to));
    const int bytes = valid ? sizeof(T) : 0;
    if constexpr (sizeof(T) == 16) {  // only these can bypass the L1 cache
      asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(at), "l"(from),
                   "r"(bytes)
                   : "memory");
    } else {
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from),
                   "n"(sizeof(T)), "r"(bytes)
                   : "memory");
    }
  }
  // Copies started so far by this lane form a group.
  DMC_DEVICE static void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  // Waits until at most kPending of this lane's groups are under way.
  template <int kPending>
  DMC_DEVICE static void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
  }

  // A chunk from shared memory by one instruction: free of bank conflicts because lanes' chunks lie
  // side by side. In PTX, because the compiler splits loads of which it uses a word at a time.
  template <int kBytes>
  DMC_DEVICE static Chunk<kBytes> load(const Chunk<kBytes>& from) {
    const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(&from));
    Chunk<kBytes> to;
    if constexpr (kBytes == 16) {
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(to.words[0]), "=r"(to.words[1]), "=r"(to.words[2]), "=r"(to.words[3])
                   : "r"(at));
    } else if constexpr (kBytes == 8) {
      asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                   : "=r"(to.words[0]), "=r"(to.words[1])
                   : "r"(at));
    } else {
      asm volatile("ld.shared.u32 %0, [%1];" : "=r"(to.words[0]) : "r"(at));
    }
    return to;
  }

  DMC_DEVICE static float exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  DMC_DEVICE static float log2(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  DMC_DEVICE static float float_of(uint32_t bits) { return __uint_as_float(bits); }
  DMC_DEVICE static float float_of_f16(uint16_t bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
  }
  DMC_DEVICE static uint32_t pack_bf16(float first, float second) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
  }
  DMC_DEVICE static uint32_t pack_f16(float first, float second) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
  }
  DMC_DEVICE static uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t order) {
    return __byte_perm(low, high, order);
  }
  DMC_DEVICE static uint8_t to_f8(float x) {
    return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
  }
  DMC_DEVICE static uint32_t multiply_f16(uint32_t a, uint32_t b) {
    uint32_t product;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
  }
  // Four numbers of one byte as f16: the first two, the others.
  template <DType kType>
  DMC_DEVICE static void widen_bytes(uint32_t bytes, uint32_t& first, uint32_t& second) {
    if constexpr (kType == DType::kI8) {
      widen_i8(bytes, first, second);
    } else {
#if __CUDA_ARCH__ >= 890
      asm("{ .reg .b16 low, high; mov.b32 {low, high}, %2;"
          "  cvt.rn.f16x2.e4m3x2 %0, low; cvt.rn.f16x2.e4m3x2 %1, high; }"
          : "=r"(first), "=r"(second)
          : "r"(bytes));
#else
      widen_f8_by_moves<DeviceWarp>(bytes, first, second);
#endif
    }
  }
  // The f16 with bits 0x6400 + b is 1024 + b, so a byte becomes a number by putting 0x64 in front;
  // flipping the sign bit first makes signed bytes 0..255, and 1024 + 128 is taken off again.
  DMC_DEVICE static void widen_i8(uint32_t bytes, uint32_t& first, uint32_t& second) {
    constexpr uint32_t kThousands = 0x64646464u, kOffset = 0x64806480u;
    const uint32_t shifted = bytes ^ 0x80808080u;
    first = subtract_f16(__byte_perm(shifted, kThousands, 0x4140), kOffset);
    second = subtract_f16(__byte_perm(shifted, kThousands, 0x4342), kOffset);
  }

  // Instructions of a whole warp are volatile, so that none is moved to where lanes part ways.
  template <DType kType>
  DMC_DEVICE static void mma(Lanes<FragmentC>& c, const Lanes<FragmentsA<kType>>& a,
                             const Lanes<FragmentsB<kType>>& b, int part_a, int part_b) {
    const uint32_t* const x = a.mine.part[part_a].pairs;
    const uint32_t* const y = b.mine.part[part_b].pairs;
    float* const z = c.mine.numbers;
    if constexpr (kType == DType::kBF16 || kType == DType::kF32) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])
          : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
    } else {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])
          : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
    }
  }

  template <DType kType>
  DMC_DEVICE static void transpose(Lanes<FragmentsB<kType>>& fragments) {
    DMC_UNROLL
    for (int part = 0; part < fragment_parts(kType); ++part) {
      DMC_UNROLL
      for (int pair = 0; pair < 2; ++pair) {
        uint32_t& bits = fragments.mine.part[part].pairs[pair];
        asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(bits));
      }
    }
  }

  // Over the lanes of the same place (lane % 4); all of them get the result.
  DMC_DEVICE static void sum_over_groups(Lanes<float>& x) {
    DMC_UNROLL
    for (int apart = 4; apart < kLanes; apart *= 2) x.mine += exchange(x.mine, apart);
  }
  DMC_DEVICE static void max_over_groups(Lanes<float>& x) {
    DMC_UNROLL
    for (int apart = 4; apart < kLanes; apart *= 2) x.mine = fmaxf(x.mine, exchange(x.mine, apart));
  }

  // What lane ^ apart has.
  DMC_DEVICE static float exchange(float x, int apart) {
    return __shfl_xor_sync(0xffffffffu, x, apart);
  }

 private:
  DMC_DEVICE static uint32_t subtract_f16(uint32_t a, uint32_t b) {
    uint32_t difference;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
    return difference;
  }
};

// The memory of a block that its launch asked for (Grid::shared_bytes).
template <class T>
__device__ T& shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return *reinterpret_cast<T*>(memory);
}

}  // namespace dmc::kernels::cuda
