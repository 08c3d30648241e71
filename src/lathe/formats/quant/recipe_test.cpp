#include "lathe/formats/quant/recipe.h"

#include <gtest/gtest.h>

namespace lathe {
namespace {

DType choose(QuantType type, std::string_view name, int64_t cols = 2048, int64_t layers = 27, int64_t experts = 64) {
  return format_of(type, {.name = name, .rows = 16, .cols = cols, .layers = layers, .experts = experts});
}

TEST(Recipe, NamesGoBothWays) {
  for (const std::string& name : quant_type_names()) {
    const auto type = quant_type_from_name(name);
    ASSERT_TRUE(type.has_value()) << name;
    EXPECT_EQ(quant_type_name(*type), name);
  }
  EXPECT_EQ(quant_type_from_name("Q4_K_M"), QuantType::kQ4_K_M);
  EXPECT_FALSE(quant_type_from_name("q3_k").has_value());
  EXPECT_FALSE(quant_type_from_name("").has_value());
  EXPECT_EQ(gguf_file_type(QuantType::kQ4_K_M), 15U);
  EXPECT_EQ(gguf_file_type(QuantType::kQ8_0), 7U);
  EXPECT_EQ(gguf_file_type(QuantType::kBF16), 32U);
}

TEST(Recipe, NormsRouterAndBiasesStayExactUnderEveryType) {
  for (const std::string& name : quant_type_names()) {
    const QuantType type = *quant_type_from_name(name);
    for (const char* tensor : {"model.layers.1.input_layernorm.weight",
                               "model.layers.1.self_attn.kv_a_layernorm.weight",
                               "model.norm.weight",
                               "model.layers.1.mlp.gate.weight",
                               "model.layers.1.mlp.gate.e_score_correction_bias",
                               "model.layers.1.self_attn.q_a_proj.bias"}) {
      EXPECT_EQ(choose(type, tensor), DType::kF32) << name << " " << tensor;
    }
    EXPECT_EQ(format_of(type, {.name = "any.vector", .rows = 0, .cols = 256}), DType::kF32);
  }
}

TEST(Recipe, PlainTypesKeepTheirName) {
  EXPECT_EQ(choose(QuantType::kF32, "lm_head.weight"), DType::kF32);
  EXPECT_EQ(choose(QuantType::kF16, "model.layers.0.mlp.down_proj.weight", 7), DType::kF16);
  EXPECT_EQ(choose(QuantType::kBF16, "model.embed_tokens.weight"), DType::kBF16);
}

TEST(Recipe, HeadGetsMoreBits) {
  EXPECT_EQ(choose(QuantType::kQ4_0, "lm_head.weight"), DType::kQ6_K);
  EXPECT_EQ(choose(QuantType::kQ4_K_M, "lm_head.weight"), DType::kQ6_K);
  EXPECT_EQ(choose(QuantType::kQ5_K_M, "lm_head.weight"), DType::kQ6_K);
  EXPECT_EQ(choose(QuantType::kQ6_K, "lm_head.weight"), DType::kQ6_K);
  EXPECT_EQ(choose(QuantType::kQ8_0, "lm_head.weight"), DType::kQ8_0);
  EXPECT_EQ(choose(QuantType::kQ4_0, "lm_head.weight", 96), DType::kQ8_0);
  EXPECT_EQ(choose(QuantType::kQ4_K_M, "lm_head.weight", 64), DType::kQ8_0);
  EXPECT_EQ(choose(QuantType::kQ4_K_M, "model.embed_tokens.weight"), DType::kQ4_K);
  const RecipeTensor tied{
      .name = "model.embed_tokens.weight", .rows = 16, .cols = 256, .layers = 8, .experts = 0, .tied_head = true};
  EXPECT_EQ(format_of(QuantType::kQ4_K_M, tied), DType::kQ6_K);
}

// 27 layers: the first three, the last four (from 23), and every third from 5.
TEST(Recipe, MixedTypesGiveSomeLayersMoreBits) {
  const std::vector<int> more{0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26};
  for (int layer = 0; layer < 27; ++layer) {
    const bool is_more = std::find(more.begin(), more.end(), layer) != more.end();
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    for (const char* tensor : {"mlp.down_proj.weight",
                               "mlp.experts.7.down_proj.weight",
                               "mlp.experts.down_proj",
                               "mlp.shared_experts.down_proj.weight",
                               "self_attn.v_proj.weight"}) {
      const std::string name = prefix + tensor;
      EXPECT_EQ(choose(QuantType::kQ4_K_M, name), is_more ? DType::kQ6_K : DType::kQ4_K) << name;
      EXPECT_EQ(choose(QuantType::kQ5_K_M, name), is_more ? DType::kQ6_K : DType::kQ5_K) << name;
      EXPECT_EQ(choose(QuantType::kQ4_0, name), DType::kQ4_0) << name;
    }
    for (const char* tensor : {"mlp.up_proj.weight",
                               "mlp.experts.7.gate_proj.weight",
                               "self_attn.o_proj.weight",
                               "self_attn.q_proj.weight"}) {
      EXPECT_EQ(choose(QuantType::kQ4_K_M, prefix + tensor), DType::kQ4_K) << tensor;
    }
  }
}

TEST(Recipe, MixedTypesGiveWhatMakesAndReadsLatentsMoreBitsInEveryLayer) {
  for (const char* layer : {"3", "4", "12"}) {
    for (const char* tensor : {"kv_a_proj_with_mqa", "kv_b_proj", "k_b_proj", "v_b_proj"}) {
      const std::string name = std::string("model.layers.") + layer + ".self_attn." + tensor + ".weight";
      EXPECT_EQ(choose(QuantType::kQ4_K_M, name), DType::kQ6_K) << name;
      EXPECT_EQ(choose(QuantType::kQ5_K_M, name), DType::kQ6_K) << name;
      EXPECT_EQ(choose(QuantType::kQ4_K_M, name, 128), DType::kQ8_0) << name;
      EXPECT_EQ(choose(QuantType::kQ4_0, name), DType::kQ4_0) << name;
      EXPECT_EQ(choose(QuantType::kQ8_0, name), DType::kQ8_0) << name;
    }
  }
}

TEST(Recipe, EightExpertsMeanPreciseAttention) {
  EXPECT_EQ(choose(QuantType::kQ4_K_M, "model.layers.4.self_attn.v_proj.weight", 256, 8, 8), DType::kQ8_0);
  EXPECT_EQ(choose(QuantType::kQ4_K_M, "model.layers.4.self_attn.k_proj.weight", 256, 8, 8), DType::kQ8_0);
  EXPECT_EQ(choose(QuantType::kQ4_K_M, "model.layers.4.self_attn.kv_a_proj_with_mqa.weight", 256, 8, 8), DType::kQ8_0);
  EXPECT_EQ(choose(QuantType::kQ4_K_M, "model.layers.4.self_attn.o_proj.weight", 256, 8, 8), DType::kQ5_K);
  EXPECT_EQ(choose(QuantType::kQ5_K_M, "model.layers.4.self_attn.o_proj.weight", 256, 8, 8), DType::kQ5_K);
}

TEST(Recipe, RowsThatAreNotWholeBlocksFallBack) {
  const std::string up = "model.layers.4.mlp.up_proj.weight";
  EXPECT_EQ(choose(QuantType::kQ4_K_M, up, 128), DType::kQ5_0);
  EXPECT_EQ(choose(QuantType::kQ5_K_M, up, 128), DType::kQ5_1);
  EXPECT_EQ(choose(QuantType::kQ6_K, up, 1408), DType::kQ8_0);
  EXPECT_EQ(choose(QuantType::kQ4_K_M, up, 100), DType::kF16);
  EXPECT_EQ(choose(QuantType::kQ8_0, up, 48), DType::kF16);
  EXPECT_EQ(choose(QuantType::kQ4_0, up, 96), DType::kQ4_0);
  EXPECT_EQ(choose(QuantType::kQ4_K_M, "model.layers.4.self_attn.q_proj.weight", 128), DType::kQ5_0);
}

}  // namespace
}  // namespace lathe
