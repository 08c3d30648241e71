#include "lathe/base/scalar.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "lathe/base/rng.h"

namespace lathe {
namespace {

// value = (-1)^sign * significand * 2^power, by the definition of the format.
double decode(uint32_t code, int exponent_bits, int mantissa_bits, int bias) {
  const uint32_t mantissa = code & ((1u << mantissa_bits) - 1);
  const uint32_t exponent = (code >> mantissa_bits) & ((1u << exponent_bits) - 1);
  const bool negative = ((code >> (mantissa_bits + exponent_bits)) & 1u) != 0;
  const double significand = exponent == 0 ? mantissa : mantissa + (1u << mantissa_bits);
  const int power = static_cast<int>(exponent == 0 ? 1 : exponent) - bias - mantissa_bits;
  const double magnitude = std::ldexp(significand, power);
  return negative ? -magnitude : magnitude;
}

TEST(F16, EveryCodeDecodesByDefinitionAndEncodesBack) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const float value = f16_to_float(static_cast<uint16_t>(code));
    if ((code & 0x7c00) == 0x7c00) {
      if ((code & 0x3ff) != 0) {
        EXPECT_TRUE(std::isnan(value)) << code;
        EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(value)))) << code;
        continue;
      }
      EXPECT_TRUE(std::isinf(value)) << code;
    } else {
      ASSERT_EQ(static_cast<double>(value), decode(code, 5, 10, 15)) << code;
    }
    EXPECT_EQ(std::signbit(value), (code & 0x8000) != 0) << code;
    ASSERT_EQ(float_to_f16(value), code);
  }
}

// Between two neighbours: below the middle goes down, above goes up, the middle goes to the even code.
TEST(F16, RoundsToNearestEven) {
  for (uint32_t code = 0; code < 0x7bff; ++code) {
    const float low = f16_to_float(static_cast<uint16_t>(code));
    const float high = f16_to_float(static_cast<uint16_t>(code + 1));
    const float middle = (low + high) / 2;
    ASSERT_EQ(float_to_f16(middle), (code % 2 == 0) ? code : code + 1);
    ASSERT_EQ(float_to_f16(std::nextafter(middle, low)), code);
    ASSERT_EQ(float_to_f16(std::nextafter(middle, high)), code + 1);
    ASSERT_EQ(float_to_f16(-middle), 0x8000u | ((code % 2 == 0) ? code : code + 1));
  }
}

TEST(F16, OverflowAndTinyValues) {
  EXPECT_EQ(float_to_f16(65504.0f), 0x7bff);
  EXPECT_EQ(float_to_f16(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_f16(1e30f), 0x7c00);
  EXPECT_EQ(float_to_f16(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(float_to_f16(0x1p-25f), 0);  // the middle between 0 and the least subnormal
  EXPECT_EQ(float_to_f16(std::nextafter(0x1p-25f, 1.0f)), 1);
  EXPECT_EQ(float_to_f16(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(float_to_f16(-0.0f), 0x8000);
}

TEST(Bf16, EveryCodeSurvives) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const float value = bf16_to_float(static_cast<uint16_t>(code));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(value))));
    } else {
      ASSERT_EQ(float_to_bf16(value), code);
    }
  }
}

TEST(Bf16, RoundsToNearestEven) {
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  // A NaN whose payload lies in the dropped bits must not become infinity.
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(E4M3, EveryCodeDecodesByDefinitionAndEncodesBack) {
  for (uint32_t code = 0; code < 0x100; ++code) {
    const float value = e4m3_to_float(static_cast<uint8_t>(code));
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
      continue;
    }
    ASSERT_EQ(static_cast<double>(value), decode(code, 4, 3, 7)) << code;
    ASSERT_EQ(float_to_e4m3(value), code);
  }
  EXPECT_EQ(e4m3_to_float(0x7e), 448.0f);
  EXPECT_EQ(e4m3_to_float(0x01), 0x1p-9f);
}

TEST(E4M3, RoundsToNearestEvenAndSaturates) {
  for (uint32_t code = 0; code < 0x7e; ++code) {
    const float low = e4m3_to_float(static_cast<uint8_t>(code));
    const float high = e4m3_to_float(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2;
    ASSERT_EQ(float_to_e4m3(middle), (code % 2 == 0) ? code : code + 1);
    ASSERT_EQ(float_to_e4m3(std::nextafter(middle, low)), code);
    ASSERT_EQ(float_to_e4m3(std::nextafter(middle, high)), code + 1);
    ASSERT_EQ(float_to_e4m3(-std::nextafter(middle, high)), 0x80u | (code + 1));
  }
  EXPECT_EQ(float_to_e4m3(449.0f), 0x7e);
  EXPECT_EQ(float_to_e4m3(1e30f), 0x7e);
  EXPECT_EQ(float_to_e4m3(-std::numeric_limits<float>::infinity()), 0xfe);
  EXPECT_EQ(float_to_e4m3(std::nanf("")), 0x7f);
  EXPECT_EQ(float_to_e4m3(-0.0f), 0x80);
  EXPECT_EQ(float_to_e4m3(std::numeric_limits<float>::denorm_min()), 0);
}

// On values of all magnitudes the chosen code is at least as near as its neighbours.
TEST(E4M3, RandomValuesGetTheNearestCode) {
  Rng rng(11);
  for (int i = 0; i < 200000; ++i) {
    const auto value = static_cast<float>(rng.next_normal() * std::exp2(rng.next_uniform() * 20.0 - 12.0));
    if (std::fabs(value) >= 448.0f) continue;
    const uint8_t code = float_to_e4m3(value);
    const double error = std::fabs(static_cast<double>(e4m3_to_float(code)) - value);
    for (const int neighbour : {(code & 0x7f) - 1, (code & 0x7f) + 1}) {
      if (neighbour < 0 || neighbour > 0x7e) continue;
      const double other = e4m3_to_float(static_cast<uint8_t>((code & 0x80) | neighbour));
      ASSERT_LE(error, std::fabs(other - value)) << value;
    }
  }
}

}  // namespace
}  // namespace lathe
