#include "lathe/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "lathe/base/str.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::filesystem::path fixture(std::string_view name) {
  return testing::golden_dir() / "configs" / str(name, ".json");
}

Json read_fixture(std::string_view name) {
  return *read_json(fixture(name));
}

// The fixture with some members replaced or, for an absent value, removed.
struct Edit {
  std::string_view name;
  std::optional<Json> value;
};

Json edited(std::string_view name, std::initializer_list<Edit> edits) {
  Json json = read_fixture(name);
  for (const Edit& edit : edits) {
    if (edit.value) {
      json.set(edit.name, *edit.value);
    } else {
      std::erase_if(json.as_object(), [&](const Json::Member& member) { return member.first == edit.name; });
    }
  }
  return json;
}

// rope_scaling (or rope_parameters, quantization_config) of the fixture with one member replaced.
Json edited_in(std::string_view name, std::string_view object, std::string_view member, const Json& value) {
  Json json = read_fixture(name);
  Json inner = *json.find(object);
  inner.set(member, value);
  json.set(object, inner);
  return json;
}

ParsedConfig parsed(const Json& json) {
  Result<ParsedConfig> result = parse_config(json);
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
  return result ? *result : ParsedConfig{};
}

std::string failure(const Json& json, Errc code = Errc::kInvalidData) {
  const Result<ParsedConfig> result = parse_config(json);
  if (result) return "accepted";
  EXPECT_EQ(result.error().code, code) << result.error().message;
  return result.error().message;
}

TEST(Config, ReleasedModelsParseWithoutWarnings) {
  for (const std::string_view name : {"deepseek-v2",
                                      "deepseek-v2-lite",
                                      "deepseek-v3",
                                      "moonlight-16b-a3b",
                                      "kimi-k2",
                                      "deepseek-moe-16b",
                                      "deepseek-v2-lite-mha",
                                      "deepseek-llm-7b",
                                      "deepseek-llm-67b",
                                      "deepseek-v2-lite-5x",
                                      "deepseek-v3-5x",
                                      "moonlight-16b-a3b-5x",
                                      "deepseek-llm-67b-5x"}) {
    const Result<ParsedConfig> result = load_config(fixture(name));
    ASSERT_TRUE(result.has_value()) << result.error().message;
    EXPECT_THAT(result->warnings, IsEmpty()) << name;
  }
}

TEST(Config, GoldenVariantsParseWithoutWarnings) {
  for (const std::string_view name : {"v2lite-tiny",
                                      "v2-tiny",
                                      "v3-tiny",
                                      "v3-tiny-fp8",
                                      "llama-gqa-tiny",
                                      "llama-mha-tiny",
                                      "llama-mqa-tiny",
                                      "deepseek-moe-tiny"}) {
    const Result<ParsedConfig> result = load_config(testing::golden_dir() / name);
    ASSERT_TRUE(result.has_value()) << result.error().message;
    EXPECT_THAT(result->warnings, IsEmpty()) << name;
  }
}

TEST(Config, FieldsOfV2) {
  const ModelConfig c = parsed(read_fixture("deepseek-v2")).config;
  EXPECT_EQ(c.model_type, ModelType::kDeepseekV2);
  EXPECT_EQ(c.architecture, "DeepseekV2ForCausalLM");
  EXPECT_EQ(c.attention, AttentionKind::kMla);
  EXPECT_EQ(c.q_lora_rank, 1536);
  EXPECT_EQ(c.qk_head_dim(), 192);
  EXPECT_EQ(c.head_dim, 0);
  EXPECT_EQ(c.cache_row_elements(), 576);
  EXPECT_EQ(c.topk_method, TopkMethod::kGroupLimitedGreedy);
  EXPECT_EQ(c.scoring_func, ScoringFunc::kSoftmax);
  EXPECT_EQ(c.n_group, 8);
  EXPECT_EQ(c.topk_group, 3);
  EXPECT_EQ(c.routed_scaling_factor, 16.0);
  EXPECT_FALSE(c.norm_topk_prob);
  EXPECT_FALSE(c.is_moe_layer(0));
  EXPECT_TRUE(c.is_moe_layer(1));
  EXPECT_EQ(c.rope_scaling.type, RopeScalingType::kYarn);
  EXPECT_EQ(c.rope_scaling.factor, 40.0);
  EXPECT_EQ(c.rope_scaling.original_max_position_embeddings, 4096.0);
  EXPECT_EQ(c.rope_scaling.mscale, 0.707);
  EXPECT_EQ(c.rope_layout, RopeLayout::kInterleaved);
  EXPECT_EQ(c.dtype, "bfloat16");
  EXPECT_EQ(c.bos_token_id, 100000);
  EXPECT_THAT(c.eos_token_ids, ElementsAre(100001));
  EXPECT_FALSE(c.fp8);
}

