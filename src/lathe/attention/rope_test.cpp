// Frequencies and factors against hand-computed values; the golden tables are compared in model/config_rope_test.cpp.
#include "lathe/attention/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "support/compare.h"

namespace lathe {
namespace {

RopeParameters v2_yarn(double mscale_all_dim) {
  return {.kind = RopeKind::kYarn,
          .dim = 64,
          .theta = 1e4,
          .factor = 40,
          .original_max_position_embeddings = 4096,
          .beta_fast = 32,
          .beta_slow = 1,
          .mscale = mscale_all_dim == 0.0 ? 1.0 : mscale_all_dim,
          .mscale_all_dim = mscale_all_dim};
}

RopeParameters kimi_yarn(double factor) {
  RopeParameters rope = v2_yarn(1.0);
  rope.theta = 5e4;
  rope.factor = factor;
  rope.beta_fast = 1;
  return rope;
}

TEST(Yarn, CorrectionDimsOfTheReleases) {
  EXPECT_NEAR(yarn_correction_dim(32, v2_yarn(1.0)), 10.47224, 5e-6);
  EXPECT_NEAR(yarn_correction_dim(1, v2_yarn(1.0)), 22.51344, 5e-6);
  EXPECT_EQ(yarn_bounds(v2_yarn(1.0)).low, 10.0);
  EXPECT_EQ(yarn_bounds(v2_yarn(1.0)).high, 23.0);
  EXPECT_EQ(yarn_bounds(kimi_yarn(32)).low, 19.0);
  EXPECT_EQ(yarn_bounds(kimi_yarn(32)).high, 20.0);
}

TEST(Yarn, EqualBoundsAreWidened) {
  RopeParameters rope = v2_yarn(1.0);
  rope.original_max_position_embeddings = 4;  // under one turn for both betas: floor -> 0, ceil -> at most 0
  rope.beta_fast = rope.beta_slow = 0.5;
  const YarnBounds bounds = yarn_bounds(rope);
  EXPECT_EQ(bounds.low, 0.0);
  EXPECT_GT(bounds.high, bounds.low);
  rope.original_max_position_embeddings = std::numbers::pi;  // exactly one half turn: dim(0.5) = 0, both bounds 0
  EXPECT_EQ(yarn_bounds(rope).low, 0.0);
  EXPECT_DOUBLE_EQ(yarn_bounds(rope).high, 0.001);
}

TEST(Yarn, RampIsLinearBetweenTheBounds) {
  const YarnBounds bounds{.low = 10, .high = 23};
  EXPECT_EQ(yarn_ramp(0, bounds), 0.0);
  EXPECT_EQ(yarn_ramp(10, bounds), 0.0);
  EXPECT_DOUBLE_EQ(yarn_ramp(11, bounds), 1.0 / 13.0);
  EXPECT_EQ(yarn_ramp(23, bounds), 1.0);
  EXPECT_EQ(yarn_ramp(31, bounds), 1.0);
}

TEST(Yarn, FrequenciesOfTheV2Family) {
  struct Row {
    size_t pair;
    double plain;
    double yarn;
  };

  // Ten printed digits: half a unit of the last one is 5e-11 of the leading digit's power.
  const Row rows[] = {{0, 1.0, 1.0},
                      {10, 5.623413252e-2, 5.623413252e-2},
                      {11, 4.216965034e-2, 3.900692657e-2},
                      {16, 1.000000000e-2, 5.500000000e-3},
                      {22, 1.778279410e-3, 1.778279410e-4},
                      {23, 1.333521432e-3, 3.333803580e-5},
                      {31, 1.333521432e-4, 3.333803580e-6}};
  const std::vector<double> yarn = rope_inv_freq(v2_yarn(0.707));
  const std::vector<double> plain = rope_inv_freq({.dim = 64, .theta = 1e4});
  ASSERT_EQ(yarn.size(), 32u);
  for (const Row& row : rows) {
    EXPECT_NEAR(plain[row.pair] / row.plain, 1.0, 1e-9) << row.pair;
    EXPECT_NEAR(yarn[row.pair] / row.yarn, 1.0, 1e-9) << row.pair;
  }
}

TEST(Yarn, FactorOneLeavesPlainFrequencies) {
  RopeParameters rope = v2_yarn(1.0);
  rope.factor = 1.0;
  const std::vector<double> plain = rope_inv_freq({.dim = 64, .theta = 1e4});
  const std::vector<double> yarn = rope_inv_freq(rope);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_DOUBLE_EQ(yarn[i], plain[i]);
  EXPECT_EQ(rope_cos_sin_factor(rope), 1.0);
  EXPECT_EQ(rope_softmax_factor(rope), 1.0);
}

TEST(Rope, LinearDividesEveryFrequency) {
  const std::vector<double> plain = rope_inv_freq({.dim = 6, .theta = 1e6});
  const std::vector<double> linear = rope_inv_freq({.kind = RopeKind::kLinear, .dim = 6, .theta = 1e6, .factor = 4});
  ASSERT_EQ(plain.size(), 3u);
  EXPECT_NEAR(plain[1], 1e-2, 1e-15);
  EXPECT_NEAR(plain[2], 1e-4, 1e-17);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_DOUBLE_EQ(linear[i], plain[i] / 4.0);
}

TEST(Yarn, MscaleOfTheReleases) {
  EXPECT_EQ(yarn_mscale(1.0, 0.707), 1.0);
  EXPECT_EQ(yarn_mscale(0.5, 1.0), 1.0);
  EXPECT_EQ(yarn_mscale(40.0, 0.0), 1.0);
  EXPECT_NEAR(yarn_mscale(40.0, 0.707), 1.2608037774, 5e-11);
  EXPECT_NEAR(yarn_mscale(40.0, 1.0), 1.3688879454, 5e-11);
  EXPECT_NEAR(yarn_mscale(32.0, 1.0), 1.3465735903, 5e-11);
  EXPECT_NEAR(rope_softmax_factor(kimi_yarn(32)), 1.8132604340, 5e-11);
  EXPECT_NEAR(rope_softmax_factor(kimi_yarn(64)), 2.0047397017, 5e-11);
}

TEST(Yarn, SoftmaxScaleCarriesTheSquareOfG) {
  EXPECT_NEAR(softmax_scale(192, {.dim = 64}), 0.07216878365, 5e-12);
  EXPECT_NEAR(softmax_scale(192, v2_yarn(0.0)), 0.07216878365, 5e-12);
  EXPECT_NEAR(softmax_scale(192, v2_yarn(0.707)), 0.1147213868, 5e-11);
  EXPECT_NEAR(softmax_scale(192, v2_yarn(1.0)), 0.1352337789, 5e-11);
  EXPECT_NEAR(softmax_scale(192, v2_yarn(0.707)) * std::sqrt(192.0), 1.5896261651, 5e-11);
  // Linear interpolation has no temperature, whatever the unused fields say.
  RopeParameters linear = v2_yarn(1.0);
  linear.kind = RopeKind::kLinear;
  EXPECT_NEAR(softmax_scale(192, linear), 0.07216878365, 5e-12);
}

TEST(Yarn, CosSinFactorIsTheRatioOfBothScales) {
  EXPECT_EQ(rope_cos_sin_factor(v2_yarn(0.707)), 1.0);
  RopeParameters rope = v2_yarn(0.0);
  EXPECT_NEAR(rope_cos_sin_factor(rope), 1.3688879454, 5e-11);  // missing fields: mscale 1, mscale_all_dim 0
  rope.mscale = 0.707;
  EXPECT_NEAR(rope_cos_sin_factor(rope), 1.2608037774, 5e-11);
  rope.mscale_all_dim = 1.0;
  EXPECT_NEAR(rope_cos_sin_factor(rope), 1.2608037774 / 1.3688879454, 1e-10);
}

TEST(RopeTable, RoundsOnceFromDouble) {
  RopeParameters rope = v2_yarn(0.0);
  const RopeTable table = RopeTable::make(rope);
  ASSERT_EQ(table.pairs(), 32);
  ASSERT_EQ(table.dim(), 64);
  float cos[32], sin[32];
  table.cos_sin(163839, cos, sin);
  const std::vector<double> inv_freq = rope_inv_freq(rope);
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(cos[i], static_cast<float>(std::cos(163839.0 * inv_freq[i]) * table.cos_sin_factor()));
    EXPECT_EQ(sin[i], static_cast<float>(std::sin(163839.0 * inv_freq[i]) * table.cos_sin_factor()));
  }
  table.cos_sin(0, cos, sin);
  EXPECT_EQ(cos[5], static_cast<float>(table.cos_sin_factor()));
  EXPECT_EQ(sin[5], 0.0f);
}

TEST(RopeTable, TablePositionsGiveTheSameBits) {
  const RopeTable on_demand = RopeTable::make(v2_yarn(1.0));
  const RopeTable stored = RopeTable::make(v2_yarn(1.0), 100);
  const size_t size = 40 * 32;
  std::vector<float> cos_a(size), sin_a(size), cos_b(size), sin_b(size);
  on_demand.cos_sin_range(80, 40, cos_a, sin_a);  // crosses the end of the stored part
  stored.cos_sin_range(80, 40, cos_b, sin_b);
  testing::expect_same_bits(cos_b, cos_a);
  testing::expect_same_bits(sin_b, sin_a);
  float cos[32], sin[32];
  stored.cos_sin(119, cos, sin);
  testing::expect_same_bits(cos, std::span<const float>(cos_a).subspan(39 * 32));
  testing::expect_same_bits(sin, std::span<const float>(sin_a).subspan(39 * 32));
  on_demand.cos_sin_range(5, 0, {}, {});  // nothing asked, nothing written
}

}  // namespace
}  // namespace lathe
