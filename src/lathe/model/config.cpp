#include "lathe/model/config.h"

#include <algorithm>

#include "lathe/base/str.h"
#include "lathe/model/config_parts.h"

namespace lathe {
namespace {

constexpr IntegerRange kVocab{1, int64_t{1} << 24};
constexpr IntegerRange kHidden{1, int64_t{1} << 20};
constexpr IntegerRange kWidth{1, int64_t{1} << 22};  // feed-forward widths
constexpr IntegerRange kLayers{1, 1000};
constexpr IntegerRange kHeads{1, 4096};
constexpr IntegerRange kHeadDim{1, 65536};
constexpr IntegerRange kRank{1, 65536};
constexpr IntegerRange kContext{1, int64_t{1} << 30};
constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 24;
constexpr size_t kMaxUnknownWarnings = 20;
constexpr size_t kMaxEosTokens = 1024;

// Fields that say nothing about what the model computes: training and deployment settings, bookkeeping of
// transformers, and values that follow from fields that are read.
constexpr std::string_view kHarmless[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_from_model_config",
    "_name_or_path",
    "add_cross_attention",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "ep_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
};

// What a field that is absent means depends on the configuration class of the model type.
void set_class_defaults(ModelConfig& config) {
  config.max_position_embeddings = 2048;
  config.rope_layout = config.attention == AttentionKind::kMla ? RopeLayout::kInterleaved : RopeLayout::kHalfSplit;
  if (config.model_type != ModelType::kDeepseekV3 && config.model_type != ModelType::kKimiK2) return;
  config.max_position_embeddings = 4096;
  config.n_routed_experts = 256;
  config.n_shared_experts = 1;
  config.num_experts_per_tok = 8;
  config.n_group = 8;
  config.topk_group = 4;
  config.first_k_dense_replace = 3;
  config.topk_method = TopkMethod::kNoauxTc;
  config.scoring_func = ScoringFunc::kSigmoid;
  config.norm_topk_prob = true;
  config.routed_scaling_factor = 2.5;
}

Status read_mla(FieldReader& fields, ParsedConfig& out) {
  ModelConfig& config = out.config;
  bool use_mla = true;
  LATHE_TRY(fields.boolean("use_mla", Presence::kNullIsAbsent, use_mla));
  if (!use_mla) {
    return Error{Errc::kUnsupported,
                 str("use_mla: expected true for model_type ",
                     name_of(config.model_type),
                     ", found false (plain attention under this type is not supported)")};
  }
  LATHE_TRY(fields.integer("kv_lora_rank", kRank, Presence::kRequired, config.kv_lora_rank));
  LATHE_TRY(fields.integer("qk_nope_head_dim", kHeadDim, Presence::kRequired, config.qk_nope_head_dim));
  LATHE_TRY(fields.integer("qk_rope_head_dim", kHeadDim, Presence::kRequired, config.qk_rope_head_dim));
  LATHE_TRY(fields.integer("v_head_dim", kHeadDim, Presence::kRequired, config.v_head_dim));
  LATHE_TRY(fields.boolean("qk_latent_layernorm", Presence::kNullIsAbsent, config.qk_latent_layernorm));
  // The defaults of the known readers contradict each other (1536 and none), so the field has to be there.
  if (!fields.has("q_lora_rank")) {
    return fields.missing("q_lora_rank", "an integer, or null for no query compression");
  }
  LATHE_TRY(fields.integer("q_lora_rank", {0, kRank.greatest}, Presence::kNullIsAbsent, config.q_lora_rank));
  // Meaningless under MLA, and written as num_attention_heads by every release. head_dim is d_h^R in 5.x files (T13).
  int64_t kv_heads = config.num_attention_heads;
  LATHE_TRY(fields.integer("num_key_value_heads", kHeads, Presence::kNullIsAbsent, kv_heads));
  if (kv_heads != config.num_attention_heads) {
    out.warnings.push_back(str("num_key_value_heads: expected num_attention_heads ",
                               config.num_attention_heads,
                               " under latent attention, found ",
                               kv_heads,
                               "; ignored"));
  }
  config.num_key_value_heads = config.num_attention_heads;
  constexpr std::string_view kDerived[] = {"head_dim", "qk_head_dim"};
  fields.ignore(kDerived);
  return {};
}

Status read_gqa(FieldReader& fields, ModelConfig& config) {
  config.num_key_value_heads = config.num_attention_heads;
  LATHE_TRY(fields.integer("num_key_value_heads", kHeads, Presence::kNullIsAbsent, config.num_key_value_heads));
  LATHE_TRY(fields.integer("head_dim", kHeadDim, Presence::kNullIsAbsent, config.head_dim));
  constexpr std::string_view kMeaningless[] = {"use_mla"};
  fields.ignore(kMeaningless);
  if (config.head_dim != 0) return {};
  if (config.hidden_size % config.num_attention_heads != 0) {
    return Error{Errc::kInvalidData,
                 str("hidden_size: expected a multiple of num_attention_heads ",
                     config.num_attention_heads,
                     " where head_dim is not given, found ",
                     config.hidden_size)};
  }
  config.head_dim = config.hidden_size / config.num_attention_heads;
  return {};
}

Status read_sizes(FieldReader& fields, ModelConfig& config) {
  LATHE_TRY(fields.integer("vocab_size", kVocab, Presence::kRequired, config.vocab_size));
  LATHE_TRY(fields.integer("hidden_size", kHidden, Presence::kRequired, config.hidden_size));
  LATHE_TRY(fields.integer("intermediate_size", kWidth, Presence::kRequired, config.intermediate_size));
  LATHE_TRY(fields.integer("num_hidden_layers", kLayers, Presence::kRequired, config.num_hidden_layers));
  LATHE_TRY(fields.integer("num_attention_heads", kHeads, Presence::kRequired, config.num_attention_heads));
  return fields.integer("max_position_embeddings", kContext, Presence::kOptional, config.max_position_embeddings);
}

// Switches of the block itself: activation, norms, biases, tied embeddings.
Status read_block(FieldReader& fields, ModelConfig& config) {
  std::string activation = "silu";
  LATHE_TRY(fields.text("hidden_act", Presence::kNullIsAbsent, activation));
  if (activation != "silu") {
    return Error{Errc::kUnsupported, str("hidden_act: expected silu, found ", quoted(activation))};
  }
  LATHE_TRY(fields.real("rms_norm_eps", {0.0, 1e-2, true}, Presence::kOptional, config.rms_norm_eps));
  LATHE_TRY(fields.boolean("attention_bias", Presence::kNullIsAbsent, config.attention_bias));
  LATHE_TRY(fields.boolean("tie_word_embeddings", Presence::kNullIsAbsent, config.tie_word_embeddings));
  bool mlp_bias = false;
  LATHE_TRY(fields.boolean("mlp_bias", Presence::kNullIsAbsent, mlp_bias));
  if (mlp_bias) {
    return Error{Errc::kUnsupported, "mlp_bias: expected false, found true (biases in the MLP are not supported)"};
  }
  return {};
}

Status read_dtype(FieldReader& fields, ParsedConfig& out) {
  std::string legacy;
  LATHE_TRY(fields.text("torch_dtype", Presence::kNullIsAbsent, legacy));
  out.config.dtype = legacy;
  LATHE_TRY(fields.text("dtype", Presence::kNullIsAbsent, out.config.dtype));
  const std::string& dtype = out.config.dtype;
  if (!legacy.empty() && legacy != dtype) {
    out.warnings.push_back(str("dtype: ", quoted(dtype), " overrides torch_dtype ", quoted(legacy)));
  }
  constexpr std::string_view kKnown[] = {"",
                                         "bfloat16",
                                         "float16",
                                         "float32",
                                         "float64",
                                         "float8_e4m3fn",
                                         "q4_0",
                                         "q4_1",
                                         "q5_0",
                                         "q5_1",
                                         "q8_0",
                                         "q4_k_s",
                                         "q4_k_m",
                                         "q5_k_s",
                                         "q5_k_m",
                                         "q6_k"};
  if (std::find(std::begin(kKnown), std::end(kKnown), dtype) == std::end(kKnown)) {
    out.warnings.push_back(str("dtype: unknown type ", quoted(dtype), "; the types of the stored tensors decide"));
  }
  return {};
}

Status read_tokens(FieldReader& fields, ModelConfig& config) {
  const IntegerRange ids{0, config.vocab_size - 1};
  int64_t bos = -1;
  LATHE_TRY(fields.integer("bos_token_id", ids, Presence::kNullIsAbsent, bos));
  if (bos >= 0) config.bos_token_id = bos;
  const Json* eos = fields.find_value("eos_token_id");
  if (eos != nullptr && eos->is_array()) {
    if (eos->as_array().size() > kMaxEosTokens) {
      return Error{Errc::kInvalidData,
                   str("eos_token_id: expected at most ", kMaxEosTokens, " ids, found ", eos->as_array().size())};
    }
    for (const Json& element : eos->as_array()) {
      // A one-member object lets each element share the reader's type and range check under the field's name.
      const Json member = Json(Json::Object{{"eos_token_id", element}});
      FieldReader one(member, "");
      int64_t id = 0;
      LATHE_TRY(one.integer("eos_token_id", ids, Presence::kRequired, id));
      config.eos_token_ids.push_back(id);
    }
    return {};
  }
  int64_t id = -1;
  LATHE_TRY(fields.integer("eos_token_id", ids, Presence::kNullIsAbsent, id));
  if (id >= 0) config.eos_token_ids.push_back(id);
  return {};
}

}  // namespace

void warn_unknown(const FieldReader& fields, std::vector<std::string>& warnings) {
  const std::vector<std::string> unknown = fields.unknown_fields();
  for (size_t i = 0; i < std::min(unknown.size(), kMaxUnknownWarnings); ++i) {
    warnings.push_back(str("unknown field ", unknown[i], " is ignored"));
  }
  if (unknown.size() > kMaxUnknownWarnings) {
    warnings.push_back(str(unknown.size() - kMaxUnknownWarnings, " more unknown fields are ignored"));
  }
}

Result<ParsedConfig> parse_config(const Json& json) {
  if (!json.is_object()) return Error{Errc::kInvalidData, str("expected an object, found ", found_text(json))};
  FieldReader fields(json, "");
  ParsedConfig out;
  ModelConfig& config = out.config;
  LATHE_TRY(read_model_type(fields, config));
  set_class_defaults(config);
  LATHE_TRY(read_sizes(fields, config));
  if (config.attention == AttentionKind::kMla) {
    LATHE_TRY(read_mla(fields, out));
  } else {
    LATHE_TRY(read_gqa(fields, config));
  }
  if (config.model_type != ModelType::kLlama) LATHE_TRY(read_moe(fields, out));
  LATHE_TRY(read_block(fields, config));
  LATHE_TRY(read_rope(fields, out));
  LATHE_TRY(read_dtype(fields, out));
  LATHE_TRY(read_quantization(fields, out));
  LATHE_TRY(read_tokens(fields, config));
  LATHE_TRY(check_config(config));
  fields.ignore(kHarmless);
  warn_unknown(fields, out.warnings);
  return out;
}

Result<ParsedConfig> load_config(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::path file = std::filesystem::is_directory(path, ignored) ? path / "config.json" : path;
  LATHE_TRY(const Json json, read_json(file, {.max_bytes = kMaxConfigBytes}));
  Result<ParsedConfig> parsed = parse_config(json);
  if (!parsed) return parsed.error().at(file.string());
  return parsed;
}

bool ModelConfig::is_moe_layer(int64_t layer) const {
  return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
}

int64_t ModelConfig::cache_row_elements() const {
  if (attention == AttentionKind::kMla) return kv_lora_rank + qk_rope_head_dim;
  return 2 * num_key_value_heads * head_dim;
}

std::string_view name_of(ModelType value) {
  switch (value) {
    case ModelType::kDeepseekV2:
      return "deepseek_v2";
    case ModelType::kDeepseekV3:
      return "deepseek_v3";
    case ModelType::kKimiK2:
      return "kimi_k2";
    case ModelType::kDeepseek:
      return "deepseek";
    case ModelType::kLlama:
      return "llama";
  }
  return "unknown";
}

std::string_view name_of(TopkMethod value) {
  switch (value) {
    case TopkMethod::kGreedy:
      return "greedy";
    case TopkMethod::kGroupLimitedGreedy:
      return "group_limited_greedy";
    case TopkMethod::kNoauxTc:
      return "noaux_tc";
  }
  return "unknown";
}

std::string_view name_of(ScoringFunc value) {
  return value == ScoringFunc::kSoftmax ? "softmax" : "sigmoid";
}

std::string_view name_of(RopeScalingType value) {
  switch (value) {
    case RopeScalingType::kNone:
      return "none";
    case RopeScalingType::kYarn:
      return "yarn";
    case RopeScalingType::kLinear:
      return "linear";
  }
  return "unknown";
}

}  // namespace lathe