TEST(Config, FieldsThatDifferInTheOtherFamilies) {
  const ModelConfig lite = parsed(read_fixture("deepseek-v2-lite")).config;
  EXPECT_EQ(lite.q_lora_rank, 0);
  EXPECT_EQ(lite.topk_method, TopkMethod::kGreedy);

  const ModelConfig v3 = parsed(read_fixture("deepseek-v3")).config;
  EXPECT_TRUE(v3.fp8);
  EXPECT_EQ(v3.num_nextn_predict_layers, 1);
  EXPECT_EQ(v3.topk_method, TopkMethod::kNoauxTc);
  EXPECT_EQ(v3.scoring_func, ScoringFunc::kSigmoid);
  EXPECT_TRUE(v3.norm_topk_prob);

  const ModelConfig kimi = parsed(read_fixture("kimi-k2")).config;
  EXPECT_EQ(kimi.model_type, ModelType::kKimiK2);
  EXPECT_EQ(kimi.architecture, "DeepseekV3ForCausalLM");
  EXPECT_EQ(kimi.rope_scaling.beta_fast, 1.0);

  const ModelConfig moonlight = parsed(read_fixture("moonlight-16b-a3b")).config;
  EXPECT_EQ(moonlight.model_type, ModelType::kDeepseekV3);
  EXPECT_EQ(moonlight.rms_norm_eps, 1e-5);
  EXPECT_EQ(moonlight.rope_scaling, RopeScaling{});

  const ModelConfig moe = parsed(read_fixture("deepseek-moe-16b")).config;
  EXPECT_EQ(moe.attention, AttentionKind::kGqa);
  EXPECT_EQ(moe.head_dim, 128);
  EXPECT_EQ(moe.rope_layout, RopeLayout::kHalfSplit);
  EXPECT_EQ(moe.routed_scaling_factor, 1.0);
  EXPECT_EQ(moe.n_routed_experts, 64);

  const ModelConfig dense = parsed(read_fixture("deepseek-llm-67b")).config;
  EXPECT_EQ(dense.n_routed_experts, 0);
  EXPECT_FALSE(dense.is_moe_layer(50));
  EXPECT_EQ(dense.num_key_value_heads, 8);
  EXPECT_EQ(dense.cache_row_elements(), 2048);
}

TEST(Config, FormsOfBothTransformersGenerationsAreEqual) {
  for (const std::string_view name : {"deepseek-v2-lite", "deepseek-v3", "moonlight-16b-a3b", "deepseek-llm-67b"}) {
    EXPECT_EQ(parsed(read_fixture(name)).config, parsed(read_fixture(str(name, "-5x"))).config) << name;
  }
}

TEST(Config, NumbersMayBeWrittenEitherWay) {
  const ModelConfig as_written = parsed(read_fixture("deepseek-v2")).config;
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"hidden_size", 5120.0}, {"rope_theta", 10000.0}})).config, as_written);
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"routed_scaling_factor", 16}})).config, as_written);
  EXPECT_EQ(parsed(edited_in("deepseek-v2", "rope_scaling", "factor", 40.0)).config, as_written);
  EXPECT_EQ(parsed(edited_in("deepseek-v2", "rope_scaling", "original_max_position_embeddings", 4096.0)).config,
            as_written);
}

