// The equations on examples small enough to compute by hand, and the fast backend against the reference on random
// models. Golden values of single operations: tests/e2e/golden_ops_test.cpp; of whole models:
// tests/e2e/golden_model_test.cpp.
#include "lathe/reference/equations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lathe/base/scalar.h"
#include "lathe/reference/reference_backend.h"
#include "support/compare.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe::reference {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::Pointwise;
namespace support = lathe::testing;

WeightMatrix fp32_matrix(const std::vector<float>& values, int64_t rows, int64_t cols) {
  return {.dtype = DType::kF32,
          .rows = rows,
          .cols = cols,
          .data = reinterpret_cast<const std::byte*>(values.data()),
          .stride = 0,
          .scales = nullptr};
}

TEST(Matrix, MultipliesRowsAndAddsTheirBias) {
  const std::vector<float> values{1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F};
  const std::vector<float> bias{10.0F, 20.0F, 30.0F};
  const Matrix w(fp32_matrix(values, 3, 2), bias.data());
  EXPECT_THAT(w * Vec({1.0, -1.0}), ElementsAre(9.0, 19.0, 29.0));
  const Matrix lower = w.rows(1, 3);
  EXPECT_EQ(lower.rows(), 2);
  EXPECT_THAT(lower * Vec({1.0, 1.0}), ElementsAre(27.0, 41.0)) << "rows and bias of the part";
  EXPECT_THAT(lower.rows(1, 2) * Vec({0.0, 1.0}), ElementsAre(36.0));
}

TEST(Matrix, ReadsEveryStorageType) {
  const float value = 0.3046875F;  // exact in all of them
  const auto bf16 = float_to_bf16(value);
  const auto f16 = float_to_f16(value);
  const auto e4m3 = float_to_e4m3(0.3125F);
  const float scale = 0.5F;
  WeightMatrix w{.dtype = DType::kBF16,
                 .rows = 1,
                 .cols = 1,
                 .data = reinterpret_cast<const std::byte*>(&bf16),
                 .stride = 0,
                 .scales = nullptr};
  EXPECT_EQ(Matrix(w).row(0)[0], value);
  w.dtype = DType::kF16;
  w.data = reinterpret_cast<const std::byte*>(&f16);
  EXPECT_EQ(Matrix(w).row(0)[0], value);
  w.dtype = DType::kF8E4M3;
  w.data = reinterpret_cast<const std::byte*>(&e4m3);
  w.scales = &scale;
  EXPECT_EQ(Matrix(w).row(0)[0], 0.15625);
}

TEST(Matrix, TransposesTheSelectedRows) {
  const std::vector<float> values{1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F};
  const Matrix w = Matrix(fp32_matrix(values, 3, 2)).rows(1, 3).transposed();
  EXPECT_EQ(w.rows(), 2);
  EXPECT_EQ(w.cols(), 2);
  EXPECT_THAT(w.row(0), ElementsAre(3.0, 5.0));
  EXPECT_THAT(w * Vec({1.0, 10.0}), ElementsAre(53.0, 64.0));
}

TEST(Matrix, ReadsBlockFormats) {
  std::vector<std::byte> bytes(2 * 34);  // two rows of one Q8_0 block: d, then 32 signed bytes
  for (size_t row = 0; row < 2; ++row) {
    const uint16_t d = float_to_f16(row == 0 ? 0.5F : 2.0F);
    std::memcpy(bytes.data() + row * 34, &d, sizeof d);
    for (size_t i = 0; i < 32; ++i) bytes[row * 34 + 2 + i] = static_cast<std::byte>(static_cast<int>(i) - 16);
  }
  const WeightMatrix stored{.dtype = DType::kQ8_0, .rows = 2, .cols = 32, .data = bytes.data()};
  EXPECT_EQ(Matrix(stored).row(0)[0], -8.0);
  EXPECT_EQ(Matrix(stored).row(1)[31], 30.0);
  EXPECT_THAT(Matrix(stored).transposed().row(17), ElementsAre(0.5, 2.0));
}

TEST(Equations, ConcatAndSplitAreInverse) {
  const Vec v{1, 2, 3, 4, 5, 6};
  EXPECT_THAT(split(v, 3), ElementsAre(Vec{1, 2}, Vec{3, 4}, Vec{5, 6}));
  EXPECT_EQ(concat(split(v, 2)), v);
  EXPECT_EQ(concat(Vec{1, 2, 3}, Vec{4, 5, 6}), v);
}

TEST(Equations, RmsNormDividesByTheRootMeanSquare) {
  const float weight[] = {1.0F, 2.0F};
  EXPECT_THAT(rms_norm({3.0, 4.0}, weight, 0.0),
              Pointwise(DoubleEq(), Vec{3.0 / std::sqrt(12.5), 8.0 / std::sqrt(12.5)}));
  EXPECT_THAT(rms_norm({0.0, 0.0}, weight, 1e-6), ElementsAre(0.0, 0.0));
}

