// Position embedding of real configurations, and the golden tables (float64, made outside this project).
#include "lathe/model/config_rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "lathe/base/str.h"
#include "lathe/formats/checkpoint.h"
#include "support/golden.h"

namespace lathe {
namespace {

ModelConfig fixture(std::string_view name) {
  Result<ParsedConfig> parsed = load_config(testing::golden_dir() / "configs" / str(name, ".json"));
  EXPECT_TRUE(parsed.has_value()) << (parsed ? "" : parsed.error().message);
  return parsed ? parsed->config : ModelConfig{};
}

TEST(ConfigRope, ScaleOfTheReleases) {
  // Trap T1: V2-Lite's score scale is 1.5896261651 / sqrt(192).
  EXPECT_NEAR(attention_scale(fixture("deepseek-v2-lite")) * std::sqrt(192.0), 1.5896261651, 5e-11);
  EXPECT_NEAR(attention_scale(fixture("deepseek-v3")), 0.1352337789, 5e-11);
  EXPECT_NEAR(attention_scale(fixture("moonlight-16b-a3b")), 0.07216878365, 5e-12);
  EXPECT_NEAR(attention_scale(fixture("kimi-k2")) * std::sqrt(192.0), 1.8132604340, 5e-11);
  EXPECT_NEAR(attention_scale(fixture("deepseek-llm-67b")), 1.0 / std::sqrt(128.0), 1e-15);
  EXPECT_NEAR(attention_scale(fixture("deepseek-moe-16b")), 1.0 / std::sqrt(128.0), 1e-15);
}

TEST(ConfigRope, ParametersOfTheReleases) {
  const RopeParameters v2 = rope_parameters(fixture("deepseek-v2"));
  EXPECT_EQ(v2.kind, RopeKind::kYarn);
  EXPECT_EQ(v2.dim, 64);
  EXPECT_EQ(v2.factor, 40.0);
  EXPECT_EQ(v2.original_max_position_embeddings, 4096.0);
  EXPECT_EQ(rope_cos_sin_factor(v2), 1.0);
  const YarnBounds kimi = yarn_bounds(rope_parameters(fixture("kimi-k2")));
  EXPECT_EQ(kimi.low, 19.0);
  EXPECT_EQ(kimi.high, 20.0);
  const RopeParameters moonlight = rope_parameters(fixture("moonlight-16b-a3b"));
  EXPECT_EQ(moonlight.kind, RopeKind::kPlain);
  EXPECT_EQ(moonlight.theta, 5e4);
  EXPECT_EQ(rope_parameters(fixture("deepseek-llm-7b")).dim, 128);
}

TEST(ConfigRope, PlainAttentionPutsTheTemperatureOnCosAndSin) {
  ModelConfig config = fixture("deepseek-llm-7b");
  config.rope_scaling = {.type = RopeScalingType::kYarn, .factor = 40, .original_max_position_embeddings = 4096};
  EXPECT_NEAR(rope_cos_sin_factor(rope_parameters(config)), 1.3688879454, 5e-11);
  EXPECT_NEAR(attention_scale(config), 1.0 / std::sqrt(128.0), 1e-15);
  config.rope_scaling.mscale = 0.707;  // alone it counts for nothing here (trap T11)
  EXPECT_NEAR(rope_cos_sin_factor(rope_parameters(config)), 1.3688879454, 5e-11);
  config.rope_scaling.mscale_all_dim = 1.0;
  EXPECT_NEAR(rope_cos_sin_factor(rope_parameters(config)), 1.2608037774 / 1.3688879454, 1e-10);
  EXPECT_NEAR(attention_scale(config), 1.0 / std::sqrt(128.0), 1e-15);

  config.rope_scaling = {.type = RopeScalingType::kLinear, .factor = 4};
  EXPECT_EQ(rope_parameters(config).kind, RopeKind::kLinear);
  EXPECT_EQ(rope_parameters(config).factor, 4.0);
}

template <class T>
std::vector<T> values(const SafetensorsFile& file, std::string_view name) {
  const StoredTensor* tensor = file.find(name);
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) return {};
  std::vector<T> out(tensor->bytes.size() / sizeof(T));
  std::memcpy(out.data(), tensor->bytes.data(), out.size() * sizeof(T));
  return out;
}

struct GoldenCase {
  const char* name;
  RopeParameters rope;
  double softmax_multiplier;
};

std::vector<GoldenCase> golden_cases() {
  const RopeParameters v2{.kind = RopeKind::kYarn,
                          .dim = 64,
                          .theta = 1e4,
                          .factor = 40,
                          .original_max_position_embeddings = 4096,
                          .mscale = 1.0,
                          .mscale_all_dim = 1.0};
  RopeParameters lite = v2;
  lite.mscale = lite.mscale_all_dim = 0.707;
  RopeParameters mscale_only = lite;
  mscale_only.mscale_all_dim = 0.0;
  RopeParameters small = lite;
  small.dim = 16;
  small.original_max_position_embeddings = 64;
  return {{"v2", v2, 1.8738542070926265},
          {"v2lite", lite, 1.5896261651208736},
          {"mscale_only", mscale_only, 1.0},
          {"small", small, 1.5896261651208736}};
}

TEST(ConfigRope, GoldenTables) {
  const Result<SafetensorsFile> file = SafetensorsFile::open(testing::golden_dir() / "ops" / "yarn.safetensors");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  const std::vector<int64_t> positions = values<int64_t>(*file, "positions");
  ASSERT_EQ(positions.size(), 27u);
  for (const GoldenCase& c : golden_cases()) {
    SCOPED_TRACE(c.name);
    const size_t pairs = static_cast<size_t>(c.rope.dim / 2);
    const std::vector<double> inv_freq = values<double>(*file, str(c.name, ".inv_freq"));
    const std::vector<double> cos = values<double>(*file, str(c.name, ".cos"));
    const std::vector<double> sin = values<double>(*file, str(c.name, ".sin"));
    ASSERT_EQ(inv_freq.size(), pairs);
    ASSERT_EQ(cos.size(), positions.size() * pairs);
    ASSERT_EQ(sin.size(), positions.size() * pairs);
    EXPECT_NEAR(rope_softmax_factor(c.rope), c.softmax_multiplier, 1e-14);

    const RopeTable table = RopeTable::make(c.rope);
    std::vector<float> row_cos(pairs), row_sin(pairs);
    for (size_t i = 0; i < pairs; ++i) EXPECT_NEAR(table.inv_freq()[i] / inv_freq[i], 1.0, 1e-12);
    for (size_t p = 0; p < positions.size(); ++p) {
      table.cos_sin(positions[p], row_cos.data(), row_sin.data());
      for (size_t i = 0; i < pairs; ++i) {
        const double angle = static_cast<double>(positions[p]) * table.inv_freq()[i];
        EXPECT_NEAR(std::cos(angle) * table.cos_sin_factor(), cos[p * pairs + i], 1e-9);
        EXPECT_NEAR(std::sin(angle) * table.cos_sin_factor(), sin[p * pairs + i], 1e-9);
        // One rounding to float of a value up to 1.27.
        EXPECT_NEAR(row_cos[i], cos[p * pairs + i], 6.1e-8) << positions[p] << ", " << i;
        EXPECT_NEAR(row_sin[i], sin[p * pairs + i], 6.1e-8) << positions[p] << ", " << i;
      }
    }
  }
}

TEST(ConfigRope, GoldenRotationOfInterleavedPairs) {
  const Result<SafetensorsFile> file = SafetensorsFile::open(testing::golden_dir() / "ops" / "yarn.safetensors");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  const std::vector<int64_t> positions = values<int64_t>(*file, "positions");
  for (const GoldenCase& c : golden_cases()) {
    SCOPED_TRACE(c.name);
    const std::vector<float> x = values<float>(*file, str(c.name, ".rope_x"));
    const std::vector<float> y = values<float>(*file, str(c.name, ".rope_y_interleaved"));
    const size_t dim = static_cast<size_t>(c.rope.dim);
    ASSERT_EQ(x.size(), positions.size() * 3 * dim);
    ASSERT_EQ(y.size(), x.size());
    const RopeTable table = RopeTable::make(c.rope);
    std::vector<float> cos(dim / 2), sin(dim / 2);
    for (size_t row = 0; row < positions.size() * 3; ++row) {
      table.cos_sin(positions[row / 3], cos.data(), sin.data());
      for (size_t i = 0; i < dim / 2; ++i) {
        const double even = x[row * dim + 2 * i], odd = x[row * dim + 2 * i + 1];
        const double tolerance = 2e-7 * (std::fabs(even) + std::fabs(odd));
        EXPECT_NEAR(even * cos[i] - odd * sin[i], y[row * dim + 2 * i], tolerance);
        EXPECT_NEAR(even * sin[i] + odd * cos[i], y[row * dim + 2 * i + 1], tolerance);
      }
    }
  }
}

}  // namespace
}  // namespace lathe