TEST(Config, ModelTypeAndArchitectures) {
  EXPECT_EQ(parsed(edited("deepseek-v3", {{"model_type", {}}})).config.model_type, ModelType::kDeepseekV3);
  EXPECT_EQ(parsed(edited("deepseek-llm-7b", {{"model_type", {}}})).config.model_type, ModelType::kLlama);
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"architectures", {}}})).config.architecture, "DeepseekV2ForCausalLM");
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"architectures", Json::array()}})).config.model_type,
            ModelType::kDeepseekV2);
  EXPECT_EQ(failure(edited("deepseek-v2", {{"model_type", {}}, {"architectures", {}}})),
            "model_type: missing, expected deepseek_v2, deepseek_v3, kimi_k2, deepseek or llama");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"model_type", "qwen2"}}), Errc::kUnsupported),
            "model_type: expected deepseek_v2, deepseek_v3, kimi_k2, deepseek or llama, found \"qwen2\"");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"model_type", "deepseek_v3"}})),
            "architectures[0]: expected DeepseekV3ForCausalLM for model_type deepseek_v3, found "
            "\"DeepseekV2ForCausalLM\"");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"architectures", Json::list(std::vector<std::string>{"GPT2LMHeadModel"})}}),
                    Errc::kUnsupported),
            "architectures[0]: expected DeepseekV2ForCausalLM, DeepseekV3ForCausalLM, DeepseekForCausalLM or "
            "LlamaForCausalLM, found \"GPT2LMHeadModel\"");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"architectures", "DeepseekV2ForCausalLM"}})),
            "architectures: expected a list of names, found \"DeepseekV2ForCausalLM\"");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"architectures", Json::list(std::vector<int64_t>{1})}})),
            "architectures[0]: expected a name, found 1");
  EXPECT_EQ(failure(Json::array()), "expected an object, found an array");
}

TEST(Config, TypeAndRangeErrorsNameFieldExpectedAndFound) {
  EXPECT_EQ(failure(edited("deepseek-v2", {{"hidden_size", "big"}})),
            "hidden_size: expected an integer from 1 to 1048576, found \"big\"");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"hidden_size", 5120.5}})),
            "hidden_size: expected an integer from 1 to 1048576, found 5120.5");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"hidden_size", true}})),
            "hidden_size: expected an integer from 1 to 1048576, found true");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"hidden_size", nullptr}})),
            "hidden_size: expected an integer from 1 to 1048576, found null");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"hidden_size", {}}})),
            "hidden_size: missing, expected an integer from 1 to 1048576");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"num_hidden_layers", 0}})),
            "num_hidden_layers: expected an integer from 1 to 1000, found 0");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"vocab_size", 1e300}})),
            "vocab_size: expected an integer from 1 to 16777216, found 1e+300");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"num_attention_heads", -128}})),
            "num_attention_heads: expected an integer from 1 to 4096, found -128");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"rms_norm_eps", 0}})),
            "rms_norm_eps: expected a number above 0 and at most 0.01, found 0");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"rms_norm_eps", "1e-6"}})),
            "rms_norm_eps: expected a number above 0 and at most 0.01, found \"1e-6\"");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"rope_theta", 1}})),
            "rope_theta: expected a number above 1 and at most 1e+12, found 1");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"routed_scaling_factor", 0.0}})),
            "routed_scaling_factor: expected a number above 0 and at most 1e+06, found 0.0");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"norm_topk_prob", 1}})), "norm_topk_prob: expected true or false, found 1");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"torch_dtype", 16}})), "torch_dtype: expected a string, found 16");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"topk_method", "best"}})),
            "topk_method: expected greedy, gready, group_limited_greedy or noaux_tc, found \"best\"");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"scoring_func", "relu"}})),
            "scoring_func: expected softmax or sigmoid, found \"relu\"");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"hidden_act", "gelu"}}), Errc::kUnsupported),
            "hidden_act: expected silu, found \"gelu\"");
}

TEST(Config, TextFromTheFileIsEscapedAndCut) {
  const std::string message =
      failure(edited("deepseek-v2", {{"model_type", str("evil\n\x1b[2J", std::string(500, 'x'))}}), Errc::kUnsupported);
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
  EXPECT_LT(message.size(), 220u);
}

TEST(Config, MlaFields) {
  EXPECT_EQ(parsed(edited("deepseek-v2-lite", {{"q_lora_rank", 0}})).config,
            parsed(read_fixture("deepseek-v2-lite")).config);
  EXPECT_EQ(failure(edited("deepseek-v2", {{"q_lora_rank", {}}})),
            "q_lora_rank: missing, expected an integer, or null for no query compression");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"kv_lora_rank", nullptr}})),
            "kv_lora_rank: expected an integer from 1 to 65536, found null");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"qk_rope_head_dim", 63}})),
            "qk_rope_head_dim: expected an even number, found 63");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"use_mla", false}}), Errc::kUnsupported),
            "use_mla: expected true for model_type deepseek_v2, found false (plain attention under this type is not "
            "supported)");
  EXPECT_FALSE(parsed(edited("deepseek-v2", {{"qk_latent_layernorm", false}})).config.qk_latent_layernorm);
  // Trap T13: 5.x writes head_dim 64; nothing may follow from it.
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"head_dim", 64}})).config, parsed(read_fixture("deepseek-v2")).config);

  const ParsedConfig kv = parsed(edited("deepseek-v2", {{"num_key_value_heads", 1}}));
  EXPECT_EQ(kv.config.num_key_value_heads, 128);
  EXPECT_THAT(kv.warnings,
              ElementsAre("num_key_value_heads: expected num_attention_heads 128 under latent attention, found 1; "
                          "ignored"));
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"num_key_value_heads", {}}})).config.num_key_value_heads, 128);
}

