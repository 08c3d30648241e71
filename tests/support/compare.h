// expect_close: NaN and infinity positions, largest absolute and relative error and 1 - cosine, against a named
// tolerance.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

namespace lathe::testing {

struct Tolerance {
  const char* name;
  double absolute;  // |a - e| <= absolute + relative * max|e|
  double relative;
  double cosine;  // 1 - cos(a, e) <= cosine
};

namespace tol {
// fp32 sums in another order: a few hundred roundings of 6e-8 on values of one scale.
inline constexpr Tolerance kF32Reduction{"kF32Reduction", 1e-6, 2e-5, 1e-9};
// golden hidden states and router weights at --compute f32 (tests/golden README): 2e-4 of the largest magnitude.
inline constexpr Tolerance kGoldenHidden{"kGoldenHidden", 0.0, 2e-4, 1e-7};
// one bf16 rounding of inputs.
inline constexpr Tolerance kBf16{"kBf16", 1e-6, 8e-3, 1e-4};
}  // namespace tol

inline void expect_close(std::span<const float> actual, std::span<const float> expected, const Tolerance& tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  double largest = 0.0;
  for (float e : expected) {
    if (std::isfinite(e)) largest = std::max(largest, std::fabs(static_cast<double>(e)));
  }
  double dot = 0.0, aa = 0.0, ee = 0.0, worst = 0.0;
  size_t worst_at = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double a = actual[i], e = expected[i];
    ASSERT_EQ(std::isnan(a), std::isnan(e)) << "at " << i;
    ASSERT_EQ(std::isinf(a), std::isinf(e)) << "at " << i;
    if (!std::isfinite(e)) continue;
    dot += a * e, aa += a * a, ee += e * e;
    if (std::fabs(a - e) > worst) worst = std::fabs(a - e), worst_at = i;
  }
  EXPECT_LE(worst, tolerance.absolute + tolerance.relative * largest)
      << tolerance.name << ": worst at " << worst_at << ": " << actual[worst_at] << " for " << expected[worst_at]
      << ", largest magnitude " << largest;
  if (aa > 0.0 && ee > 0.0) {
    EXPECT_LE(1.0 - dot / std::sqrt(aa * ee), tolerance.cosine) << tolerance.name << ": cosine";
  }
}

inline void expect_same_bits(std::span<const float> actual, std::span<const float> expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(std::memcmp(&actual[i], &expected[i], sizeof(float)), 0)
        << "at " << i << ": " << actual[i] << " for " << expected[i];
  }
}

}  // namespace lathe::testing
