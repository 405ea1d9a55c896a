// Without cuBLAS, which machines that run this test mostly lack, and with one that multiplies on
// the CPU (tests/fakes/fake_cublas.cpp): which argument means what is proven without a GPU.
#include "kernels/cuda/products/cublas.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/kernel_testing.h"

namespace dmc::kernels::cuda {
namespace {

// y = x W^T of 7 rows, 5 outputs and 3 inputs, all different, so that no two can be taken for one
// another.
template <class T, class Store, class Load>
void expect_product(DType type, bool add, Store&& store, Load&& load) {
  constexpr int64_t kRows = 7, kOutputs = 5, kInputs = 3, kStride = 6;
  Rng rng(1);
  const auto stored = [&](int64_t count) {
    std::vector<T> numbers;
    for (float x : random_floats(static_cast<size_t>(count), rng)) numbers.push_back(store(x));
    return numbers;
  };
  const std::vector<T> weights = stored(kOutputs * kInputs), x = stored(kRows * kInputs);
  const float before = add ? 0.5f : std::numeric_limits<float>::quiet_NaN();
  std::vector<float> y(kRows * kStride, before);
  Cublas(nullptr, nullptr, 0)
      .multiply({type, weights.data(), x.data(), y.data(), kOutputs, kInputs, kRows, kStride, add});
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t output = 0; output < kOutputs; ++output) {
      double wanted = add ? before : 0.0;
      for (int64_t i = 0; i < kInputs; ++i) {
        wanted += double{load(x[static_cast<size_t>(row * kInputs + i)])} *
                  load(weights[static_cast<size_t>(output * kInputs + i)]);
      }
      EXPECT_NEAR(y[static_cast<size_t>(row * kStride + output)], wanted, 1e-5);
    }
    const float behind = y[static_cast<size_t>(row * kStride + kOutputs)];  // no output
    EXPECT_TRUE(add ? behind == before : std::isnan(behind));
  }
}

TEST(CudaCublas, RowsAndOutputsAreWhereWeWantThem) {
  // Whoever asks for libcublas.so.13 from now on gets this one: it has that name inside.
  void* const fake = dlopen(DMC_FAKE_CUBLAS, RTLD_NOW);
  ASSERT_NE(fake, nullptr) << dlerror();
  const auto same = [](float x) { return x; };
  for (bool add : {false, true}) {
    expect_product<float>(DType::kF32, add, same, same);
    expect_product<uint16_t>(DType::kBF16, add, f32_to_bf16, bf16_to_f32);
    expect_product<uint16_t>(DType::kF16, add, f32_to_f16, f16_to_f32);
  }
}

// Behind the other test: where a library is found, it stays.
TEST(CudaCublas, AMissingLibraryIsOneSentence) {
  if (dlopen("libcublas.so.13", RTLD_NOW) != nullptr) GTEST_SKIP() << "there is one";
  try {
    Cublas(nullptr, nullptr, 0);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_NE(std::string(error.what()).find("libcublas.so.13"), std::string::npos);
  }
}

}  // namespace
}  // namespace dmc::kernels::cuda