TEST(Config, PlainAttentionFields) {
  EXPECT_EQ(parsed(edited("deepseek-llm-7b", {{"num_key_value_heads", {}}})).config.num_key_value_heads, 32);
  EXPECT_EQ(parsed(edited("deepseek-llm-7b", {{"num_key_value_heads", nullptr}})).config.num_key_value_heads, 32);
  EXPECT_EQ(parsed(edited("deepseek-llm-7b", {{"num_key_value_heads", 1}})).config.cache_row_elements(), 256);
  EXPECT_EQ(parsed(edited("deepseek-llm-7b", {{"head_dim", 64}})).config.head_dim, 64);
  EXPECT_TRUE(parsed(edited("deepseek-llm-7b", {{"tie_word_embeddings", true}})).config.tie_word_embeddings);
  EXPECT_EQ(failure(edited("deepseek-llm-7b", {{"num_key_value_heads", 5}})),
            "num_attention_heads: expected a multiple of num_key_value_heads 5, found 32");
  EXPECT_EQ(failure(edited("deepseek-llm-7b", {{"hidden_size", 4097}})),
            "hidden_size: expected a multiple of num_attention_heads 32 where head_dim is not given, found 4097");
  EXPECT_EQ(failure(edited("deepseek-llm-7b", {{"head_dim", 63}})), "head_dim: expected an even number, found 63");
  EXPECT_EQ(failure(edited("deepseek-llm-7b", {{"mlp_bias", true}}), Errc::kUnsupported),
            "mlp_bias: expected false, found true (biases in the MLP are not supported)");
  EXPECT_THAT(parsed(edited("deepseek-llm-7b", {{"n_routed_experts", 8}})).warnings,
              ElementsAre("unknown field \"n_routed_experts\" is ignored"));
}

TEST(Config, DefaultsOfTheClasses) {
  const ParsedConfig v3 = parsed(edited("deepseek-v3",
                                        {{"n_group", {}},
                                         {"topk_group", {}},
                                         {"topk_method", {}},
                                         {"scoring_func", {}},
                                         {"norm_topk_prob", {}},
                                         {"routed_scaling_factor", {}},
                                         {"first_k_dense_replace", {}},
                                         {"rms_norm_eps", {}},
                                         {"n_routed_experts", {}},
                                         {"n_shared_experts", {}},
                                         {"num_experts_per_tok", {}}}));
  EXPECT_EQ(v3.config, parsed(read_fixture("deepseek-v3")).config);
  EXPECT_EQ(v3.warnings.size(), 8u);
  EXPECT_THAT(v3.warnings, ::testing::Contains("n_group: missing, taken as 8, the default of deepseek_v3"));

  const ParsedConfig v2 = parsed(
      edited("deepseek-v2-lite",
             {{"topk_method", {}}, {"scoring_func", {}}, {"norm_topk_prob", {}}, {"routed_scaling_factor", {}}}));
  EXPECT_EQ(v2.config, parsed(read_fixture("deepseek-v2-lite")).config);
  EXPECT_THAT(v2.warnings,
              ElementsAre("topk_method: missing, taken as greedy, the default of deepseek_v2",
                          "norm_topk_prob: missing, taken as false, the default of deepseek_v2",
                          "routed_scaling_factor: missing, taken as 1, the default of deepseek_v2"));
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"max_position_embeddings", {}}})).config.max_position_embeddings, 2048);
  EXPECT_EQ(parsed(edited("deepseek-v3", {{"max_position_embeddings", {}}})).config.max_position_embeddings, 4096);
}

