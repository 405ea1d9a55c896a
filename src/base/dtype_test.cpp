#include "base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>

namespace dmc {
namespace {

TEST(DType, NamesRoundTrip) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kU8}) {
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_from_name("F7"), std::nullopt);
}

// Every finite 16-bit pattern survives the way to f32 and back.
TEST(DType, HalfPrecisionRoundTripsExhaustively) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto pattern = static_cast<uint16_t>(bits);
    if (!std::isnan(f16_to_f32(pattern))) {
      ASSERT_EQ(f32_to_f16(f16_to_f32(pattern)), pattern);
    }
    if (!std::isnan(bf16_to_f32(pattern))) {
      ASSERT_EQ(f32_to_bf16(bf16_to_f32(pattern)), pattern);
    }
  }
}

TEST(DType, RoundsToNearestEven) {
  EXPECT_EQ(f32_to_f16(1.0f + 0x1.0p-11f), f32_to_f16(1.0f));              // tie, even below
  EXPECT_EQ(f32_to_f16(1.0f + 0x3.0p-11f), f32_to_f16(1.0f + 0x1.0p-9f));  // tie, even above
  EXPECT_EQ(f32_to_bf16(1.0f + 0x1.0p-8f), f32_to_bf16(1.0f));
  EXPECT_TRUE(std::isinf(f16_to_f32(f32_to_f16(70000.0f))));
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(NAN))));
}

}  // namespace
}  // namespace dmc
