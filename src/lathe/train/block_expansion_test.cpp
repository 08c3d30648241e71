// Deeper models: where their tensors come from, and that they compute what the shallower one does.
#include "lathe/train/block_expansion.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lathe/train/train_model.h"
#include "support/golden_file.h"

namespace lathe {
namespace {

using testing::golden_dir;

TEST(BlockExpansion, NamesTheLayerATensorComesFrom) {
  const Result<BlockExpansion> expansion = BlockExpansion::create({0, 2}, 4);  // 0 new 1 2 new 3, mtp
  ASSERT_TRUE(expansion) << expansion.error().message;
  constexpr std::pair<int64_t, int64_t> kFrom[] = {{0, 0}, {1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {6, 4}};
  for (const auto& [layer, from] : kFrom) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const BlockExpansion::Source norm = expansion->source(prefix + "input_layernorm.weight");
    EXPECT_EQ(norm.name, "model.layers." + std::to_string(from) + ".input_layernorm.weight");
    EXPECT_FALSE(norm.zero);
    for (const char* rest : {"self_attn.o_proj.weight",
                             "mlp.down_proj.weight",
                             "mlp.experts.3.down_proj.weight",
                             "mlp.shared_experts.down_proj.weight",
                             "self_attn.o_proj.bias"}) {
      EXPECT_EQ(expansion->source(prefix + rest).zero, layer == 1 || layer == 4) << prefix << rest;
    }
    for (const char* rest : {"mlp.experts.3.up_proj.weight", "mlp.gate.weight", "self_attn.kv_b_proj.weight"}) {
      EXPECT_FALSE(expansion->source(prefix + rest).zero) << prefix << rest;
    }
  }
  EXPECT_EQ(expansion->source("lm_head.weight").name, "lm_head.weight");
  EXPECT_EQ(expansion->added_to(0), 0);
  EXPECT_EQ(expansion->added_to(1), 1);
  EXPECT_EQ(expansion->added_to(2), 1);
  EXPECT_EQ(expansion->added_to(4), 2);
}

TEST(BlockExpansion, RefusesLayersThatAreNotThere) {
  const auto error_of = [](std::vector<int64_t> after) {
    const Result<BlockExpansion> expansion = BlockExpansion::create(std::move(after), 3);
    return expansion ? std::string() : expansion.error().message;
  };
  EXPECT_EQ(error_of({0, 1, 2}), "");
  EXPECT_EQ(error_of({3}), "expected ascending layers from 0 to 2, found 3");
  EXPECT_EQ(error_of({1, 1}), "expected ascending layers from 0 to 2, found 1");
  EXPECT_EQ(error_of({1, 0}), "expected ascending layers from 0 to 2, found 0");
}

// Of a model with dense layers and experts: the same logits to the last bit, and gradients for what is zero.
TEST(BlockExpansion, ComputesTheSame) {
  const std::filesystem::path folder = golden_dir() / "v2lite-tiny";
  const Result<ParsedConfig> parsed = load_config(folder);
  ASSERT_TRUE(parsed) << parsed.error().message;
  const Result<Checkpoint> checkpoint = Checkpoint::open(folder);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const std::unique_ptr<ThreadPool> pool = ThreadPool::create(2).value();
  const int64_t layers = parsed->config.num_hidden_layers;
  ASSERT_GE(layers, 2);
  ASSERT_EQ(parsed->config.first_k_dense_replace, 1);
  const Result<BlockExpansion> expansion = BlockExpansion::create({0, layers - 1}, layers);
  ASSERT_TRUE(expansion) << expansion.error().message;
  ModelConfig deeper = parsed->config;
  deeper.num_hidden_layers += 2;
  deeper.first_k_dense_replace += 1;

  const std::vector<int32_t> tokens{3, 14, 15, 92, 65, 35, 89, 79};
  PackedRows rows;
  rows.token_ids = tokens;
  rows.targets.assign(tokens.begin() + 1, tokens.end());
  rows.targets.push_back(kIgnoredTarget);
  rows.sequences = {0};
  rows.documents = {0};
  rows.sequence_ids = {0};
  std::vector<std::vector<float>> logits;
  for (const bool expanded : {false, true}) {
    Result<std::unique_ptr<TrainModel>> model =
        TrainModel::create(expanded ? deeper : parsed->config, {.max_tokens = 16}, *pool, kernels());
    ASSERT_TRUE(model) << model.error().message;
    const Status loaded = (*model)->load(*checkpoint, expanded ? *expansion : BlockExpansion());
    ASSERT_TRUE(loaded) << loaded.error().message;
    logits.emplace_back(tokens.size() * static_cast<size_t>(deeper.vocab_size));
    (*model)->logits(rows.batch(), logits.back().data());
    if (!expanded) continue;
    (*model)->forward_backward(rows.batch(), 1.0);
    ParameterSet& parameters = (*model)->parameters();
    for (const char* name : {"model.layers.1.self_attn.o_proj.weight", "model.layers.1.mlp.down_proj.weight"}) {
      const int64_t index = parameters.find(name);
      ASSERT_GE(index, 0) << name;
      EXPECT_TRUE(std::ranges::all_of(parameters.values(index), [](float v) { return v == 0.0F; })) << name;
      EXPECT_TRUE(std::ranges::any_of(parameters.gradients(index), [](float v) { return v != 0.0F; })) << name;
    }
  }
  EXPECT_EQ(logits[0], logits[1]);
}

}  // namespace
}  // namespace lathe
