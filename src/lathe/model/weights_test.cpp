// Binding: what is missing, misshapen or damaged is named; every tensor has an effect; equal models in other forms
// (stacked experts, tied embeddings, extra layers) give equal bits.
#include "lathe/model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "support/compare.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

using ::testing::ElementsAre;
using testing::forward_on_cpu;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::open_weights;
using testing::TempDir;
using testing::tiny_llama_config;
using testing::tiny_v2_config;
using testing::tiny_v3_config;
using testing::TinyModel;
using testing::TinyTensor;

std::unique_ptr<const ModelWeights> open_or_fail(const TinyModel& model, const TempDir& folder) {
  model.write(folder.path());
  Result<std::unique_ptr<const ModelWeights>> weights = open_weights(folder.path());
  EXPECT_TRUE(weights.has_value()) << (weights ? "" : weights.error().message);
  return weights ? std::move(*weights) : nullptr;
}

// The message of the error, or "" when there is none.
std::string error_of(const TinyModel& model, Errc code = Errc::kInvalidData) {
  const TempDir folder;
  model.write(folder.path());
  const Result<std::unique_ptr<const ModelWeights>> weights = open_weights(folder.path());
  if (weights) return {};
  EXPECT_EQ(weights.error().code, code);
  EXPECT_THAT(weights.error().message, HasSubstr(folder.path().string()));
  return weights.error().message;
}

std::vector<float> logits_of(const TinyModel& model) {
  const TempDir folder;
  const std::unique_ptr<const ModelWeights> weights = open_or_fail(model, folder);
  return forward_on_cpu(*weights, testing::random_ids(weights->config(), 30, 5)).logits;
}

TEST(Weights, AMissingTensorIsNamedWithItsShape) {
  TinyModel model(tiny_v2_config());
  model.tensors.erase("model.layers.1.mlp.experts.5.up_proj.weight");
  EXPECT_THAT(error_of(model),
              HasSubstr("model.layers.1.mlp.experts.5.up_proj.weight: expected [11, 26], found no such tensor"));
  for (const char* name : {"model.embed_tokens.weight",
                           "model.norm.weight",
                           "lm_head.weight",
                           "model.layers.0.input_layernorm.weight",
                           "model.layers.2.self_attn.kv_b_proj.weight",
                           "model.layers.0.mlp.gate_proj.weight",
                           "model.layers.1.mlp.gate.weight",
                           "model.layers.1.mlp.shared_experts.down_proj.weight"}) {
    TinyModel other(tiny_v2_config());
    other.tensors.erase(name);
    EXPECT_THAT(error_of(other), HasSubstr(str(name, ": expected [")));
  }
}

TEST(Weights, AWrongShapeIsNamedWithBothShapes) {
  TinyModel model(tiny_v2_config());
  model.at("model.layers.0.self_attn.o_proj.weight").shape = {21, 26};
  EXPECT_THAT(error_of(model), HasSubstr("model.layers.0.self_attn.o_proj.weight: expected [26, 21], found [21, 26]"));

  TinyModel flat(tiny_v2_config());
  flat.at("model.layers.0.self_attn.kv_b_proj.weight").shape = {48 * 14};
  EXPECT_THAT(error_of(flat), HasSubstr("kv_b_proj.weight: expected [48, 14], found [672]"));

  TinyModel norm(tiny_v2_config());
  norm.at("model.norm.weight") = {.dtype = DType::kF32, .shape = {25}, .values = std::vector<float>(25)};
  EXPECT_THAT(error_of(norm), HasSubstr("model.norm.weight: expected [26], found [25]"));
}

TEST(Weights, AWrongDtypeIsNamedWithTheAcceptedOnes) {
  TinyModel matrix(tiny_v2_config());
  matrix.at("lm_head.weight").dtype = DType::kI32;
  EXPECT_THAT(error_of(matrix), HasSubstr("lm_head.weight: expected dtype F32, F16, BF16 or F8_E4M3, found I32"));

  TinyModel norm(tiny_v2_config());
  norm.at("model.layers.1.input_layernorm.weight").dtype = DType::kF8E4M3;
  EXPECT_THAT(error_of(norm),
              HasSubstr("model.layers.1.input_layernorm.weight: expected dtype F32, F16 or BF16, found F8_E4M3"));
}

