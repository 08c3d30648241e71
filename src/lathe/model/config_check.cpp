// quantization_config, and what no single field can tell: the relations between fields and the size of the whole.
#include "lathe/base/str.h"
#include "lathe/model/config_parts.h"
#include "lathe/model/shapes_counts.h"

namespace lathe {
namespace {

constexpr int64_t kFp8Block = 128;

Error unsupported(const FieldReader& fields, std::string_view name, std::string_view expected, const Json* found) {
  return {Errc::kUnsupported,
          str(fields.path(name), ": expected ", expected, ", found ", found != nullptr ? found_text(*found) : "none")};
}

// The field, when given, must be this text.
Status expect_text(FieldReader& fields, std::string_view name, std::string_view expected) {
  const Json* value = fields.find_value(name);
  if (value == nullptr || (value->is_string() && value->as_string() == expected)) return {};
  return unsupported(fields, name, expected, value);
}

Status check_block_size(FieldReader& fields) {
  const Json* size = fields.find_value("weight_block_size");
  constexpr std::string_view kExpected = "[128, 128]";
  if (size == nullptr || !size->is_array()) return unsupported(fields, "weight_block_size", kExpected, size);
  const Json::Array& sides = size->as_array();
  bool right = sides.size() == 2;
  for (const Json& side : sides) {
    right = right && side.is_number() && side.as_double() == static_cast<double>(kFp8Block);
  }
  if (right) return {};
  return Error{Errc::kUnsupported,
               str(fields.path("weight_block_size"), ": expected ", kExpected, ", found ", quoted(size->dump()))};
}

Error exceeds(std::string_view name, int64_t value, std::string_view limit_name, int64_t limit) {
  return {Errc::kInvalidData, str(name, ": expected at most ", limit_name, " ", limit, ", found ", value)};
}

Error not_multiple(std::string_view name, int64_t value, std::string_view of_name, int64_t of) {
  return {Errc::kInvalidData, str(name, ": expected a multiple of ", of_name, " ", of, ", found ", value)};
}

Status check_attention(const ModelConfig& config) {
  if (config.attention == AttentionKind::kMla) {
    if (config.qk_rope_head_dim % 2 != 0) {
      return Error{Errc::kInvalidData,
                   str("qk_rope_head_dim: expected an even number, found ", config.qk_rope_head_dim)};
    }
    return {};
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return not_multiple(
        "num_attention_heads", config.num_attention_heads, "num_key_value_heads", config.num_key_value_heads);
  }
  if (config.head_dim % 2 != 0) {
    return Error{Errc::kInvalidData, str("head_dim: expected an even number, found ", config.head_dim)};
  }
  return {};
}

Status check_experts(const ModelConfig& config) {
  if (config.n_routed_experts == 0) return {};
  if (config.first_k_dense_replace > config.num_hidden_layers) {
    return exceeds(
        "first_k_dense_replace", config.first_k_dense_replace, "num_hidden_layers", config.num_hidden_layers);
  }
  if (config.n_routed_experts % config.n_group != 0) {
    return not_multiple("n_routed_experts", config.n_routed_experts, "n_group", config.n_group);
  }
  if (config.topk_group > config.n_group) {
    return exceeds("topk_group", config.topk_group, "n_group", config.n_group);
  }
  const int64_t per_group = config.n_routed_experts / config.n_group;
  if (config.topk_method == TopkMethod::kNoauxTc && per_group < 2) {
    return Error{Errc::kInvalidData,
                 str("n_group: expected at least 2 experts per group for topk_method noaux_tc, found ",
                     config.n_routed_experts,
                     " experts in ",
                     config.n_group,
                     " groups")};
  }
  if (config.num_experts_per_tok > per_group * config.topk_group) {
    return exceeds("num_experts_per_tok",
                   config.num_experts_per_tok,
                   config.n_group > 1 ? "the experts of the kept groups," : "n_routed_experts",
                   per_group * config.topk_group);
  }
  return {};
}

Status check_size(const ModelConfig& config) {
  int64_t moe_layers = 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) moe_layers += config.is_moe_layer(layer) ? 1 : 0;
  if (moe_layers * config.n_routed_experts > kMaxRoutedExpertsInAll) {
    return Error{Errc::kInvalidData,
                 str("n_routed_experts: expected at most ",
                     kMaxRoutedExpertsInAll,
                     " experts in all layers, found ",
                     moe_layers,
                     " layers of ",
                     config.n_routed_experts)};
  }
  const std::optional<ParameterCounts> counts = checked_parameter_counts(config);
  if (!counts || counts->total > kMaxParameters) {
    return Error{Errc::kInvalidData,
                 str("config: expected at most ",
                     kMaxParameters,
                     " parameters, found ",
                     counts ? str(counts->total) : std::string("more than 2^63"))};
  }
  return {};
}

}  // namespace

Status read_quantization(FieldReader& fields, ParsedConfig& out) {
  const Json* json = fields.find_value("quantization_config");
  if (json == nullptr) return {};
  if (!json->is_object()) return fields.wrong("quantization_config", "an object or null", *json);
  FieldReader inner(*json, "quantization_config.");
  const Json* method = inner.find_value("quant_method");
  if (method == nullptr || !method->is_string() || method->as_string() != "fp8") {
    return unsupported(inner, "quant_method", "fp8", method);
  }
  LATHE_TRY(expect_text(inner, "fmt", "e4m3"));
  LATHE_TRY(expect_text(inner, "activation_scheme", "dynamic"));
  LATHE_TRY(expect_text(inner, "scale_fmt", "ue8m0"));
  LATHE_TRY(check_block_size(inner));
  // Which tensors stayed wide is told by their stored types.
  constexpr std::string_view kHarmless[] = {"modules_to_not_convert", "ignored_layers", "dequantize"};
  inner.ignore(kHarmless);
  warn_unknown(inner, out.warnings);
  out.config.fp8 = true;
  return {};
}

Status check_config(const ModelConfig& config) {
  LATHE_TRY(check_attention(config));
  LATHE_TRY(check_experts(config));
  return check_size(config);
}

}  // namespace lathe
