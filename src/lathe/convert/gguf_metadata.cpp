#include "lathe/convert/gguf_metadata.h"

#include <cmath>

#include "lathe/base/str.h"

namespace lathe::convert {

namespace {

constexpr uint32_t kQuantisationVersion = 2;  // of the block formats' layouts
constexpr uint32_t kSoftmax = 1;
constexpr uint32_t kSigmoid = 2;

Error unsupported(std::string_view what) {
  return Error{Errc::kUnsupported, str("config.json: ", what, " cannot be written to a GGUF file")};
}

class Writer {
 public:
  Writer(const ModelConfig& config, std::string architecture) : c_(config), prefix_(std::move(architecture) + ".") {}

  // Sizes in config.json are below 2^31.
  void count(std::string_view key, int64_t value) { put(key, static_cast<uint32_t>(value)); }

  void real(std::string_view key, double value) { put(key, static_cast<float>(value)); }

  void put(std::string_view key, GgufValue value) { out.emplace_back(str(prefix_, key), std::move(value)); }

  void sizes() {
    count("block_count", c_.num_hidden_layers);
    count("context_length", c_.max_position_embeddings);
    count("embedding_length", c_.hidden_size);
    count("feed_forward_length", c_.intermediate_size);
    count("vocab_size", c_.vocab_size);
    count("attention.head_count", c_.num_attention_heads);
    real("attention.layer_norm_rms_epsilon", c_.rms_norm_eps);
    real("rope.freq_base", c_.rope_theta);
  }

  // As one head of keys and values, which is how the absorbed form sees the latent.
  void latent_attention() {
    count("attention.head_count_kv", 1);
    // 0 for none: some readers ask for the key unless the number of layers is V2-Lite's.
    count("attention.q_lora_rank", c_.q_lora_rank);
    count("attention.kv_lora_rank", c_.kv_lora_rank);
    count("attention.key_length", c_.kv_lora_rank + c_.qk_rope_head_dim);
    count("attention.value_length", c_.kv_lora_rank);
    count("attention.key_length_mla", c_.qk_head_dim());
    count("attention.value_length_mla", c_.v_head_dim);
    count("rope.dimension_count", c_.qk_rope_head_dim);
  }

  void plain_attention() {
    count("attention.head_count_kv", c_.num_key_value_heads);
    count("attention.key_length", c_.head_dim);
    count("attention.value_length", c_.head_dim);
    count("rope.dimension_count", c_.head_dim);
  }

  Status scaling() {
    const RopeScaling& s = c_.rope_scaling;
    if (s.type == RopeScalingType::kNone) return {};
    put("rope.scaling.type", std::string(s.type == RopeScalingType::kYarn ? "yarn" : "linear"));
    real("rope.scaling.factor", s.factor);
    if (s.type == RopeScalingType::kLinear) return {};
    count("rope.scaling.original_context_length", static_cast<int64_t>(s.original_max_position_embeddings));
    real("rope.scaling.yarn_beta_fast", s.beta_fast);
    real("rope.scaling.yarn_beta_slow", s.beta_slow);
    if (c_.attention != AttentionKind::kMla) return {};
    // Readers scale cosines and sines by 1, which is what equal factors come to.
    if (s.mscale != s.mscale_all_dim) {
      return unsupported(str("rope_scaling with mscale ", s.mscale, " and mscale_all_dim ", s.mscale_all_dim));
    }
    real("rope.scaling.yarn_log_multiplier", 0.1 * s.mscale_all_dim);
    return {};
  }

  Status experts() {
    count("leading_dense_block_count", c_.n_routed_experts > 0 ? c_.first_k_dense_replace : c_.num_hidden_layers);
    count("expert_feed_forward_length", c_.n_routed_experts > 0 ? c_.moe_intermediate_size : c_.intermediate_size);
    count("expert_shared_count", c_.n_shared_experts);
    if (c_.n_routed_experts == 0) return {};
    count("expert_count", c_.n_routed_experts);
    count("expert_used_count", c_.num_experts_per_tok);
    real("expert_weights_scale", c_.routed_scaling_factor);
    put("expert_weights_norm", c_.norm_topk_prob);
    const bool sigmoid = c_.scoring_func == ScoringFunc::kSigmoid;
    put("expert_gating_func", sigmoid ? kSigmoid : kSoftmax);
    if (c_.model_type == ModelType::kDeepseek) return {};
    count("expert_group_count", c_.n_group);
    count("expert_group_used_count", c_.topk_group);
    // What a reader concludes: sigmoid has a correction bias, softmax looks at groups where there are several.
    const bool has_bias = c_.topk_method == TopkMethod::kNoauxTc;
    const bool has_groups = c_.topk_method == TopkMethod::kGroupLimitedGreedy;
    if (has_bias != sigmoid || (!sigmoid && has_groups != (c_.n_group > 1))) {
      return unsupported(str("topk_method ", name_of(c_.topk_method), " with scoring_func ", name_of(c_.scoring_func)));
    }
    return {};
  }

  Metadata out;