TEST(Equations, RopeTurnsPairsInBothLayouts) {
  const Vec cos{0.0, -1.0};
  const Vec sin{1.0, 0.0};  // a quarter turn and a half turn
  EXPECT_THAT(rope({1, 2, 3, 4}, cos, sin, true), ElementsAre(-2, 1, -3, -4));
  EXPECT_THAT(rope({1, 2, 3, 4}, cos, sin, false), ElementsAre(-3, -2, 1, -4));
}

TEST(Equations, AttentionWeighsValuesBySoftmaxOfScaledScores) {
  // Scores 2 ln 2 * 0.5 and 0: weights 2/3 and 1/3.
  const Vec out = eq_7_head_output({2.0 * std::log(2.0), 0.0}, {{1, 7}, {0, 0}}, {{3, 0}, {0, 6}}, 0.5);
  EXPECT_NEAR(out[0], 2.0, 1e-15);
  EXPECT_NEAR(out[1], 2.0, 1e-15);
  EXPECT_THAT(eq_46_head_output({1, 1}, {{5, 5}}, {{-4, 9}}, 0.3), ElementsAre(-4, 9)) << "one key: its value";
}

TEST(Equations, SoftmaxSurvivesLargeScores) {
  const Vec p = softmax({1000.0, 1000.0 + std::log(3.0), -1000.0});
  EXPECT_NEAR(p[0], 0.25, 1e-12);
  EXPECT_NEAR(p[1], 0.75, 1e-12);
  EXPECT_EQ(p[2], 0.0);
}

TEST(Equations, SwigluIsGatedBySilu) {
  const std::vector<float> gate{1.0F}, up{3.0F}, down{2.0F};
  const Vec y =
      swiglu(Matrix(fp32_matrix(gate, 1, 1)), Matrix(fp32_matrix(up, 1, 1)), Matrix(fp32_matrix(down, 1, 1)), {{-1.5}})
          .front();
  EXPECT_DOUBLE_EQ(y[0], 2.0 * (-1.5 / (1.0 + std::exp(1.5))) * -4.5);
}

TEST(Equations, TopkKeepsGroupsThenExpertsWithTiesToTheLower) {
  GateShape shape{.n_routed_experts = 6, .num_experts_per_tok = 2, .n_group = 3, .topk_group = 1};
  const Vec s{0.6, 0.0, 0.4, 0.4, 0.5, 0.1};
  EXPECT_THAT(eq_21_topk(s, {}, shape), ElementsAre(0, 4)) << "greedy looks at no groups";
  shape.topk_method = TopkMethod::kGroupLimitedGreedy;
  EXPECT_THAT(eq_21_topk(s, {}, shape), ElementsAre(0, 1)) << "the group of the best expert";
  shape.topk_method = TopkMethod::kNoauxTc;
  EXPECT_THAT(eq_21_topk(s, {}, shape), ElementsAre(2, 3)) << "the group of the best pair";
  const std::vector<float> bias{0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.5F};
  EXPECT_THAT(eq_21_topk(s, bias, shape), ElementsAre(4, 5));
  EXPECT_THAT(eq_21_topk(Vec(6, 0.5), {}, shape), ElementsAre(0, 1));
}

TEST(Equations, MoeOutputAddsNoResidual) {
  EXPECT_THAT(eq_20_moe_output({1, 2}, {0.5, 2.0}, {{4, 4}, {1, -1}}), ElementsAre(5, 2));
}

