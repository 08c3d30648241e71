#include "lathe/formats/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <unordered_set>

#include "lathe/base/str.h"

namespace lathe {
namespace {

constexpr size_t kMaxUnknownKeys = 100;
constexpr int64_t kSoftmax = 1;  // expert_gating_func
constexpr int64_t kSigmoid = 2;

// Access to the keys of one architecture, with messages that name them. Remembers which were asked for.
class Keys {
 public:
  Keys(const GgufModel& model, std::string prefix) : model_(model), prefix_(std::move(prefix)) {}

  const GgufField* find(std::string_view key) {
    known_.insert(prefix_ + std::string(key));
    return model_.header().find(prefix_ + std::string(key));
  }

  bool has(std::string_view key) { return find(key) != nullptr; }

  // An integer, also given per layer when all layers have the same; nothing when the key is absent.
  Result<std::optional<int64_t>> integer(std::string_view key) {
    const GgufField* field = find(key);
    if (field == nullptr) return std::optional<int64_t>();
    const GgufField::Array* list = field->array();
    if (list == nullptr) {
      const std::optional<int64_t> value = field->integer();
      if (!value) return wrong(key, "an integer", *field);
      return value;
    }
    if (list->element == GgufType::kString || list->size == 0) return wrong(key, "an integer", *field);
    const std::optional<int64_t> first = element_of(*list, 0).integer();
    for (uint64_t i = 0; i < list->size; ++i) {
      if (!first || element_of(*list, i).integer() != first)
        return wrong(key, "the same integer for all layers", *field);
    }
    return first;
  }

  Result<std::optional<double>> real(std::string_view key) {
    const GgufField* field = find(key);
    if (field == nullptr) return std::optional<double>();
    const std::optional<double> value = field->real();
    if (!value || !std::isfinite(*value)) return wrong(key, "a finite number", *field);
    return value;
  }

  Result<std::optional<std::string_view>> text(std::string_view key) {
    const GgufField* field = find(key);
    if (field == nullptr) return std::optional<std::string_view>();
    const std::optional<std::string_view> value = field->text();
    if (!value) return wrong(key, "a string", *field);
    return value;
  }

  Result<bool> boolean_or(std::string_view key, bool fallback) {
    const GgufField* field = find(key);
    if (field == nullptr) return fallback;
    const std::optional<bool> value = field->boolean();
    if (!value) return wrong(key, "a bool", *field);
    return *value;
  }

  Result<int64_t> need_integer(std::string_view key) {
    LATHE_TRY(const std::optional<int64_t> value, integer(key));
    if (!value) return missing(key, "an integer");
    return *value;
  }

  Result<int64_t> integer_or(std::string_view key, int64_t fallback) {
    LATHE_TRY(const std::optional<int64_t> value, integer(key));
    return value.value_or(fallback);
  }

  Result<double> real_or(std::string_view key, double fallback) {
    LATHE_TRY(const std::optional<double> value, real(key));
    return value.value_or(fallback);
  }

  // A factor that is understood only when it changes nothing.
  Status expect_one(std::string_view key) {
    LATHE_TRY(const double value, real_or(key, 1.0));
    if (value == 1.0) return {};
    return error(Errc::kUnsupported, key, str("expected 1, found ", value));
  }

  void ignore(std::initializer_list<std::string_view> keys) {
    for (const std::string_view key : keys) known_.insert(prefix_ + std::string(key));
  }

  Error error(Errc code, std::string_view key, std::string_view what) const {
    return {code, str(model_.path(), ": key ", lathe::quoted(prefix_ + std::string(key)), ": ", what)};
  }

  Error wrong(std::string_view key, std::string_view expected, const GgufField& found) const {
    return error(Errc::kInvalidData, key, str("expected ", expected, ", found ", found.describe()));
  }

  Error missing(std::string_view key, std::string_view expected) const {
    return error(Errc::kInvalidData, key, str("expected ", expected, ", found none"));
  }

  // Keys of the architecture that nobody asked for, as fields with a text each.
  void add_unknown(Json::Object& out) const {
    size_t count = 0;
    for (const GgufHeader::Entry& entry : model_.header().metadata) {
      const std::string key(entry.key);
      if (!key.starts_with(prefix_) || known_.contains(key)) continue;
      if (++count > kMaxUnknownKeys) return;
      out.emplace_back(key, entry.value.describe());
    }
  }

