// Cache rows: sizes, what is stored for given values, and how far quantised values are off.
#include "lathe/kernels/cache_rows.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "lathe/base/scalar.h"
#include "support/kernels.h"

namespace lathe {
namespace {

std::vector<float> round_trip(CacheFormat format, const std::vector<float>& x) {
  const auto elements = static_cast<int64_t>(x.size());
  std::vector<std::byte> row(static_cast<size_t>(cache_row_bytes(format, elements)), std::byte{0xee});
  encode_cache_row(format, x.data(), elements, row.data());
  std::vector<float> out(x.size());
  decode_cache_row(format, row.data(), elements, 0, elements, out.data());
  return out;
}

TEST(CacheRows, SizesAreThoseOfTheFormats) {
  EXPECT_EQ(cache_row_bytes(CacheFormat::kF32, 576), 2304);
  EXPECT_EQ(cache_row_bytes(CacheFormat::kF16, 576), 1152);
  EXPECT_EQ(cache_row_bytes(CacheFormat::kBF16, 576), 1152);
  EXPECT_EQ(cache_row_bytes(CacheFormat::kQ8, 576), 612);
  EXPECT_EQ(cache_row_bytes(CacheFormat::kQ6, 576), 432);  // 25,920 bytes per token of V2's 60 layers
  EXPECT_EQ(cache_row_bytes(CacheFormat::kQ8, 33), 68);
  EXPECT_EQ(cache_row_bytes(CacheFormat::kQ6, 97), 96);
  EXPECT_EQ(cache_row_bytes(CacheFormat::kQ6, 1), kQ6LeastRowBytes);
}

TEST(CacheRows, NamesGoBothWays) {
  for (const CacheFormat format :
       {CacheFormat::kF32, CacheFormat::kF16, CacheFormat::kBF16, CacheFormat::kQ8, CacheFormat::kQ6}) {
    EXPECT_EQ(cache_format_from_name(cache_format_name(format)), format);
  }
  EXPECT_EQ(cache_format_from_name("q4"), std::nullopt);
  EXPECT_EQ(cache_format_from_name("F16"), std::nullopt);
}

TEST(CacheRows, PlainFormatsRoundEachElement) {
  Rng rng(1);
  const std::vector<float> x = testing::random_floats(rng, 77);
  EXPECT_EQ(round_trip(CacheFormat::kF32, x), x);
  const std::vector<float> half = round_trip(CacheFormat::kF16, x);
  const std::vector<float> brain = round_trip(CacheFormat::kBF16, x);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(half[i], f16_to_float(float_to_f16(x[i])));
    EXPECT_EQ(brain[i], bf16_to_float(float_to_bf16(x[i])));
  }
}

// Half a level of a group's scale at most, and the relative error of normal values.
TEST(CacheRows, QuantisedValuesAreWithinHalfALevel) {
  Rng rng(2);
  for (const auto& [format, levels, error] :
       {std::tuple{CacheFormat::kQ8, 127.0, 0.006}, {CacheFormat::kQ6, 22.0, 0.031}}) {
    SCOPED_TRACE(cache_format_name(format));
    double squares = 0.0;
    double errors = 0.0;
    for (int round = 0; round < 200; ++round) {
      const std::vector<float> x = testing::random_floats(rng, 32, round % 2 == 0 ? 1.0 : 300.0);
      const std::vector<float> stored = round_trip(format, x);
      double most = 0.0;
      for (const float v : x) most = std::max(most, std::fabs(static_cast<double>(v)));
      for (size_t i = 0; i < x.size(); ++i) {
        const double off = std::fabs(static_cast<double>(stored[i]) - x[i]);
        EXPECT_LE(off, 0.5005 * most / levels * 1.001);
        squares += static_cast<double>(x[i]) * x[i] / (most * most);
        errors += off * off / (most * most);
      }
    }
    EXPECT_LT(std::sqrt(errors / squares), error);
    EXPECT_GT(std::sqrt(errors / squares), 0.5 * error);
  }
}

TEST(CacheRows, EveryQ6CodeIsStored) {
  for (int code = -22; code <= 22; ++code) {
    std::vector<float> x(32, static_cast<float>(code));
    x[0] = 22.0F;  // scale 1
    x[16] = -22.0F;
    x[31] = static_cast<float>(-code);
    EXPECT_EQ(round_trip(CacheFormat::kQ6, x), x) << code;
  }
}

TEST(CacheRows, GroupsHaveTheirOwnScale) {
  std::vector<float> x(70, 1e-3F);
  for (size_t i = 32; i < 64; ++i) x[i] = 1000.0F;
  for (const CacheFormat format : {CacheFormat::kQ8, CacheFormat::kQ6}) {
    const std::vector<float> stored = round_trip(format, x);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(stored[i], x[i], 2e-3 * x[i]) << i;
  }
}

TEST(CacheRows, ZerosAndTinyValuesBecomeZero) {
  std::vector<float> x(32, 0.0F);
  for (const CacheFormat format : {CacheFormat::kQ8, CacheFormat::kQ6}) {
    EXPECT_EQ(round_trip(format, x), x);
    EXPECT_EQ(round_trip(format, std::vector<float>(32, 1e-30F)), x);
  }
}

TEST(CacheRows, WhatIsNotFiniteShowsInItsGroupOnly) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), 3e38F}) {
    std::vector<float> x(64, 1.0F);
    x[40] = bad;
    for (const CacheFormat format : {CacheFormat::kQ8, CacheFormat::kQ6}) {
      const std::vector<float> stored = round_trip(format, x);
      EXPECT_NEAR(stored[0], 1.0F, 1e-3F);
      for (size_t i = 32; i < 64; ++i) EXPECT_FALSE(std::isfinite(stored[i])) << bad << " " << i;
    }
  }
}

}  // namespace
}  // namespace lathe
