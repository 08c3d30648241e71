#include "lathe/model/synthetic_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <set>

#include "lathe/model/decoder.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

std::unique_ptr<const ModelWeights> make(const ModelConfig& config,
                                         std::optional<QuantType> type = {},
                                         uint64_t seed = 1,
                                         int threads = 2) {
  const auto pool = ThreadPool::create(threads).value();
  auto weights = synthetic_weights(config, type, seed, *pool);
  EXPECT_TRUE(weights.has_value()) << (weights ? "" : weights.error().message);
  return weights ? std::move(*weights) : nullptr;
}

ModelConfig config_of(const Json& json) {
  return parse_config(json).value().config;
}

// A shape whose columns are whole blocks of every format.
Json block_config() {
  Json json = testing::tiny_v2_config();
  for (const auto& [name, value] : {std::pair{"hidden_size", 256},
                                    {"intermediate_size", 512},
                                    {"moe_intermediate_size", 256},
                                    {"q_lora_rank", 256},
                                    {"kv_lora_rank", 256},
                                    {"qk_nope_head_dim", 64},
                                    {"v_head_dim", 64},
                                    {"num_attention_heads", 4},
                                    {"num_key_value_heads", 4}}) {
    json.set(name, value);
  }
  return json;
}

TEST(SyntheticWeights, EveryArchitectureRunsWithFiniteLogits) {
  for (const Json& json : {testing::tiny_v2_config(), testing::tiny_v3_config(), testing::tiny_llama_config()}) {
    const ModelConfig config = config_of(json);
    const auto weights = make(config);
    ASSERT_NE(weights, nullptr);
    EXPECT_TRUE(weights->unused_tensors().empty());
    EXPECT_TRUE(weights->warnings().empty());
    const auto forward = testing::forward_on_cpu(*weights, testing::random_ids(config, 20, 5));
    std::set<float> distinct;
    for (const float logit : forward.logits) {
      ASSERT_TRUE(std::isfinite(logit));
      distinct.insert(logit);
    }
    EXPECT_GT(distinct.size(), 100u);
  }
}

TEST(SyntheticWeights, ASeedFixesThemWhateverThePool) {
  const ModelConfig config = config_of(testing::tiny_v2_config());
  const std::vector<int32_t> ids = testing::random_ids(config, 5, 5);
  const auto logits = [&](uint64_t seed, int threads) {
    return testing::forward_on_cpu(*make(config, {}, seed, threads), ids).logits;
  };
  EXPECT_EQ(logits(3, 1), logits(3, 2));
  EXPECT_NE(logits(3, 1), logits(4, 1));
}

TEST(SyntheticWeights, RoutingIsNearlyUniform) {
  Json json = block_config();
  json.set("vocab_size", 2000);
  const ModelConfig config = config_of(json);
  for (const std::optional<QuantType> type : {std::optional<QuantType>(), std::optional(QuantType::kQ8_0)}) {
    const auto weights = make(config, type);
    ASSERT_NE(weights, nullptr);
    const auto forward = testing::forward_on_cpu(*weights, testing::random_ids(config, 400, 5));
    for (const MoeTrace& layer : forward.trace.routing) {
      if (layer.experts.empty()) continue;
      std::vector<int64_t> loads(static_cast<size_t>(config.n_routed_experts));
      for (const int32_t expert : layer.experts) ++loads[static_cast<size_t>(expert)];
      const auto mean = static_cast<double>(layer.experts.size()) / static_cast<double>(loads.size());
      // 400 tokens, 150 to an expert: chance alone gives about 10 %, random scores of groups some more.
      for (const int64_t load : loads) {
        EXPECT_GT(static_cast<double>(load), 0.6 * mean);
        EXPECT_LT(static_cast<double>(load), 1.4 * mean);
      }
      // And the next token has other experts: as many the same as chance says, K K / N_r, or a few more.
      const auto chosen = static_cast<size_t>(config.num_experts_per_tok);
      int64_t same = 0;
      for (size_t i = chosen; i < layer.experts.size(); ++i) {
        const auto before = layer.experts.begin() + static_cast<std::ptrdiff_t>(i / chosen * chosen - chosen);
        same += std::count(before, before + static_cast<std::ptrdiff_t>(chosen), layer.experts[i]);
      }
      EXPECT_LT(static_cast<double>(same), 1.35 * mean * static_cast<double>(chosen));
    }
  }
}

TEST(SyntheticWeights, ATypePutsTheMatricesIntoPanels) {
  const ModelConfig config = config_of(block_config());
  const auto plain = make(config);
  for (const QuantType type : {QuantType::kQ8_0, QuantType::kQ4_K_M}) {
    const auto weights = make(config, type);
    ASSERT_NE(weights, nullptr);
    ASSERT_NE(weights->packed(), nullptr);
    const WeightMatrix& down = weights->layers().back().moe.experts.front().down_proj;
    EXPECT_TRUE(down.packed);
    EXPECT_TRUE(is_block_format(down.dtype));
    EXPECT_LT(weights->stored_bytes(), plain->stored_bytes());
    const auto pool = ThreadPool::create(1).value();
    const uint64_t planned = synthetic_weight_bytes(config, type).value();
    EXPECT_GE(planned, weights->stored_bytes());
    EXPECT_LT(planned, weights->stored_bytes() + 4096);
    const auto forward = testing::forward_on_cpu(*weights, testing::random_ids(config, 6, 5));
    for (const float logit : forward.logits) ASSERT_TRUE(std::isfinite(logit));
  }
}

}  // namespace
}  // namespace lathe