TEST(Config, NullCountsOfExperts) {
  const ParsedConfig dense = parsed(edited("deepseek-v3", {{"n_routed_experts", nullptr}}));
  EXPECT_EQ(dense.config.n_routed_experts, 0);
  EXPECT_EQ(dense.config.n_shared_experts, 0);
  EXPECT_FALSE(dense.config.is_moe_layer(10));
  EXPECT_THAT(dense.warnings, IsEmpty());
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"n_routed_experts", {}}})).config.n_routed_experts, 0);
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"n_shared_experts", nullptr}})).config.n_shared_experts, 0);
  const ModelConfig ungrouped =
      parsed(edited("deepseek-v2-lite", {{"n_group", nullptr}, {"topk_group", nullptr}})).config;
  EXPECT_EQ(ungrouped, parsed(read_fixture("deepseek-v2-lite")).config);
  // Greedy selection never looks at groups, so that whatever the file says must not reach the gate.
  EXPECT_EQ(parsed(edited("deepseek-v2-lite", {{"n_group", 7}, {"topk_group", 3}})).config, ungrouped);
  EXPECT_EQ(parsed(edited("deepseek-v2-lite", {{"topk_method", "gready"}})).config, ungrouped);
}

TEST(Config, MoeLayerFrequency) {
  const ModelConfig c = parsed(edited("deepseek-v2", {{"moe_layer_freq", 2}, {"first_k_dense_replace", 3}})).config;
  EXPECT_FALSE(c.is_moe_layer(2));
  EXPECT_FALSE(c.is_moe_layer(3));
  EXPECT_TRUE(c.is_moe_layer(4));
  EXPECT_EQ(failure(edited("deepseek-v2", {{"moe_layer_freq", 0}})),
            "moe_layer_freq: expected an integer from 1 to 1000, found 0");
}

TEST(Config, CrossChecksOfTheExperts) {
  EXPECT_EQ(failure(edited("deepseek-v2", {{"n_group", 7}})),
            "n_routed_experts: expected a multiple of n_group 7, found 160");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"topk_group", 9}})), "topk_group: expected at most n_group 8, found 9");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"num_experts_per_tok", 61}})),
            "num_experts_per_tok: expected at most the experts of the kept groups, 60, found 61");
  EXPECT_EQ(failure(edited("deepseek-v2-lite", {{"num_experts_per_tok", 65}})),
            "num_experts_per_tok: expected at most n_routed_experts 64, found 65");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"first_k_dense_replace", 61}})),
            "first_k_dense_replace: expected at most num_hidden_layers 60, found 61");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"n_group", nullptr}})),
            "n_group: expected a count for topk_method group_limited_greedy, found none");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"topk_group", {}}})),
            "topk_group: expected a count for topk_method group_limited_greedy, found none");
  EXPECT_EQ(failure(edited("deepseek-v3", {{"n_group", 256}})),
            "n_group: expected at least 2 experts per group for topk_method noaux_tc, found 256 experts in 256 groups");
  EXPECT_EQ(failure(edited("deepseek-v3", {{"scoring_func", "softmax"}}), Errc::kUnsupported),
            "topk_method: expected noaux_tc with scoring_func sigmoid, or greedy or group_limited_greedy with softmax, "
            "found noaux_tc with softmax");
  EXPECT_THAT(failure(edited("deepseek-v2", {{"scoring_func", "sigmoid"}}), Errc::kUnsupported),
              HasSubstr("found group_limited_greedy with sigmoid"));
  EXPECT_THAT(failure(edited("deepseek-moe-16b", {{"topk_method", "noaux_tc"}}), Errc::kUnsupported),
              HasSubstr("expected greedy with scoring_func softmax for model_type deepseek"));
  EXPECT_THAT(failure(edited("deepseek-v2", {{"moe_intermediate_size", {}}})),
              HasSubstr("moe_intermediate_size: missing"));
  EXPECT_THAT(failure(edited("deepseek-v2", {{"num_experts_per_tok", {}}})), HasSubstr("num_experts_per_tok: missing"));
  EXPECT_THAT(parsed(edited("deepseek-v2", {{"scoring_func", "sigmoid"}, {"topk_method", "noaux_tc"}})).warnings,
              ElementsAre("topk_method: noaux_tc is unusual for model_type deepseek_v2; taken as written"));
  EXPECT_THAT(parsed(edited("deepseek-moe-16b", {{"routed_scaling_factor", 2}})).warnings,
              ElementsAre("unknown field \"routed_scaling_factor\" is ignored"));
}

