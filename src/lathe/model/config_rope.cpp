#include "lathe/model/config_rope.h"

#include <algorithm>
#include <iterator>

#include "lathe/base/str.h"
#include "lathe/model/config_parts.h"

namespace lathe {
namespace {

constexpr RealRange kTheta{1.0, 1e12, true};
constexpr RealRange kFactor{1.0, 1e6};
constexpr RealRange kBeta{0.0, 1e6, true};
constexpr RealRange kMscale{0.0, 100.0};
constexpr IntegerRange kOriginalLength{1, int64_t{1} << 30};

constexpr std::string_view kScalingFields[] = {
    "factor",
    "original_max_position_embeddings",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "attention_factor",
    "truncate",
};

// The scaling type under either of its names; both may be there when they agree. Empty: neither.
Result<std::string> scaling_type(FieldReader& fields) {
  std::string rope_type;
  std::string type;
  LATHE_TRY(fields.text("rope_type", Presence::kNullIsAbsent, rope_type));
  LATHE_TRY(fields.text("type", Presence::kNullIsAbsent, type));
  if (!rope_type.empty() && !type.empty() && rope_type != type) {
    return Error{Errc::kInvalidData,
                 str(fields.path("type"), ": expected ", quoted(rope_type), " as in rope_type, found ", quoted(type))};
  }
  return rope_type.empty() ? type : rope_type;
}

Status read_yarn(FieldReader& fields, RopeScaling& scaling) {
  LATHE_TRY(fields.real("factor", kFactor, Presence::kRequired, scaling.factor));
  int64_t original = 0;
  LATHE_TRY(fields.integer("original_max_position_embeddings", kOriginalLength, Presence::kRequired, original));
  scaling.original_max_position_embeddings = static_cast<double>(original);
  LATHE_TRY(fields.real("beta_fast", kBeta, Presence::kNullIsAbsent, scaling.beta_fast));
  LATHE_TRY(fields.real("beta_slow", kBeta, Presence::kNullIsAbsent, scaling.beta_slow));
  LATHE_TRY(fields.real("mscale", kMscale, Presence::kNullIsAbsent, scaling.mscale));
  LATHE_TRY(fields.real("mscale_all_dim", kMscale, Presence::kNullIsAbsent, scaling.mscale_all_dim));
  if (scaling.beta_fast < scaling.beta_slow) {
    return Error{Errc::kInvalidData,
                 str(fields.path("beta_fast"),
                     ": expected at least beta_slow ",
                     scaling.beta_slow,
                     ", found ",
                     scaling.beta_fast)};
  }
  // Variants of transformers' generic class that no checkpoint of this family uses: both change every frequency or
  // every score, so that ignoring them would be silently wrong.
  if (const Json* factor = fields.find_value("attention_factor"); factor != nullptr) {
    return Error{Errc::kUnsupported,
                 str(fields.path("attention_factor"), ": expected none or null, found ", found_text(*factor))};
  }
  bool truncate = true;
  LATHE_TRY(fields.boolean("truncate", Presence::kNullIsAbsent, truncate));
  if (!truncate) return Error{Errc::kUnsupported, str(fields.path("truncate"), ": expected true, found false")};
  return {};
}

Status read_scaling(FieldReader& fields, const std::string& type, RopeScaling& scaling) {
  scaling = {};
  if (type == "yarn") {
    scaling.type = RopeScalingType::kYarn;
    return read_yarn(fields, scaling);
  }
  if (type == "linear") {
    scaling.type = RopeScalingType::kLinear;
    LATHE_TRY(fields.real("factor", kFactor, Presence::kRequired, scaling.factor));
  } else if (type != "default") {
    return Error{Errc::kUnsupported,
                 str(fields.path("type"), ": expected yarn, linear or default, found ", quoted(type))};
  }
  fields.ignore(kScalingFields);
  return {};
}

// A rotation of only a part of the head exists in other families; 1 is what ours means.
Status read_partial_rotary(FieldReader& fields) {
  const Json* value = fields.find_value("partial_rotary_factor");
  if (value == nullptr) return {};
  if (!value->is_number()) return fields.wrong("partial_rotary_factor", "1", *value);
  if (value->as_double() == 1.0) return {};
  return Error{Errc::kUnsupported,
               str(fields.path("partial_rotary_factor"), ": expected 1, found ", found_text(*value))};
}

// The 4.x object, which always names a type.
Status read_legacy_scaling(const Json& json, ParsedConfig& out) {
  FieldReader fields(json, "rope_scaling.");
  LATHE_TRY(const std::string type, scaling_type(fields));
  if (type.empty()) return fields.missing("type", "yarn, linear or default");
  LATHE_TRY(read_scaling(fields, type, out.config.rope_scaling));
  // Some converters leave the base here; it is a nested value and wins like the 5.x one.
  LATHE_TRY(fields.real("rope_theta", kTheta, Presence::kNullIsAbsent, out.config.rope_theta));
  LATHE_TRY(read_partial_rotary(fields));
  warn_unknown(fields, out.warnings);
  return {};
}

// The 5.x object: base and scaling in one. Returns whether it said anything about scaling.
Result<bool> read_nested(const Json& json, bool has_legacy_theta, ParsedConfig& out) {
  FieldReader fields(json, "rope_parameters.");
  const double legacy_theta = out.config.rope_theta;
  LATHE_TRY(fields.real("rope_theta", kTheta, Presence::kNullIsAbsent, out.config.rope_theta));
  if (has_legacy_theta && legacy_theta != out.config.rope_theta) {
    out.warnings.push_back(
        str("rope_parameters.rope_theta: ", out.config.rope_theta, " overrides rope_theta ", legacy_theta));
  }
  LATHE_TRY(const std::string type, scaling_type(fields));
  if (!type.empty()) {
    LATHE_TRY(read_scaling(fields, type, out.config.rope_scaling));
  } else {
    const bool scaled = std::any_of(std::begin(kScalingFields), std::end(kScalingFields), [&](std::string_view name) {
      return fields.find_value(name) != nullptr;
    });
    if (scaled) return fields.missing("rope_type", "yarn, linear or default");
  }
  LATHE_TRY(read_partial_rotary(fields));
  warn_unknown(fields, out.warnings);
  return !type.empty();
}

Status read_layout(FieldReader& fields, ParsedConfig& out) {
  ModelConfig& config = out.config;
  bool interleave = config.attention == AttentionKind::kMla;
  LATHE_TRY(fields.boolean("rope_interleave", Presence::kNullIsAbsent, interleave));
  config.rope_layout = interleave ? RopeLayout::kInterleaved : RopeLayout::kHalfSplit;
  if (interleave) return {};
  if (config.model_type == ModelType::kDeepseekV2) {
    out.warnings.push_back("rope_interleave: false is not known to deepseek_v2 elsewhere; taken as written");
  }
  return {};
}

}  // namespace

Status read_rope(FieldReader& fields, ParsedConfig& out) {
  LATHE_TRY(fields.real("rope_theta", kTheta, Presence::kNullIsAbsent, out.config.rope_theta));
  LATHE_TRY(read_partial_rotary(fields));
  LATHE_TRY(read_layout(fields, out));
  const bool has_theta = fields.find_value("rope_theta") != nullptr;
  const Json* legacy = fields.find_value("rope_scaling");
  const Json* nested = fields.find_value("rope_parameters");
  if (legacy != nullptr && !legacy->is_object()) return fields.wrong("rope_scaling", "an object or null", *legacy);
  if (nested != nullptr && !nested->is_object()) return fields.wrong("rope_parameters", "an object or null", *nested);

  if (nested != nullptr) {
    LATHE_TRY(const bool scaling_known, read_nested(*nested, has_theta, out));
    if (scaling_known && legacy != nullptr) {
      out.warnings.push_back("rope_parameters overrides rope_scaling");
      return {};
    }
  }
  if (legacy != nullptr) {
    const double nested_theta = out.config.rope_theta;
    LATHE_TRY(read_legacy_scaling(*legacy, out));
    if (nested != nullptr) out.config.rope_theta = nested_theta;
  }
  const RopeScaling& scaling = out.config.rope_scaling;
  if (scaling.type == RopeScalingType::kYarn && scaling.mscale_all_dim == 0.0 && scaling.mscale != 1.0 &&
      scaling.mscale != 0.0) {
    out.warnings.push_back(
        str("rope_scaling.mscale: ", scaling.mscale, " without mscale_all_dim scales cos and sin, not the scores"));
  }
  return {};
}

RopeParameters rope_parameters(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  const bool mla = config.attention == AttentionKind::kMla;
  RopeParameters rope;
  rope.dim = mla ? config.qk_rope_head_dim : config.head_dim;
  rope.theta = config.rope_theta;
  rope.factor = scaling.factor;
  switch (scaling.type) {
    case RopeScalingType::kNone:
      return rope;
    case RopeScalingType::kLinear:
      rope.kind = RopeKind::kLinear;
      return rope;
    case RopeScalingType::kYarn:
      rope.kind = RopeKind::kYarn;
      break;
  }
  rope.original_max_position_embeddings = scaling.original_max_position_embeddings;
  rope.beta_fast = scaling.beta_fast;
  rope.beta_slow = scaling.beta_slow;
  const bool both = scaling.mscale != 0.0 && scaling.mscale_all_dim != 0.0;
  rope.mscale = mla || both ? scaling.mscale : 1.0;
  rope.mscale_all_dim = mla || both ? scaling.mscale_all_dim : 0.0;
  return rope;
}

double attention_scale(const ModelConfig& config) {
  if (config.attention == AttentionKind::kMla) return softmax_scale(config.qk_head_dim(), rope_parameters(config));
  return softmax_scale(config.head_dim, {.dim = config.head_dim});
}

}  // namespace lathe