TEST(Weights, Fp8ScalesAreChecked) {
  const std::string name = "model.layers.0.self_attn.kv_b_proj.weight";
  TinyModel infinite(tiny_v2_config());
  infinite.quantise(name);
  infinite.at(name + "_scale_inv").values[0] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(error_of(infinite), HasSubstr("kv_b_proj.weight_scale_inv: expected finite scales"));
  EXPECT_THAT(error_of(infinite), HasSubstr("found inf at block 0"));

  TinyModel negative(tiny_v2_config());
  negative.quantise(name);
  negative.at(name + "_scale_inv").values[0] = -0.5F;
  EXPECT_THAT(error_of(negative), HasSubstr("found -0.5 at block 0"));

  TinyModel shape(tiny_v2_config());
  shape.quantise(name);
  shape.at(name + "_scale_inv") = {.dtype = DType::kF32, .shape = {1, 2}, .values = {1.0F, 1.0F}};
  EXPECT_THAT(error_of(shape), HasSubstr("kv_b_proj.weight_scale_inv: expected [1, 1], found [1, 2]"));

  TinyModel dtype(tiny_v2_config());
  dtype.quantise(name);
  dtype.at(name + "_scale_inv").dtype = DType::kI32;
  EXPECT_THAT(error_of(dtype), HasSubstr("kv_b_proj.weight_scale_inv: expected dtype F32, F16 or BF16, found I32"));
}

TEST(Weights, Fp8WithoutScaleIsTakenWithOneAndAWarning) {
  const std::string name = "model.layers.0.self_attn.kv_b_proj.weight";
  TinyModel with(tiny_v2_config());
  with.quantise(name);
  with.at(name + "_scale_inv").values[0] = 1.0F;
  const TempDir with_folder;
  const std::unique_ptr<const ModelWeights> with_weights = open_or_fail(with, with_folder);
  EXPECT_THAT(with_weights->warnings(), IsEmpty());
  EXPECT_THAT(with_weights->unused_tensors(), IsEmpty());

  TinyModel without = with;
  without.tensors.erase(name + "_scale_inv");
  const TempDir folder;
  const std::unique_ptr<const ModelWeights> weights = open_or_fail(without, folder);
  EXPECT_THAT(weights->warnings(),
              ElementsAre(str(name, ": F8_E4M3 without ", name, "_scale_inv, taken with scale 1")));
  testing::expect_same_bits(logits_of(without), logits_of(with));
}

TEST(Weights, CorrectionBiasMustBeFinite) {
  TinyModel model(tiny_v3_config());
  model.at("model.layers.2.mlp.gate.e_score_correction_bias").values[3] = std::nanf("");
  const TempDir folder;
  model.write(folder.path());
  const Result<std::unique_ptr<const ModelWeights>> weights = open_weights(folder.path());
  ASSERT_FALSE(weights.has_value());
  EXPECT_EQ(weights.error().code, Errc::kInvalidData);
  EXPECT_THAT(
      weights.error().message,
      HasSubstr("model.layers.2.mlp.gate.e_score_correction_bias: expected finite values, found nan at expert 3"));
}

// Whether the name is of a routed expert that no token of the trace chose.
bool is_idle_expert(const std::string& name, const ForwardTrace& trace) {
  for (size_t layer = 0; layer < trace.routing.size(); ++layer) {
    const std::string prefix = str("model.layers.", layer, ".mlp.experts.");
    if (!name.starts_with(prefix)) continue;
    const int32_t expert = name[prefix.size()] - '0';
    const std::vector<int32_t>& chosen = trace.routing[layer].experts;
    return std::find(chosen.begin(), chosen.end(), expert) == chosen.end();
  }
  return false;
}