TEST(Config, SizesThatWouldOverflowAreRefused) {
  const std::string too_many_experts =
      failure(edited("deepseek-v2", {{"n_routed_experts", 65536}, {"n_group", 1}, {"topk_group", 1}}));
  EXPECT_EQ(too_many_experts,
            "n_routed_experts: expected at most 262144 experts in all layers, found 59 layers of 65536");
  EXPECT_THAT(failure(edited("deepseek-v2",
                             {{"hidden_size", 1 << 20},
                              {"intermediate_size", 1 << 22},
                              {"num_hidden_layers", 1000},
                              {"n_routed_experts", nullptr}})),
              HasSubstr("config: expected at most 1125899906842624 parameters, found "));
  EXPECT_THAT(failure(edited("deepseek-v2",
                             {{"hidden_size", 1 << 20},
                              {"moe_intermediate_size", 1 << 20},
                              {"num_hidden_layers", 5},
                              {"n_routed_experts", 65536},
                              {"num_attention_heads", 4096},
                              {"qk_nope_head_dim", 65536},
                              {"v_head_dim", 65536},
                              {"kv_lora_rank", 65536},
                              {"n_group", 1},
                              {"topk_group", 1},
                              {"num_experts_per_tok", 65536}})),
              HasSubstr("found "));
}

TEST(Config, RopeParametersWinOverLegacyFields) {
  // Trap T10: both forms in one file.
  Json json = read_fixture("deepseek-v2-lite-5x");
  json.set("rope_theta", 500000);
  json.set("rope_scaling", Json(Json::Object{{"type", "linear"}, {"factor", 8}}));
  json.set("torch_dtype", "float32");
  const ParsedConfig both = parsed(json);
  EXPECT_EQ(both.config, parsed(read_fixture("deepseek-v2-lite")).config);
  EXPECT_THAT(both.warnings,
              ElementsAre("rope_parameters.rope_theta: 10000 overrides rope_theta 5e+05",
                          "rope_parameters overrides rope_scaling",
                          "dtype: \"bfloat16\" overrides torch_dtype \"float32\""));

  // A nested base with the scaling still outside.
  Json split = read_fixture("deepseek-v2");
  split.set("rope_theta", nullptr);
  split.set("rope_parameters", Json(Json::Object{{"rope_theta", 50000.0}}));
  EXPECT_EQ(parsed(split).config.rope_theta, 50000.0);
  EXPECT_EQ(parsed(split).config.rope_scaling.type, RopeScalingType::kYarn);
  // A base inside the legacy object wins over the outer one, too, but not over rope_parameters.
  split.set("rope_parameters", nullptr);
  split.set("rope_theta", 10000);
  Json scaling = *split.find("rope_scaling");
  scaling.set("rope_theta", 70000);
  split.set("rope_scaling", scaling);
  EXPECT_EQ(parsed(split).config.rope_theta, 70000.0);
  split.set("rope_parameters", Json(Json::Object{{"rope_theta", 50000.0}}));
  EXPECT_EQ(parsed(split).config.rope_theta, 50000.0);
}

TEST(Config, RopeScalingTypes) {
  const Json linear = Json(Json::Object{{"type", "linear"}, {"factor", 4}});
  const ModelConfig scaled = parsed(edited("deepseek-llm-7b", {{"rope_scaling", linear}})).config;
  EXPECT_EQ(scaled.rope_scaling.type, RopeScalingType::kLinear);
  EXPECT_EQ(scaled.rope_scaling.factor, 4.0);
  const Json none = Json(Json::Object{{"rope_type", "default"}});
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"rope_scaling", none}})).config.rope_scaling, RopeScaling{});
  for (const char* type : {"dynamic", "llama3", "longrope", "su"}) {
    EXPECT_EQ(failure(edited_in("deepseek-v2", "rope_scaling", "type", type), Errc::kUnsupported),
              str("rope_scaling.type: expected yarn, linear or default, found \"", type, "\""));
  }
  EXPECT_EQ(failure(edited("deepseek-v2", {{"rope_scaling", Json::object()}})),
            "rope_scaling.type: missing, expected yarn, linear or default");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"rope_scaling", "yarn"}})),
            "rope_scaling: expected an object or null, found \"yarn\"");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"rope_parameters", 3}})),
            "rope_parameters: expected an object or null, found 3");
  EXPECT_EQ(failure(edited_in("deepseek-v2", "rope_scaling", "rope_type", "linear")),
            "rope_scaling.type: expected \"linear\" as in rope_type, found \"yarn\"");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"rope_parameters", Json(Json::Object{{"factor", 40}})}})),
            "rope_parameters.rope_type: missing, expected yarn, linear or default");
}

