// What a GPU makes of 8-bit numbers, against base/dtype.h, bit by bit. Without a GPU it is skipped.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/lanes/warp.cuh"

namespace dmc::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// Thread i widens the four bytes of word i to two pairs of f16.
template <DType kType>
__global__ void widen_kernel(const uint32_t* words, uint32_t* pairs) {
  const int i = static_cast<int>(threadIdx.x);
  DeviceWarp::widen_bytes<kType>(words[i], pairs[2 * i], pairs[2 * i + 1]);
}

__global__ void round_kernel(const float* from, uint8_t* to, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    to[i] = DeviceWarp::to_f8(from[i]);
  }
}

// Every byte, at each of the four places of a word. `number` says what it means; 0x7f and 0xff are
// left out for floats, as slots never hold them.
template <DType kType, class Number>
void expect_widened(Number&& number) {
  std::vector<uint32_t> words;
  for (uint32_t byte = 0; byte < kThreads; ++byte) {
    words.push_back(byte | (byte ^ 0x11) << 8 | (byte ^ 0x80) << 16 | (byte ^ 0x55) << 24);
  }
  const DeviceArray<uint32_t> in(words), out(2 * words.size());
  launch("widening", widen_kernel<kType>, {1, kThreads}, nullptr, in.get(), out.get());
  const std::vector<uint32_t> pairs = out.download();
  for (size_t i = 0; i < 4 * words.size(); ++i) {
    const auto byte = static_cast<uint8_t>(words[i / 4] >> (8 * (i % 4)));
    if (kType == DType::kF8E4M3 && (byte & 0x7f) == 0x7f) continue;
    const auto half = static_cast<uint16_t>(pairs[i / 2] >> (16 * (i % 2)));
    ASSERT_EQ(half, f32_to_f16(number(byte))) << "byte " << int{byte} << " at " << i % 4;
  }
}

TEST(CudaConversions, BytesBecomeHalves) {
  if (!have_device()) GTEST_SKIP() << "no GPU";
  expect_widened<DType::kI8>(
      [](uint8_t byte) { return static_cast<float>(static_cast<int8_t>(byte)); });
  expect_widened<DType::kF8E4M3>(f8_to_f32);
}

// Numbers of e4m3, what lies in the middle of two and beside it, what lies beyond, and any others.
TEST(CudaConversions, FloatsBecomeEightBitFloats) {
  if (!have_device()) GTEST_SKIP() << "no GPU";
  std::vector<float> numbers = {0.0f, 449.0f, 464.0f, 1e30f, 1e-30f};
  for (int bits = 0; bits < 0x7e; ++bits) {
    const float low = f8_to_f32(static_cast<uint8_t>(bits));
    const float middle = (low + f8_to_f32(static_cast<uint8_t>(bits + 1))) / 2;
    for (float x : {low, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) {
      numbers.push_back(x);
    }
  }
  Rng rng(1);
  for (int i = 0; i < 4000; ++i) {
    numbers.push_back(static_cast<float>(std::exp2(24.0 * rng.uniform() - 14.0)));
  }
  for (size_t i = 0, count = numbers.size(); i < count; ++i) numbers.push_back(-numbers[i]);
  const DeviceArray<float> in(numbers);
  const DeviceArray<uint8_t> out(numbers.size());
  launch("rounding", round_kernel, {1, kThreads}, nullptr, in.get(), out.get(),
         static_cast<int>(numbers.size()));
  const std::vector<uint8_t> bytes = out.download();
  for (size_t i = 0; i < numbers.size(); ++i)
    ASSERT_EQ(bytes[i], f32_to_f8(numbers[i])) << numbers[i];
}

}  // namespace
}  // namespace dmc::kernels::cuda