// A tensor that is bound to nothing, or to the wrong role, would leave the logits as they are.
TEST(Weights, EveryTensorHasAnEffect) {
  Json v2 = tiny_v2_config();
  v2.set("attention_bias", true);
  Json lite = tiny_v3_config();
  lite.set("q_lora_rank", nullptr);
  lite.set("attention_bias", true);
  Json llama = tiny_llama_config();
  llama.set("attention_bias", true);
  for (const Json& json : {v2, lite, llama}) {
    const TinyModel model(json);
    const TempDir folder;
    const std::unique_ptr<const ModelWeights> weights = open_or_fail(model, folder);
    const testing::Forward before = forward_on_cpu(*weights, testing::random_ids(weights->config(), 30, 5));
    for (const auto& [name, tensor] : model.tensors) {
      TinyModel changed = model;
      for (float& v : changed.at(name).values) v = 0.5F - v;
      EXPECT_EQ(logits_of(changed) == before.logits, is_idle_expert(name, before.trace)) << name;
    }
  }
}

TEST(Weights, StorageTypesGiveTheValuesTheyHold) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    SCOPED_TRACE(dtype_name(dtype));
    TinyModel stored(tiny_v2_config());
    TinyModel widened(tiny_v2_config());
    for (auto& [name, tensor] : stored.tensors) {
      tensor.dtype = dtype;
      for (float& v : widened.at(name).values) {
        v = dtype == DType::kF16 ? f16_to_float(float_to_f16(v)) : bf16_to_float(float_to_bf16(v));
      }
    }
    testing::expect_same_bits(logits_of(stored), logits_of(widened));
  }
}

// As transformers 5.x keeps experts in memory: [n, 2 f, d] with gate rows first, and [n, d, f].
TEST(Weights, StackedExpertsGiveTheSameBits) {
  const TinyModel separate(tiny_v2_config());
  TinyModel stacked = separate;
  for (const char* layer : {"model.layers.1.mlp.experts.", "model.layers.2.mlp.experts."}) {
    TinyTensor gate_up{.dtype = DType::kF32, .shape = {8, 22, 26}, .values = {}};
    TinyTensor down{.dtype = DType::kF32, .shape = {8, 26, 11}, .values = {}};
    for (int e = 0; e < 8; ++e) {
      const auto move_to = [&](const char* part, TinyTensor& target) {
        const std::string name = str(layer, e, ".", part, "_proj.weight");
        const std::vector<float>& values = stacked.at(name).values;
        target.values.insert(target.values.end(), values.begin(), values.end());
        stacked.tensors.erase(name);
      };
      move_to("gate", gate_up);
      move_to("up", gate_up);
      move_to("down", down);
    }
    stacked.tensors.emplace(str(layer, "gate_up_proj"), gate_up);
    stacked.tensors.emplace(str(layer, "down_proj"), down);
  }
  const TempDir folder;
  EXPECT_THAT(open_or_fail(stacked, folder)->unused_tensors(), IsEmpty());
  testing::expect_same_bits(logits_of(stacked), logits_of(separate));

  TinyModel no_down = stacked;
  no_down.tensors.erase("model.layers.2.mlp.experts.down_proj");
  EXPECT_THAT(error_of(no_down),
              HasSubstr("model.layers.2.mlp.experts.down_proj: expected [8, 26, 11], found no such tensor"));
  TinyModel fp8 = stacked;
  fp8.at("model.layers.1.mlp.experts.gate_up_proj").dtype = DType::kF8E4M3;
  EXPECT_THAT(error_of(fp8), HasSubstr("experts.gate_up_proj: expected dtype F32, F16 or BF16, found F8_E4M3"));
}

TEST(Weights, TiedEmbeddingsAreTheHead) {
  Json json = tiny_v2_config();
  TinyModel untied(json);
  untied.at("lm_head.weight").values = untied.at("model.embed_tokens.weight").values;
  json.set("tie_word_embeddings", true);
  TinyModel tied(json);
  ASSERT_FALSE(tied.tensors.contains("lm_head.weight"));
  tied.tensors = untied.tensors;
  tied.tensors.erase("lm_head.weight");
  const TempDir folder;
  const std::unique_ptr<const ModelWeights> weights = open_or_fail(tied, folder);
  EXPECT_EQ(weights->lm_head().data, weights->embed_tokens().data);
  testing::expect_same_bits(logits_of(tied), logits_of(untied));

  // A head that is stored all the same is not used, and not worth a word.
  tied.tensors.emplace("lm_head.weight",
                       TinyTensor{.dtype = DType::kF32, .shape = {40, 26}, .values = std::vector<float>(1040, 9.0F)});
  const TempDir with_head;
  EXPECT_THAT(open_or_fail(tied, with_head)->unused_tensors(), IsEmpty());
  testing::expect_same_bits(logits_of(tied), logits_of(untied));
}