// A configuration with random widths, counts and features.
Json random_config(Rng& rng) {
  const auto any = [&](int64_t low, int64_t high) { return Json(rng.next_int(low, high)); };
  const int64_t kind = rng.next_int(0, 3);
  if (kind == 0) {
    Json json = support::tiny_llama_config();
    const int64_t groups = rng.next_int(1, 3);
    const int64_t heads = groups * rng.next_int(1, 3);
    json.set("num_key_value_heads", groups);
    json.set("num_attention_heads", heads);
    json.set("hidden_size", heads * 2 * rng.next_int(1, 6));
    json.set("intermediate_size", any(1, 40));
    json.set("attention_bias", rng.next_int(0, 1) == 1);
    json.set("tie_word_embeddings", rng.next_int(0, 1) == 1);
    return json;
  }
  Json json = kind == 1 ? support::tiny_v3_config() : support::tiny_v2_config();
  json.set("hidden_size", any(2, 40));
  const int64_t layers = rng.next_int(1, 3);
  json.set("num_hidden_layers", layers);
  const int64_t heads = rng.next_int(1, 5);
  json.set("num_attention_heads", heads);
  json.set("num_key_value_heads", heads);
  json.set("q_lora_rank", rng.next_int(0, 1) == 0 ? Json(nullptr) : any(1, 20));
  json.set("kv_lora_rank", any(1, 30));
  json.set("qk_nope_head_dim", any(1, 16));
  json.set("qk_rope_head_dim", 2 * rng.next_int(1, 6));
  json.set("v_head_dim", any(1, 16));
  json.set("attention_bias", rng.next_int(0, 1) == 1);
  if (rng.next_int(0, 3) == 0) json.set("qk_latent_layernorm", false);
  if (rng.next_int(0, 1) == 1) json.set("rope_scaling", nullptr);
  const int64_t groups = rng.next_int(1, 4);
  const int64_t kept = rng.next_int(1, groups);
  const int64_t width = rng.next_int(2, 4);
  json.set("n_group", groups);
  json.set("topk_group", kept);
  json.set("n_routed_experts", groups * width);
  json.set("num_experts_per_tok", any(1, kept * width));
  json.set("n_shared_experts", any(0, 2));
  json.set("moe_intermediate_size", any(1, 20));
  json.set("first_k_dense_replace", any(0, std::min<int64_t>(layers, 2)));
  json.set("norm_topk_prob", rng.next_int(0, 1) == 1);
  json.set("rms_norm_eps", rng.next_int(0, 1) == 1 ? 1e-6 : 1e-3);
  return json;
}

// fp32 sums in another order through a few layers, as in tests/golden/README.md.
constexpr support::Tolerance kWholeModel{"kWholeModel", 2e-4, 1e-5, 1e-8};

TEST(ReferenceBackend, RandomModelsAgreeWithTheCpuInBothForms) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Rng rng(seed);
    const Json json = random_config(rng);
    SCOPED_TRACE(lathe::str("seed ", seed, ": ", json.dump()));
    support::TinyModel model(json, seed);
    if (seed % 4 == 1) {
      for (auto& [name, tensor] : model.tensors) tensor.dtype = DType::kBF16;
    }
    if (seed % 4 == 2) {
      for (const ExpectedTensor& tensor : expected_tensors(model.config())) {
        if (tensor.quantisable) model.quantise(tensor.name, seed);
      }
    }
    const support::TempDir folder;
    model.write(folder.path());
    const Result<std::unique_ptr<const ModelWeights>> weights = support::open_weights(folder.path());
    ASSERT_TRUE(weights.has_value()) << weights.error().message;
    const std::vector<int32_t> ids = support::random_ids((*weights)->config(), rng.next_int(1, 40), seed);
    ReferenceBackend backend(**weights);
    const support::Forward expected = support::forward_once((*weights)->config(), backend, ids, {});
    for (const int64_t expanded_until : {int64_t{0}, static_cast<int64_t>(ids.size())}) {
      const support::Forward actual = support::forward_on_cpu(**weights, ids, expanded_until);
      support::expect_close(actual.logits, expected.logits, kWholeModel);
      for (size_t layer = 0; layer < expected.trace.routing.size(); ++layer) {
        EXPECT_EQ(actual.trace.routing[layer].experts, expected.trace.routing[layer].experts);
      }
    }
  }
}

TEST(ReferenceBackend, DecodingInStepsEqualsOneStep) {
  for (const Json& json : {support::tiny_v2_config(), support::tiny_llama_config()}) {
    const support::TempDir folder;
    support::TinyModel(json).write(folder.path());
    const std::unique_ptr<const ModelWeights> weights = support::open_weights(folder.path()).value();
    const ModelConfig& config = weights->config();
    const std::vector<int32_t> ids = support::random_ids(config, 9, 4);
    ReferenceBackend whole(*weights);
    const std::vector<float> expected = support::forward_once(config, whole, ids, {}).logits;
    ReferenceBackend stepped(*weights);
    Decoder decoder = Decoder::create(config, stepped).value();
    std::vector<float> logits;
    const auto vocab = static_cast<size_t>(config.vocab_size);
    for (size_t t = 0; t < ids.size(); ++t) {
      const SequenceChunk chunk{.sequence = 5,
                                .first_row = 0,
                                .tokens = 1,
                                .position = static_cast<int64_t>(t),
                                .expanded_until = 0,
                                .pages = {}};
      const int64_t row = 0;
      logits.resize((t + 1) * vocab);
      decoder.forward({.token_ids = std::span(ids).subspan(t, 1), .chunks = {&chunk, 1}, .logit_rows = {&row, 1}},
                      logits.data() + t * vocab,
                      nullptr);
    }
    support::expect_same_bits(logits, expected);
  }
}

}  // namespace
}  // namespace lathe::reference