TEST(Config, YarnRanges) {
  const auto with = [](std::string_view member, const Json& value) {
    return edited_in("deepseek-v2", "rope_scaling", member, value);
  };
  EXPECT_EQ(failure(with("factor", 0.5)), "rope_scaling.factor: expected a number from 1 to 1e+06, found 0.5");
  EXPECT_EQ(failure(with("factor", nullptr)), "rope_scaling.factor: expected a number from 1 to 1e+06, found null");
  EXPECT_EQ(failure(with("original_max_position_embeddings", 0)),
            "rope_scaling.original_max_position_embeddings: expected an integer from 1 to 1073741824, found 0");
  EXPECT_EQ(failure(with("beta_fast", 0.5)), "rope_scaling.beta_fast: expected at least beta_slow 1, found 0.5");
  EXPECT_EQ(failure(with("beta_slow", 0)),
            "rope_scaling.beta_slow: expected a number above 0 and at most 1e+06, found 0");
  EXPECT_EQ(failure(with("mscale", -1)), "rope_scaling.mscale: expected a number from 0 to 100, found -1");
  EXPECT_EQ(failure(with("attention_factor", 1.5), Errc::kUnsupported),
            "rope_scaling.attention_factor: expected none or null, found 1.5");
  EXPECT_EQ(failure(with("truncate", false), Errc::kUnsupported), "rope_scaling.truncate: expected true, found false");
  EXPECT_THAT(parsed(with("extra", 1)).warnings, ElementsAre("unknown field rope_scaling.\"extra\" is ignored"));
  EXPECT_THAT(parsed(with("mscale_all_dim", 0)).warnings,
              ElementsAre("rope_scaling.mscale: 0.707 without mscale_all_dim scales cos and sin, not the scores"));
  const Json bare = Json(Json::Object{{"type", "yarn"}, {"factor", 40}, {"original_max_position_embeddings", 4096}});
  const RopeScaling defaults = parsed(edited("deepseek-v2", {{"rope_scaling", bare}})).config.rope_scaling;
  EXPECT_EQ(defaults.beta_fast, 32.0);
  EXPECT_EQ(defaults.beta_slow, 1.0);
  EXPECT_EQ(defaults.mscale, 1.0);
  EXPECT_EQ(defaults.mscale_all_dim, 0.0);
}

TEST(Config, RopeLayoutAndPartialRotation) {
  EXPECT_EQ(parsed(edited("deepseek-v3", {{"rope_interleave", false}})).config.rope_layout, RopeLayout::kHalfSplit);
  EXPECT_EQ(parsed(edited("deepseek-v2", {{"rope_interleave", false}})).warnings.size(), 1u);
  EXPECT_EQ(parsed(edited("deepseek-llm-7b", {{"rope_interleave", true}})).config.rope_layout,
            RopeLayout::kInterleaved);
  EXPECT_TRUE(parsed(edited("deepseek-llm-7b", {{"rope_interleave", true}})).warnings.empty());
  EXPECT_EQ(failure(edited("deepseek-llm-7b", {{"partial_rotary_factor", 0.5}}), Errc::kUnsupported),
            "partial_rotary_factor: expected 1, found 0.5");
  EXPECT_THAT(parsed(edited("deepseek-llm-7b", {{"partial_rotary_factor", 1.0}})).warnings, IsEmpty());
}