 private:
  const ModelConfig& c_;
  std::string prefix_;
};

std::string architecture_of(const ModelConfig& config) {
  if (config.attention == AttentionKind::kMla) return "deepseek2";
  return config.model_type == ModelType::kDeepseek ? "deepseek" : "llama";
}

template <class T>
std::vector<T> integers(const GgufField::Array& list) {
  std::vector<T> out;
  out.reserve(list.size);
  for (uint64_t i = 0; i < list.size; ++i) out.push_back(static_cast<T>(element_of(list, i).integer().value_or(0)));
  return out;
}

// An array as the writer has it; nothing for element types that no model uses.
std::optional<GgufValue> copied_array(const GgufField::Array& list) {
  switch (list.element) {
    case GgufType::kString: {
      std::vector<std::string> out(list.texts.begin(), list.texts.end());
      return GgufValue(std::move(out));
    }
    case GgufType::kUint8:
      return GgufValue(integers<uint8_t>(list));
    case GgufType::kInt32:
      return GgufValue(integers<int32_t>(list));
    case GgufType::kUint32:
      return GgufValue(integers<uint32_t>(list));
    case GgufType::kFloat32: {
      std::vector<float> out;
      for (uint64_t i = 0; i < list.size; ++i) {
        out.push_back(static_cast<float>(element_of(list, i).real().value_or(0.0)));
      }
      return GgufValue(std::move(out));
    }
    case GgufType::kBool: {
      std::vector<bool> out;
      for (uint64_t i = 0; i < list.size; ++i) out.push_back(element_of(list, i).boolean().value_or(false));
      return GgufValue(std::move(out));
    }
    default:
      return std::nullopt;
  }
}

std::optional<GgufValue> copied_value(const GgufField& field) {
  const int64_t integer = field.integer().value_or(0);
  const double real = field.real().value_or(0.0);
  switch (field.type()) {
    case GgufType::kUint8:
      return GgufValue(static_cast<uint8_t>(integer));
    case GgufType::kInt8:
      return GgufValue(static_cast<int8_t>(integer));
    case GgufType::kUint16:
      return GgufValue(static_cast<uint16_t>(integer));
    case GgufType::kInt16:
      return GgufValue(static_cast<int16_t>(integer));
    case GgufType::kUint32:
      return GgufValue(static_cast<uint32_t>(integer));
    case GgufType::kInt32:
      return GgufValue(static_cast<int32_t>(integer));
    case GgufType::kUint64:
      return GgufValue(static_cast<uint64_t>(integer));
    case GgufType::kInt64:
      return GgufValue(integer);
    case GgufType::kFloat32:
      return GgufValue(static_cast<float>(real));
    case GgufType::kFloat64:
      return GgufValue(real);
    case GgufType::kBool:
      return GgufValue(field.boolean().value_or(false));
    case GgufType::kString:
      return GgufValue(std::string(field.text().value_or("")));
    case GgufType::kArray:
      return field.array() == nullptr ? std::nullopt : copied_array(*field.array());
  }
  return std::nullopt;
}

}  // namespace

Result<Metadata> model_metadata(const ModelConfig& config, const std::string& name, uint32_t file_type) {
  const std::string architecture = architecture_of(config);
  Writer writer(config, architecture);
  writer.out.emplace_back("general.architecture", architecture);
  writer.out.emplace_back("general.type", std::string("model"));
  if (!name.empty()) writer.out.emplace_back("general.name", name);
  writer.out.emplace_back("general.quantization_version", kQuantisationVersion);
  writer.out.emplace_back("general.file_type", file_type);
  writer.sizes();
  if (config.attention == AttentionKind::kMla) {
    writer.latent_attention();
  } else {
    writer.plain_attention();
  }
  LATHE_TRY(writer.scaling());
  if (architecture != "llama") LATHE_TRY(writer.experts());
  return std::move(writer.out);
}

Metadata sampling_metadata(const GenerationDefaults& defaults) {
  Metadata out;
  if (!defaults.do_sample) return out;
  const auto add = [&out](std::string_view key, GgufValue value) {
    out.emplace_back(str("general.sampling.", key), std::move(value));
  };
  const auto add_own = [&out](std::string_view key, GgufValue value) {
    out.emplace_back(str("lathe.sampling.", key), std::move(value));
  };
  add("temp", static_cast<float>(defaults.temperature));
  if (defaults.top_p < 1.0) add("top_p", static_cast<float>(defaults.top_p));
  if (defaults.top_k > 0) add("top_k", static_cast<int32_t>(defaults.top_k));
  if (defaults.repetition_penalty != 1.0) add("penalty_repeat", static_cast<float>(defaults.repetition_penalty));
  if (defaults.dry_multiplier > 0.0) add_own("dry_multiplier", static_cast<float>(defaults.dry_multiplier));
  if (defaults.dry_base) add_own("dry_base", static_cast<float>(*defaults.dry_base));
  if (defaults.dry_allowed_length) {
    add_own("dry_allowed_length", static_cast<int32_t>(*defaults.dry_allowed_length));
  }
  return out;
}

Result<Metadata> copied_metadata(const GgufHeader& header, std::optional<uint32_t> file_type) {
  Metadata out;
  for (const GgufHeader::Entry& entry : header.metadata) {
    if (entry.key.starts_with("split.") || entry.key == "general.alignment") continue;
    if (file_type && (entry.key == "general.file_type" || entry.key == "general.quantization_version")) continue;
    std::optional<GgufValue> value = copied_value(entry.value);
    if (!value) {
      return Error{Errc::kUnsupported,
                   str("metadata ", quoted(entry.key), ": ", entry.value.describe(), " cannot be copied")};
    }
    out.emplace_back(std::string(entry.key), *std::move(value));
  }
  if (file_type) {
    out.emplace_back("general.quantization_version", kQuantisationVersion);
    out.emplace_back("general.file_type", *file_type);
  }
  return out;
}

}  // namespace lathe::convert
