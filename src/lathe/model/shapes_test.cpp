// Tensor lists, parameter counts and cache sizes against the printed figures of the releases.
#include "lathe/model/shapes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "lathe/base/str.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/model/mtp.h"
#include "lathe/model/shapes_counts.h"
#include "support/golden.h"

namespace lathe {
namespace {

ModelConfig load(const std::filesystem::path& path) {
  Result<ParsedConfig> parsed = load_config(path);
  EXPECT_TRUE(parsed.has_value()) << (parsed ? "" : parsed.error().message);
  return parsed ? parsed->config : ModelConfig{};
}

ModelConfig fixture(std::string_view name) {
  return load(testing::golden_dir() / "configs" / str(name, ".json"));
}

int64_t stored_elements(const ModelConfig& config) {
  int64_t sum = 0;
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    int64_t elements = 1;
    for (const int64_t extent : tensor.shape) elements *= extent;
    if (!tensor.optional) sum += elements;
  }
  return sum;
}

std::map<std::string, ExpectedTensor> by_name(const ModelConfig& config) {
  std::map<std::string, ExpectedTensor> out;
  for (ExpectedTensor& tensor : expected_tensors(config)) {
    const std::string name = tensor.name;
    EXPECT_TRUE(out.emplace(name, std::move(tensor)).second) << "twice: " << name;
  }
  return out;
}

struct Figures {
  const char* name;
  int64_t total;
  int64_t active_without_head;
  int64_t active;
  int64_t active_with_embedding;
};

TEST(Shapes, ParameterCountsOfTheReleases) {
  const Figures all[] = {
      {"deepseek-v2", 235741434880, 20327224320, 20851512320, 21375800320},
      {"deepseek-v2-lite", 15706484224, 2241719808, 2451435008, 2661150208},
      {"deepseek-v3", 671026419200, 35698939392, 36625618432, 37552297472},
      {"moonlight-16b-a3b", 15960110208, 2243687552, 2579231872, 2914776192},
      {"kimi-k2", 1026408232448, 30512690688, 31687095808, 32861500928},
      {"deepseek-moe-16b", 16375728128, 2409220096, 2618935296, 2828650496},
      {"deepseek-v2-lite-mha", 15787866112, 2323101696, 2532816896, 2742532096},
  };
  for (const Figures& figures : all) {
    SCOPED_TRACE(figures.name);
    const ModelConfig config = fixture(figures.name);
    const ParameterCounts counts = count_parameters(config);
    EXPECT_EQ(counts.total, figures.total);
    EXPECT_EQ(counts.active_without_head, figures.active_without_head);
    EXPECT_EQ(counts.active, figures.active);
    EXPECT_EQ(counts.active_with_embedding, figures.active_with_embedding);
    EXPECT_EQ(stored_elements(config), figures.total);
  }
  EXPECT_EQ(count_parameters(fixture("deepseek-llm-7b")).total, 6910365696);
  EXPECT_EQ(count_parameters(fixture("deepseek-llm-67b")).total, 67425001472);
  EXPECT_EQ(stored_elements(fixture("deepseek-llm-67b")), 67425001472);
}

TEST(Shapes, AttentionParametersPerLayer) {
  EXPECT_EQ(count_parameters(fixture("deepseek-v2")).attention_per_layer, 149227520);
  EXPECT_EQ(count_parameters(fixture("deepseek-v2-lite")).attention_per_layer, 13763072);
  EXPECT_EQ(count_parameters(fixture("deepseek-v3")).attention_per_layer, 187107328);
  EXPECT_EQ(count_parameters(fixture("kimi-k2")).attention_per_layer, 101124096);
}

TEST(Shapes, DenseModelsAreWhollyActive) {
  const ParameterCounts counts = count_parameters(fixture("deepseek-llm-7b"));
  EXPECT_EQ(counts.active_with_embedding, counts.total);
  EXPECT_EQ(counts.total - counts.active, int64_t{102400} * 4096);
}

TEST(Shapes, TensorCountsOfTheReleases) {
  EXPECT_EQ(expected_tensors(fixture("deepseek-v2-lite")).size(), 5291u);
  EXPECT_EQ(expected_tensors(fixture("deepseek-v2")).size(), 29102u);
  const std::vector<ExpectedTensor> v3 = expected_tensors(fixture("deepseek-v3"));
  const auto scales = std::count_if(v3.begin(), v3.end(), [](const ExpectedTensor& t) { return t.quantisable; });
  // 91,991 tensors in the FP8 release, 1,564 of them in the MTP layer.
  EXPECT_EQ(v3.size() + static_cast<size_t>(scales), 91991u - 1564u);
}

TEST(Shapes, NamesAndShapes) {
  const std::map<std::string, ExpectedTensor> v2 = by_name(fixture("deepseek-v2"));
  using Shape = std::vector<int64_t>;
  const auto shape = [](const std::map<std::string, ExpectedTensor>& tensors, const std::string& name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? Shape{} : found->second.shape;
  };
  EXPECT_EQ(shape(v2, "model.embed_tokens.weight"), (Shape{102400, 5120}));
  EXPECT_EQ(shape(v2, "model.layers.0.self_attn.q_a_proj.weight"), (Shape{1536, 5120}));
  EXPECT_EQ(shape(v2, "model.layers.0.self_attn.q_a_layernorm.weight"), (Shape{1536}));
  EXPECT_EQ(shape(v2, "model.layers.0.self_attn.q_b_proj.weight"), (Shape{24576, 1536}));
  EXPECT_EQ(shape(v2, "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"), (Shape{576, 5120}));
  EXPECT_EQ(shape(v2, "model.layers.0.self_attn.kv_b_proj.weight"), (Shape{32768, 512}));
  EXPECT_EQ(shape(v2, "model.layers.0.self_attn.o_proj.weight"), (Shape{5120, 16384}));
  EXPECT_EQ(shape(v2, "model.layers.0.mlp.gate_proj.weight"), (Shape{12288, 5120}));
  EXPECT_EQ(shape(v2, "model.layers.1.mlp.gate.weight"), (Shape{160, 5120}));
  EXPECT_EQ(shape(v2, "model.layers.59.mlp.experts.159.down_proj.weight"), (Shape{5120, 1536}));
  EXPECT_EQ(shape(v2, "model.layers.59.mlp.shared_experts.up_proj.weight"), (Shape{3072, 5120}));
  EXPECT_EQ(shape(v2, "lm_head.weight"), (Shape{102400, 5120}));
  EXPECT_EQ(v2.count("model.layers.1.mlp.gate.e_score_correction_bias"), 0u);
  EXPECT_EQ(v2.count("model.layers.60.input_layernorm.weight"), 0u);

  const std::map<std::string, ExpectedTensor> lite = by_name(fixture("deepseek-v2-lite"));
  EXPECT_EQ(shape(lite, "model.layers.3.self_attn.q_proj.weight"), (Shape{3072, 2048}));
  EXPECT_EQ(lite.count("model.layers.3.self_attn.q_a_proj.weight"), 0u);

  const std::map<std::string, ExpectedTensor> v3 = by_name(fixture("deepseek-v3"));
  EXPECT_EQ(shape(v3, "model.layers.3.mlp.gate.e_score_correction_bias"), (Shape{256}));
  EXPECT_FALSE(v3.at("model.layers.3.mlp.gate.weight").quantisable);
  EXPECT_FALSE(v3.at("lm_head.weight").quantisable);
  EXPECT_TRUE(v3.at("model.layers.3.self_attn.kv_b_proj.weight").quantisable);
  EXPECT_TRUE(v3.at("model.layers.3.mlp.experts.0.gate_proj.weight").quantisable);

  const std::map<std::string, ExpectedTensor> gqa = by_name(fixture("deepseek-llm-67b"));
  EXPECT_EQ(shape(gqa, "model.layers.94.self_attn.k_proj.weight"), (Shape{1024, 8192}));
}

TEST(Shapes, TiedHeadIsAbsentAndCountedOnce) {
  ModelConfig config = fixture("deepseek-llm-7b");
  config.tie_word_embeddings = true;
  EXPECT_EQ(by_name(config).count("lm_head.weight"), 0u);
  const ParameterCounts counts = count_parameters(config);
  EXPECT_EQ(counts.total, 6910365696 - int64_t{102400} * 4096);
  EXPECT_EQ(counts.total, stored_elements(config));
  EXPECT_EQ(counts.active, counts.total);
  EXPECT_EQ(counts.active_with_embedding, counts.total);
}

TEST(Shapes, BiasesAndMissingLatentNorms) {
  ModelConfig mla = fixture("deepseek-v2");
  mla.attention_bias = true;
  std::map<std::string, ExpectedTensor> tensors = by_name(mla);
  EXPECT_EQ(tensors.at("model.layers.0.self_attn.q_a_proj.bias").shape, std::vector<int64_t>{1536});
  EXPECT_EQ(tensors.at("model.layers.0.self_attn.kv_a_proj_with_mqa.bias").shape, std::vector<int64_t>{576});
  EXPECT_EQ(tensors.at("model.layers.0.self_attn.o_proj.bias").shape, std::vector<int64_t>{5120});
  EXPECT_FALSE(tensors.at("model.layers.0.self_attn.o_proj.bias").optional);
  EXPECT_FALSE(tensors.at("model.layers.0.self_attn.o_proj.bias").quantisable);
  EXPECT_TRUE(tensors.at("model.layers.0.self_attn.q_b_proj.bias").optional);
  EXPECT_EQ(tensors.count("model.layers.0.self_attn.kv_b_proj.bias"), 0u);
  EXPECT_EQ(count_parameters(mla).total, stored_elements(mla));

  ModelConfig lite = fixture("deepseek-v2-lite");
  lite.attention_bias = true;
  lite.qk_latent_layernorm = false;
  tensors = by_name(lite);
  EXPECT_TRUE(tensors.at("model.layers.0.self_attn.q_proj.bias").optional);
  EXPECT_EQ(tensors.count("model.layers.0.self_attn.kv_a_layernorm.weight"), 0u);
  EXPECT_EQ(count_parameters(lite).total, stored_elements(lite));

  ModelConfig gqa = fixture("deepseek-llm-67b");
  gqa.attention_bias = true;
  EXPECT_FALSE(by_name(gqa).at("model.layers.0.self_attn.q_proj.bias").optional);
  EXPECT_EQ(by_name(gqa).at("model.layers.0.self_attn.v_proj.bias").shape, std::vector<int64_t>{1024});
  EXPECT_EQ(count_parameters(gqa).total, stored_elements(gqa));
}

// The stored golden checkpoints hold exactly what is expected of them, apart from scales and the MTP layer's copies.
TEST(Shapes, GoldenCheckpointsHoldExactlyTheExpectedTensors) {
  for (const std::string_view name : {"v2lite-tiny",
                                      "v2-tiny",
                                      "v3-tiny",
                                      "v3-tiny-fp8",
                                      "llama-gqa-tiny",
                                      "llama-mha-tiny",
                                      "llama-mqa-tiny",
                                      "deepseek-moe-tiny"}) {
    SCOPED_TRACE(name);
    const std::filesystem::path folder = testing::golden_dir() / name;
    const ModelConfig config = load(folder);
    const Result<Checkpoint> checkpoint = Checkpoint::open(folder);
    ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
    std::set<std::string> expected;
    for (const ExpectedTensor& tensor : expected_tensors(config)) {
      const StoredTensor* stored = checkpoint->find(tensor.name);
      ASSERT_NE(stored, nullptr) << tensor.name;
      EXPECT_EQ(stored->shape, tensor.shape) << tensor.name;
      EXPECT_EQ(stored->dtype == DType::kF8E4M3, config.fp8 && tensor.quantisable) << tensor.name;
      expected.insert(tensor.name);
    }
    const std::string mtp = str("model.layers.", config.num_hidden_layers, ".");
    for (const ExpectedTensor& tensor : expected_mtp_tensors(config)) {
      const StoredTensor* stored = checkpoint->find(tensor.name);
      ASSERT_NE(stored, nullptr) << tensor.name;
      EXPECT_EQ(stored->shape, tensor.shape) << tensor.name;
      expected.insert(tensor.name);
    }
    for (const StoredTensor* stored : checkpoint->tensors()) {
      if (stored->name.ends_with("_scale_inv")) continue;
      if (stored->name == mtp + "embed_tokens.weight" || stored->name == mtp + "shared_head.head.weight") continue;
      EXPECT_EQ(expected.count(stored->name), 1u) << stored->name;
    }
  }
}

TEST(Caches, FiguresOfThePaper) {
  const CacheComparison v2 = compare_caches(fixture("deepseek-v2"));
  EXPECT_EQ(v2.elements_per_token, 34560);
  EXPECT_EQ(v2.mha_elements_per_token, 1966080);
  EXPECT_EQ(v2.gqa8_elements_per_token, 122880);
  EXPECT_EQ(v2.mqa_elements_per_token, 15360);
  EXPECT_EQ(v2.equivalent_gqa_groups, 2.25);

  const CacheComparison lite = compare_caches(fixture("deepseek-v2-lite"));
  EXPECT_EQ(lite.elements_per_token, 15552);
  EXPECT_EQ(lite.mha_elements_per_token, 110592);
  EXPECT_EQ(compare_caches(fixture("deepseek-v2-lite-mha")).elements_per_token, 110592);

  const CacheComparison dense = compare_caches(fixture("deepseek-llm-67b"));
  EXPECT_EQ(dense.elements_per_token, 194560);
  EXPECT_EQ(dense.gqa8_elements_per_token, 194560);
  EXPECT_EQ(dense.equivalent_gqa_groups, 8.0);

  // Table 9, large model with MHA: 860.2K elements are 56 heads of 128 in 60 layers.
  ModelConfig large = fixture("deepseek-llm-67b");
  large.num_hidden_layers = 60;
  large.num_attention_heads = large.num_key_value_heads = 56;
  EXPECT_EQ(compare_caches(large).elements_per_token, 860160);
}

TEST(CheckedSum, RemembersOverflow) {
  EXPECT_EQ(CheckedSum().add({2, 3}).add({4}).value(), 10);
  EXPECT_EQ(CheckedSum().add({INT64_MAX}).value(), INT64_MAX);
  EXPECT_EQ(CheckedSum().add({INT64_MAX}).add({1}).value(), std::nullopt);
  EXPECT_EQ(CheckedSum().add({INT64_MAX, 2}).value(), std::nullopt);
  EXPECT_EQ(CheckedSum().add({INT64_MAX, 2, 0}).value(), std::nullopt);  // once overflowed, always
  const CheckedSum half = CheckedSum().add({INT64_MAX / 2});
  EXPECT_EQ(CheckedSum().add(half, 2).value(), INT64_MAX - 1);
  EXPECT_EQ(CheckedSum().add(half, 3).value(), std::nullopt);
}

}  // namespace
}  // namespace lathe
