#include "lathe/model/memory_plan.h"

#include <gtest/gtest.h>

#include "lathe/base/str.h"
#include "support/golden.h"

namespace lathe {
namespace {

ModelConfig fixture(std::string_view name) {
  Result<ParsedConfig> parsed = load_config(testing::golden_dir() / "configs" / str(name, ".json"));
  EXPECT_TRUE(parsed.has_value()) << (parsed ? "" : parsed.error().message);
  return parsed ? parsed->config : ModelConfig{};
}

MemoryPlan planned(const ModelConfig& config, const MemoryPlanInput& input) {
  const Result<MemoryPlan> plan = plan_memory(config, input);
  EXPECT_TRUE(plan.has_value()) << (plan ? "" : plan.error().message);
  return plan ? *plan : MemoryPlan{};
}

std::string failure(const MemoryPlanInput& input, Errc code) {
  const Result<MemoryPlan> plan = plan_memory(fixture("deepseek-v2-lite"), input);
  if (plan) return "accepted";
  EXPECT_EQ(plan.error().code, code);
  return plan.error().message;
}

TEST(MemoryPlan, WeightsFollowFromTheConfig) {
  ModelConfig lite = fixture("deepseek-v2-lite");
  EXPECT_EQ(assumed_weight_bytes(lite), 2u * 15706484224u);
  lite.dtype = "float32";
  EXPECT_EQ(assumed_weight_bytes(lite), 4u * 15706484224u);
  // The correction biases of noaux_tc stay F32: 26 layers of 64.
  EXPECT_EQ(assumed_weight_bytes(fixture("moonlight-16b-a3b")), 2u * 15960110208u + 2u * 26 * 64);
}

TEST(MemoryPlan, Fp8WeightsAreOneByteAndScales) {
  const ModelConfig v3 = fixture("deepseek-v3");
  // Wide: embedding and head, norms, routers; F32: correction biases. Everything else is one byte per element.
  const uint64_t head = 2ull * 129280 * 7168;
  const uint64_t norms = 61ull * (2 * 7168 + 1536 + 512) + 7168;
  const uint64_t routers = 58ull * 256 * 7168;
  const uint64_t biases = 58ull * 256;
  const uint64_t narrow = 671026419200ull - head - norms - routers - biases;
  // Scales per layer: q_a 12x56, q_b 192x12, kv_a 5x56 (ragged), kv_b 256x4, o 56x128; SwiGLU 3 * width/128 * 56.
  const uint64_t attention = 12 * 56 + 192 * 12 + 5 * 56 + 256 * 4 + 56 * 128;
  const uint64_t scales = 61 * attention + 3ull * 3 * 144 * 56 + 58ull * 257 * 3 * 16 * 56;
  EXPECT_EQ(assumed_weight_bytes(v3), narrow + 2 * (head + norms + routers) + 4 * biases + 4 * scales);
}

TEST(MemoryPlan, CacheGrowsByWholePages) {
  const ModelConfig v2 = fixture("deepseek-v2");
  // The paper's figures: 34,560 elements per token; 25,920 bytes at six bits.
  EXPECT_EQ(planned(v2, {.context = 64, .weight_bytes = 0}).cache, 64u * 34560 * 2);
  EXPECT_EQ(planned(v2, {.context = 65, .weight_bytes = 0}).cache, 128u * 34560 * 2);
  EXPECT_EQ(planned(v2, {.context = 131072, .cache_format = CacheFormat::kQ6, .weight_bytes = 0}).cache,
            131072ull * 25920);
  EXPECT_EQ(planned(v2, {.context = 65, .cache_page_tokens = 1, .weight_bytes = 0}).cache, 65u * 34560 * 2);
}

TEST(MemoryPlan, StoredSizesOverrideTheAssumptions) {
  const ModelConfig v2 = fixture("deepseek-v2");
  const MemoryPlan plan = planned(v2, {.context = 64, .weight_bytes = 1000, .scratch_floats = 25});
  EXPECT_EQ(plan.weights, 1000u);
  EXPECT_EQ(plan.scratch, 100u);
  EXPECT_EQ(plan.total, 1000u + 100u + plan.cache);
}

TEST(MemoryPlan, ScratchFormula) {
  // v2-tiny: d 80, H 4, d_n 16, d_r 32, d_v 24, r 32, r_q 40, d_f 176, d_e 32, N_r 16, N_s 2, K 3, V 320.
  const Result<ParsedConfig> tiny = load_config(testing::golden_dir() / "v2-tiny");
  ASSERT_TRUE(tiny.has_value()) << tiny.error().message;
  const int64_t moe = 16 + 3 * (64 + 80) + 2 * 2 * 32;
  const int64_t token = 3 * 80 + 4 * 48 + 2 * 4 * 64 + 4 * 24 + 40 + 64 + moe;
  const int64_t thread = 64 * (16 + 32 + 24) + 2 * 4 * 64;
  EXPECT_GT(moe, 2 * 176);
  EXPECT_EQ(scratch_floats(tiny->config, {.max_batch_tokens = 10, .threads = 3}), 10 * token + 3 * thread + 2 * 320);
  // llama-gqa-tiny: d 128, H 8, n_kv 2, d_h 16, d_f 344, V 352.
  const Result<ParsedConfig> gqa = load_config(testing::golden_dir() / "llama-gqa-tiny");
  ASSERT_TRUE(gqa.has_value()) << gqa.error().message;
  const int64_t gqa_token = 3 * 128 + 2 * 128 + 2 * 32 + 2 * 344;
  EXPECT_EQ(scratch_floats(gqa->config, {.max_batch_tokens = 7}), 7 * gqa_token + 64 * 32 + 2 * 8 * 64 + 2 * 352);
}

TEST(MemoryPlan, InputsOutOfRangeAreNamed) {
  const Errc invalid = Errc::kInvalidArgument;
  EXPECT_EQ(failure({.context = 0}, invalid), "context: expected from 1 to 2147483648, found 0");
  EXPECT_EQ(failure({.cache_page_tokens = 0}, invalid), "cache page: expected from 1 to 65536, found 0");
  EXPECT_EQ(failure({.max_batch_tokens = -1}, invalid), "batch tokens: expected from 1 to 1048576, found -1");
  EXPECT_EQ(failure({.threads = 5000}, invalid), "threads: expected from 1 to 4096, found 5000");
  EXPECT_EQ(failure({.scratch_floats = -1}, invalid), "scratch floats: expected at least 0, found -1");
}

TEST(MemoryPlan, SizesBeyondTheRangeAreRefusedNotWrapped) {
  const Errc full = Errc::kResourceExhausted;
  EXPECT_EQ(failure({.scratch_floats = INT64_MAX}, full), "scratch: expected a size below 2^63 bytes, found more");
  EXPECT_EQ(failure({.weight_bytes = UINT64_MAX}, full), "total: expected a size below 2^63 bytes, found more");
  ModelConfig wide = fixture("deepseek-llm-67b");
  wide.num_key_value_heads = 4096;
  wide.head_dim = 65536;
  wide.num_hidden_layers = 4000;
  const Result<MemoryPlan> plan =
      plan_memory(wide, {.context = int64_t{1} << 31, .cache_format = CacheFormat::kF32, .weight_bytes = 0});
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().message, "cache: expected a size below 2^63 bytes, found more");
}

}  // namespace
}  // namespace lathe
