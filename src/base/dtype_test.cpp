#include "base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

namespace dmc {
namespace {

TEST(DType, NamesRoundTrip) {
  for (DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kU8, DType::kF8E4M3}) {
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_from_name("F7"), std::nullopt);
  EXPECT_EQ(dtype_from_name("I4"), std::nullopt) << "no tensor has it";
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

// Many at once are what one at a time is, at any address.
TEST(DType, FloatsAreWidenedTogetherAsOneByOne) {
  std::vector<uint16_t> bits(0x10000);
  std::iota(bits.begin(), bits.end(), uint16_t{0});
  std::vector<std::byte> bytes(2 * bits.size() + 1);
  std::memcpy(bytes.data() + 1, bits.data(), 2 * bits.size());
  std::vector<float> wide(bits.size());
  const auto same = [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); };
  for (DType dtype : {DType::kF16, DType::kBF16}) {
    widen_floats(bytes.data() + 1, 0x10000, dtype, wide.data());
    for (uint16_t pattern : bits) {
      const float one = dtype == DType::kF16 ? f16_to_f32(pattern) : bf16_to_f32(pattern);
      ASSERT_TRUE(same(wide[pattern], one)) << pattern;
      ASSERT_EQ(std::signbit(wide[pattern]), std::signbit(one)) << pattern;
    }
  }
}

// Every number of e4m3fn survives it, and what lies between two of them goes to the nearer one, in
// the middle to the one with the even mantissa.
TEST(DType, EightBitFloatsRoundTripExhaustively) {
  for (int bits = 0; bits < 0x7f; ++bits) {
    const auto low = static_cast<uint8_t>(bits), high = static_cast<uint8_t>(bits + 1);
    ASSERT_EQ(f32_to_f8(f8_to_f32(low)), low);
    ASSERT_EQ(f32_to_f8(-f8_to_f32(low)), low | 0x80);
    ASSERT_EQ(f8_to_f32(low | 0x80), -f8_to_f32(low));
    if (high == 0x7f) break;  // 448 is the largest
    ASSERT_LT(f8_to_f32(low), f8_to_f32(high));
    const float middle = (f8_to_f32(low) + f8_to_f32(high)) / 2;
    ASSERT_EQ(f32_to_f8(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(f32_to_f8(std::nextafter(middle, 1e9f)), high);
    ASSERT_EQ(f32_to_f8(middle), bits % 2 == 0 ? low : high);
  }
}

TEST(DType, EightBitFloatsEnd) {
  EXPECT_EQ(f8_to_f32(0x01), 0x1.0p-9f);
  EXPECT_EQ(f8_to_f32(0x08), 0x1.0p-6f);
  EXPECT_EQ(f8_to_f32(0x7e), 448.0f);
  EXPECT_TRUE(std::signbit(f8_to_f32(0x80)));
  for (float beyond : {449.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(f32_to_f8(beyond), 0x7e);
    EXPECT_EQ(f32_to_f8(-beyond), 0xfe);
  }
  for (uint8_t nan : {0x7f, 0xff}) EXPECT_TRUE(std::isnan(f8_to_f32(nan)));
  EXPECT_TRUE(std::isnan(f8_to_f32(f32_to_f8(NAN))));
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