TEST(Config, QuantizationOtherThanFp8InBlocksIsRefused) {
  const auto with = [](std::string_view member, const Json& value) {
    return edited_in("deepseek-v3", "quantization_config", member, value);
  };
  const auto refused = [&](std::string_view member, const Json& value) {
    return failure(with(member, value), Errc::kUnsupported);
  };
  EXPECT_EQ(refused("quant_method", "gptq"), "quantization_config.quant_method: expected fp8, found \"gptq\"");
  EXPECT_EQ(refused("quant_method", nullptr), "quantization_config.quant_method: expected fp8, found none");
  EXPECT_EQ(refused("fmt", "e5m2"), "quantization_config.fmt: expected e4m3, found \"e5m2\"");
  EXPECT_EQ(refused("activation_scheme", "static"),
            "quantization_config.activation_scheme: expected dynamic, found \"static\"");
  EXPECT_EQ(refused("scale_fmt", 8), "quantization_config.scale_fmt: expected ue8m0, found 8");
  EXPECT_EQ(refused("weight_block_size", Json::list(std::vector<int64_t>{64, 128})),
            "quantization_config.weight_block_size: expected [128, 128], found \"[64,128]\"");
  EXPECT_EQ(refused("weight_block_size", nullptr),
            "quantization_config.weight_block_size: expected [128, 128], found none");
  EXPECT_EQ(refused("weight_block_size", 128), "quantization_config.weight_block_size: expected [128, 128], found 128");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"quantization_config", "fp8"}})),
            "quantization_config: expected an object or null, found \"fp8\"");
  EXPECT_TRUE(parsed(with("scale_fmt", "ue8m0")).config.fp8);
  EXPECT_THAT(parsed(with("bits", 8)).warnings, ElementsAre("unknown field quantization_config.\"bits\" is ignored"));
  EXPECT_FALSE(parsed(edited("deepseek-v3", {{"quantization_config", nullptr}})).config.fp8);
}

TEST(Config, TokenIdsLieInTheVocabulary) {
  const ModelConfig many =
      parsed(edited("deepseek-v2", {{"eos_token_id", Json::list(std::vector<int64_t>{100001, 7})}})).config;
  EXPECT_THAT(many.eos_token_ids, ElementsAre(100001, 7));
  const ModelConfig none = parsed(edited("deepseek-v2", {{"eos_token_id", nullptr}, {"bos_token_id", nullptr}})).config;
  EXPECT_THAT(none.eos_token_ids, IsEmpty());
  EXPECT_FALSE(none.bos_token_id.has_value());
  EXPECT_EQ(failure(edited("deepseek-v2", {{"bos_token_id", 102400}})),
            "bos_token_id: expected an integer from 0 to 102399, found 102400");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"eos_token_id", -1}})),
            "eos_token_id: expected an integer from 0 to 102399, found -1");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"eos_token_id", Json::list(std::vector<int64_t>{1, 102400})}})),
            "eos_token_id: expected an integer from 0 to 102399, found 102400");
  EXPECT_EQ(failure(edited("deepseek-v2", {{"eos_token_id", Json::list(std::vector<int64_t>(2000, 1))}})),
            "eos_token_id: expected at most 1024 ids, found 2000");
}

TEST(Config, UnknownFieldsWarnOnceEachAndInBounds) {
  EXPECT_THAT(parsed(edited("deepseek-v2", {{"sliding\nwindow", 4096}, {"use_cache", false}})).warnings,
              ElementsAre("unknown field \"sliding\\x0awindow\" is ignored"));
  Json json = read_fixture("deepseek-v2");
  for (int i = 0; i < 100; ++i) json.set(str("field_", i), i);
  const ParsedConfig flood = parsed(json);
  ASSERT_EQ(flood.warnings.size(), 21u);
  EXPECT_EQ(flood.warnings.back(), "80 more unknown fields are ignored");
  EXPECT_THAT(parsed(edited("deepseek-v2", {{"torch_dtype", "int3"}})).warnings,
              ElementsAre("dtype: unknown type \"int3\"; the types of the stored tensors decide"));
}

TEST(Config, LoadNamesTheFile) {
  const testing::TempDir folder;
  const std::filesystem::path file = folder / "config.json";
  const Result<ParsedConfig> absent = load_config(folder.path());
  ASSERT_FALSE(absent.has_value());
  EXPECT_THAT(absent.error().message, HasSubstr(file.string()));
  std::ofstream(file) << edited("deepseek-v2", {{"hidden_size", 0}}).dump();
  for (const std::filesystem::path& path : {folder.path(), file}) {
    const Result<ParsedConfig> wrong = load_config(path);
    ASSERT_FALSE(wrong.has_value());
    EXPECT_EQ(wrong.error().message, str(file, ": hidden_size: expected an integer from 1 to 1048576, found 0"));
  }
  std::ofstream(file) << "{\"hidden_size\": ";
  EXPECT_THAT(load_config(folder.path()).error().message, HasSubstr(file.string()));
}

}  // namespace
}  // namespace lathe