TEST(Weights, ExtraTensorsAreCountedOrNamed) {
  TinyModel model(tiny_v3_config());
  const std::vector<float> before = logits_of(model);
  const TinyTensor any{.dtype = DType::kF32, .shape = {2}, .values = {1.0F, 2.0F}};
  model.tensors.emplace("model.layers.3.eh_proj.weight", any);
  model.tensors.emplace("model.layers.3.mlp.experts.0.up_proj.weight", any);
  model.tensors.emplace("model.layers.0.self_attn.rotary_emb.inv_freq", any);
  model.tensors.emplace("model.layers.9.eh_proj.weight", any);
  model.tensors.emplace("model.layers.0.mlp.experts.0.up_proj.weight", any);
  model.tensors.emplace("vision.weight", any);
  const TempDir folder;
  const std::unique_ptr<const ModelWeights> weights = open_or_fail(model, folder);
  EXPECT_EQ(weights->mtp_tensors(), 2);
  EXPECT_THAT(
      weights->unused_tensors(),
      ElementsAre("model.layers.0.mlp.experts.0.up_proj.weight", "model.layers.9.eh_proj.weight", "vision.weight"));
  testing::expect_same_bits(logits_of(model), before);
}

TEST(Weights, BiasesFollowTheConfiguration) {
  Json json = tiny_v2_config();
  json.set("attention_bias", true);
  for (const char* name : {"q_a_proj", "kv_a_proj_with_mqa", "o_proj"}) {
    TinyModel model(json);
    model.tensors.erase(str("model.layers.1.self_attn.", name, ".bias"));
    EXPECT_THAT(error_of(model), HasSubstr(str(name, ".bias: expected [")));
  }
  TinyModel optional(json);
  optional.tensors.erase("model.layers.1.self_attn.q_b_proj.bias");
  EXPECT_EQ(error_of(optional), "");
  optional.tensors.emplace("model.layers.1.self_attn.q_b_proj.bias",
                           TinyTensor{.dtype = DType::kF32, .shape = {3}, .values = {0.0F, 0.0F, 0.0F}});
  EXPECT_THAT(error_of(optional), HasSubstr("q_b_proj.bias: expected [39], found [3]"));

  // Without attention_bias stored biases stay unused and are named.
  TinyModel plain(tiny_v2_config());
  plain.tensors.emplace("model.layers.0.self_attn.o_proj.bias",
                        TinyTensor{.dtype = DType::kF32, .shape = {26}, .values = std::vector<float>(26, 1.0F)});
  const TempDir folder;
  EXPECT_THAT(open_or_fail(plain, folder)->unused_tensors(), ElementsAre("model.layers.0.self_attn.o_proj.bias"));
}

TEST(Weights, ModelsWithoutLatentNormsNeedNone) {
  Json json = tiny_v2_config();
  json.set("qk_latent_layernorm", false);
  const TinyModel model(json);
  ASSERT_FALSE(model.tensors.contains("model.layers.0.self_attn.kv_a_layernorm.weight"));
  const TempDir folder;
  const std::unique_ptr<const ModelWeights> weights = open_or_fail(model, folder);
  EXPECT_EQ(weights->layers()[0].mla.kv_a_layernorm, nullptr);
  EXPECT_EQ(weights->layers()[0].mla.q_a_layernorm, nullptr);
}

TEST(Weights, StoredBytesCountWhatIsUsedOnce) {
  TinyModel model(tiny_v2_config());
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : model.tensors) bytes += tensor.values.size() * sizeof(float);
  model.tensors.emplace("vision.weight", TinyTensor{.dtype = DType::kF32, .shape = {2}, .values = {1.0F, 2.0F}});
  const TempDir folder;
  EXPECT_EQ(open_or_fail(model, folder)->stored_bytes(), bytes);
}

}  // namespace
}  // namespace lathe