 private:
  const GgufModel& model_;
  std::string prefix_;
  std::unordered_set<std::string> known_;
};

bool has_tensor(const GgufModel& model, std::string_view name) {
  return model.find(name) != nullptr;
}

// Number of tokens: as stated, else as listed, else the rows of the embedding.
Result<int64_t> vocabulary_size(const GgufModel& model, Keys& keys) {
  LATHE_TRY(const std::optional<int64_t> stated, keys.integer("vocab_size"));
  if (stated) return *stated;
  const GgufField* tokens = model.header().find("tokenizer.ggml.tokens");
  if (tokens != nullptr && tokens->array() != nullptr) return static_cast<int64_t>(tokens->array()->size);
  const StoredTensor* embedding = model.find("token_embd.weight");
  if (embedding != nullptr && embedding->shape.size() == 2) return embedding->shape[0];
  return keys.missing("vocab_size", "an integer (there is no list of tokens either)");
}

// 10 x the value in the precision of the file: 0.0707 gives 0.707.
double ten_times(double value) {
  const std::string text = str(static_cast<float>(value * 10.0));
  double out = value * 10.0;
  parse_double(text, out);
  return out;
}

Status add_yarn(Keys& keys, bool mla, Json& scaling) {
  LATHE_TRY(const int64_t original, keys.need_integer("rope.scaling.original_context_length"));
  LATHE_TRY(const double fast, keys.real_or("rope.scaling.yarn_beta_fast", 32.0));
  LATHE_TRY(const double slow, keys.real_or("rope.scaling.yarn_beta_slow", 1.0));
  scaling.set("original_max_position_embeddings", original);
  scaling.set("beta_fast", fast);
  scaling.set("beta_slow", slow);
  // Cosines and sines are scaled by a factor of which all readers of these files take out what they put in, so both
  // mscales are the same (trap T18).
  LATHE_TRY(const double multiplier, keys.real_or("rope.scaling.yarn_log_multiplier", 0.0));
  if (!mla) return {};
  scaling.set("mscale", ten_times(multiplier));
  scaling.set("mscale_all_dim", ten_times(multiplier));
  return {};
}

Status add_rope(Keys& keys, bool mla, Json& config) {
  LATHE_TRY(const double theta, keys.real_or("rope.freq_base", 10000.0));
  config.set("rope_theta", theta);
  LATHE_TRY(keys.expect_one("rope.scaling.attn_factor"));
  LATHE_TRY(keys.expect_one("rope.scaling.yarn_attn_factor"));
  LATHE_TRY(keys.expect_one("rope.scaling.yarn_ext_factor"));
  keys.ignore({"rope.scaling.finetuned",
               "rope.scaling.original_context_length",
               "rope.scaling.yarn_log_multiplier",
               "rope.scaling.yarn_beta_fast",
               "rope.scaling.yarn_beta_slow"});
  LATHE_TRY(const double old_linear, keys.real_or("rope.scale_linear", 1.0));
  LATHE_TRY(const std::optional<double> factor, keys.real("rope.scaling.factor"));
  LATHE_TRY(const std::optional<std::string_view> type, keys.text("rope.scaling.type"));
  Json scaling = Json::object();
  if (!type || *type == "none") {
    if (old_linear == 1.0) return {};
    scaling.set("type", "linear");
    scaling.set("factor", old_linear);
  } else if (*type == "linear" || *type == "yarn") {
    if (!factor) return keys.missing("rope.scaling.factor", "a number");
    scaling.set("type", *type);
    scaling.set("factor", *factor);
    if (*type == "yarn") LATHE_TRY(add_yarn(keys, mla, scaling));
  } else {
    return keys.error(
        Errc::kUnsupported, "rope.scaling.type", str("expected none, linear or yarn, found ", lathe::quoted(*type)));
  }
  config.set("rope_scaling", std::move(scaling));
  return {};
}

// Sizes that every architecture has, under the same keys.
Status add_sizes(const GgufModel& model, Keys& keys, Json& config) {
  LATHE_TRY(int64_t layers, keys.need_integer("block_count"));
  LATHE_TRY(const int64_t nextn, keys.integer_or("nextn_predict_layers", 0));
  // Converters leave these layers out; a file that has them counts them as blocks.
  if (nextn > 0 && nextn < layers && has_tensor(model, str("blk.", layers - 1, ".nextn.eh_proj.weight"))) {
    layers -= nextn;
    config.set("num_nextn_predict_layers", nextn);
  }
  LATHE_TRY(const int64_t hidden, keys.need_integer("embedding_length"));
  LATHE_TRY(const int64_t width, keys.need_integer("feed_forward_length"));
  LATHE_TRY(const int64_t heads, keys.need_integer("attention.head_count"));
  LATHE_TRY(const int64_t context, keys.need_integer("context_length"));
  LATHE_TRY(const int64_t vocabulary, vocabulary_size(model, keys));
  LATHE_TRY(const std::optional<double> eps, keys.real("attention.layer_norm_rms_epsilon"));
  if (!eps) return keys.missing("attention.layer_norm_rms_epsilon", "a number");
  config.set("num_hidden_layers", layers);
  config.set("hidden_size", hidden);
  config.set("intermediate_size", width);
  config.set("num_attention_heads", heads);
  config.set("max_position_embeddings", context);
  config.set("vocab_size", vocabulary);
  config.set("rms_norm_eps", *eps);
  const bool has_biases = std::any_of(model.tensors().begin(), model.tensors().end(), [](const StoredTensor* tensor) {
    return tensor->name.starts_with("blk.0.attn_") && tensor->name.ends_with(".bias");
  });
  config.set("attention_bias", has_biases);
  config.set("tie_word_embeddings", !model.tensors().empty() && !has_tensor(model, "output.weight"));
  return {};
}

Status add_latent_attention(Keys& keys, Json& config) {
  LATHE_TRY(const int64_t rank, keys.need_integer("attention.kv_lora_rank"));
  LATHE_TRY(const int64_t query_rank, keys.integer_or("attention.q_lora_rank", 0));
  LATHE_TRY(const int64_t rope, keys.need_integer("rope.dimension_count"));
  // In the newer form the plain keys describe the one head that absorbed attention has.
  const bool newer = keys.has("attention.key_length_mla") || keys.has("attention.value_length_mla");
  const std::string_view key_name = newer ? "attention.key_length_mla" : "attention.key_length";
  const std::string_view value_name = newer ? "attention.value_length_mla" : "attention.value_length";
  LATHE_TRY(const int64_t key_length, keys.need_integer(key_name));
  LATHE_TRY(const int64_t value_length, keys.need_integer(value_name));
  keys.ignore({"attention.head_count_kv", "attention.key_length", "attention.value_length"});
  if (rope < 1 || key_length <= rope) {
    return keys.error(Errc::kInvalidData,
                      key_name,
                      str("expected more than the rope.dimension_count of ", rope, ", found ", key_length));
  }
  config.set("kv_lora_rank", rank);
  config.set("q_lora_rank", query_rank > 0 ? Json(query_rank) : Json());
  config.set("qk_rope_head_dim", rope);
  config.set("qk_nope_head_dim", key_length - rope);
  config.set("v_head_dim", value_length);
  return {};
}

// Plain attention. Such files have the rows of q and k in the order of adjacent pairs, whatever their source had.
Status add_plain_attention(Keys& keys, Json& config) {
  const Json* heads_field = config.find("num_attention_heads");
  const Json* hidden_field = config.find("hidden_size");
  const int64_t heads = heads_field->as_int();
  const int64_t hidden = hidden_field->as_int();
  LATHE_TRY(const int64_t kv_heads, keys.integer_or("attention.head_count_kv", heads));
  LATHE_TRY(const int64_t head_dim, keys.integer_or("attention.key_length", heads > 0 ? hidden / heads : 0));
  LATHE_TRY(const int64_t value_length, keys.integer_or("attention.value_length", head_dim));
  if (value_length != head_dim) {
    return keys.error(Errc::kUnsupported,
                      "attention.value_length",
                      str("expected the key length of ", head_dim, ", found ", value_length));
  }
  LATHE_TRY(const int64_t rotated, keys.integer_or("rope.dimension_count", head_dim));
  if (rotated != head_dim) {
    return keys.error(Errc::kUnsupported,
                      "rope.dimension_count",
                      str("expected the head's ", head_dim, " dimensions, found ", rotated));
  }
  config.set("num_key_value_heads", kv_heads);
  config.set("head_dim", head_dim);
  config.set("rope_interleave", true);
  return {};
}

// Kept and all groups of experts where the file does not say: what the published models of that size have.
struct Groups {
  int64_t count;
  int64_t kept;
};

Groups usual_groups(int64_t experts) {
  if (experts == 160) return {8, 3};
  if (experts == 256) return {8, 4};
  return {1, 1};
}

Status add_gate(const GgufModel& model, Keys& keys, int64_t experts, int64_t function, Json& config) {
  if (function != kSoftmax && function != kSigmoid) {
    return keys.error(
        Errc::kUnsupported, "expert_gating_func", str("expected 1 (softmax) or 2 (sigmoid), found ", function));
  }
  const bool biased = std::any_of(model.tensors().begin(), model.tensors().end(), [](const StoredTensor* tensor) {
    return tensor->name.find(".exp_probs_b") != std::string::npos;
  });
  if (biased && function == kSoftmax) {
    return keys.error(Errc::kUnsupported,
                      "expert_gating_func",
                      "expected 2 (sigmoid) beside exp_probs_b tensors, found 1 (softmax) or none");
  }
  const Groups usual = usual_groups(experts);
  LATHE_TRY(const int64_t groups, keys.integer_or("expert_group_count", usual.count));
  LATHE_TRY(const int64_t kept, keys.integer_or("expert_group_used_count", usual.kept));
  config.set("n_group", groups);
  config.set("topk_group", kept);
  config.set("scoring_func", function == kSigmoid ? "sigmoid" : "softmax");
  config.set("topk_method", function == kSigmoid ? "noaux_tc" : groups > 1 ? "group_limited_greedy" : "greedy");
  return {};
}

Status add_experts(Keys& keys, int64_t experts, Json& config) {
  LATHE_TRY(const int64_t chosen, keys.need_integer("expert_used_count"));
  LATHE_TRY(const int64_t shared, keys.integer_or("expert_shared_count", 0));
  LATHE_TRY(const int64_t width, keys.need_integer("expert_feed_forward_length"));
  LATHE_TRY(const int64_t dense, keys.integer_or("leading_dense_block_count", 0));
  LATHE_TRY(const bool normalised, keys.boolean_or("expert_weights_norm", false));
  config.set("n_routed_experts", experts);
  config.set("num_experts_per_tok", chosen);
  config.set("n_shared_experts", shared);
  config.set("moe_intermediate_size", width);
  config.set("first_k_dense_replace", dense);
  config.set("norm_topk_prob", normalised);
  return {};
}

Status add_deepseek2(const GgufModel& model, Keys& keys, Json& config) {
  // Files of the V2 era do not say: softmax (trap T19).
  LATHE_TRY(const int64_t function, keys.integer_or("expert_gating_func", kSoftmax));
  const bool v3 = function == kSigmoid;
  config.set("model_type", v3 ? "deepseek_v3" : "deepseek_v2");
  config.set("architectures", Json(Json::Array{Json(v3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM")}));
  LATHE_TRY(add_sizes(model, keys, config));
  LATHE_TRY(add_latent_attention(keys, config));
  LATHE_TRY(add_rope(keys, true, config));
  LATHE_TRY(const int64_t experts, keys.integer_or("expert_count", 0));
  if (experts == 0) {
    config.set("n_routed_experts", 0);
    return {};
  }
  LATHE_TRY(add_experts(keys, experts, config));
  LATHE_TRY(const double scale, keys.real_or("expert_weights_scale", 1.0));
  config.set("routed_scaling_factor", scale == 0.0 ? 1.0 : scale);
  return add_gate(model, keys, experts, function, config);
}

Status add_deepseek(const GgufModel& model, Keys& keys, Json& config) {
  config.set("model_type", "deepseek");
  config.set("architectures", Json(Json::Array{Json("DeepseekForCausalLM")}));
  LATHE_TRY(add_sizes(model, keys, config));
  LATHE_TRY(add_plain_attention(keys, config));
  LATHE_TRY(add_rope(keys, false, config));
  LATHE_TRY(const int64_t experts, keys.need_integer("expert_count"));
  LATHE_TRY(add_experts(keys, experts, config));
  LATHE_TRY(const int64_t function, keys.integer_or("expert_gating_func", kSoftmax));
  if (function != kSoftmax) {
    return keys.error(Errc::kUnsupported, "expert_gating_func", str("expected 1 (softmax), found ", function));
  }
  return keys.expect_one("expert_weights_scale");
}

Status add_llama(const GgufModel& model, Keys& keys, Json& config) {
  config.set("model_type", "llama");
  config.set("architectures", Json(Json::Array{Json("LlamaForCausalLM")}));
  LATHE_TRY(const int64_t experts, keys.integer_or("expert_count", 0));
  if (experts != 0) {
    return keys.error(Errc::kUnsupported, "expert_count", str("expected 0 for llama, found ", experts));
  }
  keys.ignore({"expert_used_count"});
  LATHE_TRY(add_sizes(model, keys, config));
  LATHE_TRY(add_plain_attention(keys, config));
  return add_rope(keys, false, config);
}

// The ids that end an answer, and the one that begins a text.
Status add_special_tokens(Keys& keys, Json& config) {
  LATHE_TRY(const std::optional<int64_t> bos, keys.integer("bos_token_id"));
  if (bos) config.set("bos_token_id", *bos);
  Json::Array ends;
  for (const std::string_view key : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
    LATHE_TRY(const std::optional<int64_t> id, keys.integer(key));
    if (id && std::find(ends.begin(), ends.end(), Json(*id)) == ends.end()) ends.emplace_back(*id);
  }
  if (ends.size() == 1) config.set("eos_token_id", ends.front());
  if (ends.size() > 1) config.set("eos_token_id", Json(std::move(ends)));
  return {};
}

// The type of most weights, informative.
Status add_dtype(Keys& keys, Json& config) {
  struct FileType {
    int64_t number;
    std::string_view name;
  };

  constexpr FileType kNames[] = {{0, "float32"},
                                 {1, "float16"},
                                 {2, "q4_0"},
                                 {3, "q4_1"},
                                 {7, "q8_0"},
                                 {8, "q5_0"},
                                 {9, "q5_1"},
                                 {14, "q4_k_s"},
                                 {15, "q4_k_m"},
                                 {16, "q5_k_s"},
                                 {17, "q5_k_m"},
                                 {18, "q6_k"},
                                 {32, "bfloat16"}};
  LATHE_TRY(const std::optional<int64_t> type, keys.integer("file_type"));
  for (const FileType& known : kNames) {
    if (type == known.number) config.set("torch_dtype", known.name);
  }
  return {};
}

}  // namespace

Result<Json> gguf_config(const GgufModel& model) {
  Keys general(model, "general.");
  LATHE_TRY(const std::optional<std::string_view> type, general.text("type"));
  if (type && *type != "model") {
    return general.error(Errc::kUnsupported, "type", str("expected model, found ", lathe::quoted(*type)));
  }
  LATHE_TRY(const std::optional<std::string_view> architecture, general.text("architecture"));
  constexpr std::string_view kExpected = "deepseek2, deepseek or llama";
  if (!architecture) return general.missing("architecture", kExpected);
  Keys keys(model, str(*architecture, "."));
  Json config = Json::object();
  if (*architecture == "deepseek2") {
    LATHE_TRY(add_deepseek2(model, keys, config));
  } else if (*architecture == "deepseek") {
    LATHE_TRY(add_deepseek(model, keys, config));
  } else if (*architecture == "llama") {
    LATHE_TRY(add_llama(model, keys, config));
  } else {
    return general.error(
        Errc::kUnsupported, "architecture", str("expected ", kExpected, ", found ", lathe::quoted(*architecture)));
  }
  LATHE_TRY(add_dtype(general, config));
  Keys tokenizer(model, "tokenizer.ggml.");
  LATHE_TRY(add_special_tokens(tokenizer, config));
  keys.add_unknown(config.as_object());
  return config;
}

Result<Json> gguf_generation_config(const GgufModel& model) {
  Keys keys(model, "general.sampling.");
  Json out = Json::object();
  LATHE_TRY(const std::optional<double> temperature, keys.real("temp"));
  LATHE_TRY(const std::optional<double> top_p, keys.real("top_p"));
  LATHE_TRY(const std::optional<int64_t> top_k, keys.integer("top_k"));
  LATHE_TRY(const std::optional<double> repetition, keys.real("penalty_repeat"));
  out.set("do_sample", temperature.has_value() && *temperature > 0.0);
  if (temperature) out.set("temperature", *temperature);
  if (top_p) out.set("top_p", *top_p);
  if (top_k) out.set("top_k", std::max<int64_t>(*top_k, 0));
  if (repetition) out.set("repetition_penalty", *repetition);
  Keys own(model, "lathe.sampling.");  // there is no common name for these
  for (const std::string_view name : {"dry_multiplier", "dry_base"}) {
    LATHE_TRY(const std::optional<double> value, own.real(name));
    if (value) out.set(name, *value);
  }
  LATHE_TRY(const std::optional<int64_t> dry_length, own.integer("dry_allowed_length"));
  if (dry_length) out.set("dry_allowed_length", *dry_length);
  return out;
}

}  // namespace lathe
