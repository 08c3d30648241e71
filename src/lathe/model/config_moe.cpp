// The fields of mixture-of-experts layers: experts, gate, balance losses.
#include "lathe/base/str.h"
#include "lathe/model/config_parts.h"

namespace lathe {
namespace {

constexpr IntegerRange kExperts{0, 65536};
constexpr IntegerRange kSharedExperts{0, 1024};
constexpr IntegerRange kExpertWidth{1, int64_t{1} << 20};
constexpr IntegerRange kLayerIndex{0, 1000};

// `gready` is how the first published code spells it.
constexpr NamedValue<TopkMethod> kTopkMethods[] = {
    {"greedy", TopkMethod::kGreedy},
    {"gready", TopkMethod::kGreedy},
    {"group_limited_greedy", TopkMethod::kGroupLimitedGreedy},
    {"noaux_tc", TopkMethod::kNoauxTc},
};

constexpr NamedValue<ScoringFunc> kScoringFuncs[] = {
    {"softmax", ScoringFunc::kSoftmax},
    {"sigmoid", ScoringFunc::kSigmoid},
};

constexpr std::string_view kExpertFields[] = {
    "num_experts_per_tok",
    "moe_intermediate_size",
    "n_group",
    "topk_group",
    "topk_method",
    "scoring_func",
    "norm_topk_prob",
    "routed_scaling_factor",
    "n_shared_experts",
};

bool is_v3(ModelType type) {
  return type == ModelType::kDeepseekV3 || type == ModelType::kKimiK2;
}

// Absent routing fields change every token, silently, if the model was trained with other values.
class DefaultWarnings {
 public:
  DefaultWarnings(const FieldReader& fields, ParsedConfig& out) : fields_(fields), out_(out) {}

  template <class T>
  void add(std::string_view name, const T& value) {
    if (fields_.has(name)) return;
    out_.warnings.push_back(
        str(name, ": missing, taken as ", value, ", the default of ", name_of(out_.config.model_type)));
  }

 private:
  const FieldReader& fields_;
  ParsedConfig& out_;
};

// null means 0 for a count of experts and 1 for a count of groups; absent means the default of the class.
Status read_count(FieldReader& fields, std::string_view name, IntegerRange range, int64_t null_value, int64_t& value) {
  const Json* json = fields.find(name);
  if (json != nullptr && json->is_null()) {
    value = null_value;
    return {};
  }
  return fields.integer(name, range, Presence::kOptional, value);
}

// n_group and topk_group as written; group-limited selection without groups is a contradiction, selection that never
// looks at groups gets one group, so that the values mean the same everywhere else.
Status read_groups(FieldReader& fields, ParsedConfig& out) {
  ModelConfig& config = out.config;
  LATHE_TRY(read_count(fields, "n_group", {1, kExperts.greatest}, 1, config.n_group));
  LATHE_TRY(read_count(fields, "topk_group", {1, kExperts.greatest}, 1, config.topk_group));
  if (config.topk_method == TopkMethod::kGreedy) {
    config.n_group = config.topk_group = 1;
    return {};
  }
  if (config.topk_method == TopkMethod::kGroupLimitedGreedy) {
    for (const std::string_view name : {std::string_view("n_group"), std::string_view("topk_group")}) {
      if (fields.find_value(name) == nullptr) {
        return Error{Errc::kInvalidData,
                     str(name, ": expected a count for topk_method group_limited_greedy, found none")};
      }
    }
  }
  DefaultWarnings defaults(fields, out);
  defaults.add("n_group", config.n_group);
  defaults.add("topk_group", config.topk_group);
  return {};
}

Status read_gate(FieldReader& fields, ParsedConfig& out) {
  ModelConfig& config = out.config;
  LATHE_TRY(read_choice(fields, "topk_method", kTopkMethods, Presence::kNullIsAbsent, config.topk_method));
  LATHE_TRY(read_choice(fields, "scoring_func", kScoringFuncs, Presence::kNullIsAbsent, config.scoring_func));
  LATHE_TRY(fields.boolean("norm_topk_prob", Presence::kNullIsAbsent, config.norm_topk_prob));
  if (config.model_type == ModelType::kDeepseek) {
    // This class has neither groups nor a scaling factor; a file that has them is reported as having unknown fields.
    if (config.topk_method != TopkMethod::kGreedy || config.scoring_func != ScoringFunc::kSoftmax) {
      return Error{Errc::kUnsupported,
                   str("topk_method: expected greedy with scoring_func softmax for model_type deepseek, found ",
                       name_of(config.topk_method),
                       " with ",
                       name_of(config.scoring_func))};
    }
    return {};
  }
  const bool corrected = config.topk_method == TopkMethod::kNoauxTc;
  if (corrected != (config.scoring_func == ScoringFunc::kSigmoid)) {
    return Error{Errc::kUnsupported,
                 str("topk_method: expected noaux_tc with scoring_func sigmoid, or greedy or group_limited_greedy with "
                     "softmax, found ",
                     name_of(config.topk_method),
                     " with ",
                     name_of(config.scoring_func))};
  }
  if (corrected != is_v3(config.model_type)) {
    out.warnings.push_back(str("topk_method: ",
                               name_of(config.topk_method),
                               " is unusual for model_type ",
                               name_of(config.model_type),
                               "; taken as written"));
  }
  LATHE_TRY(
      fields.real("routed_scaling_factor", {0.0, 1e6, true}, Presence::kNullIsAbsent, config.routed_scaling_factor));
  DefaultWarnings defaults(fields, out);
  if (!is_v3(config.model_type)) defaults.add("topk_method", name_of(config.topk_method));
  defaults.add("norm_topk_prob", config.norm_topk_prob);
  defaults.add("routed_scaling_factor", config.routed_scaling_factor);
  return read_groups(fields, out);
}

}  // namespace

Status read_moe(FieldReader& fields, ParsedConfig& out) {
  ModelConfig& config = out.config;
  LATHE_TRY(read_count(fields, "n_routed_experts", kExperts, 0, config.n_routed_experts));
  LATHE_TRY(
      fields.integer("first_k_dense_replace", kLayerIndex, Presence::kNullIsAbsent, config.first_k_dense_replace));
  LATHE_TRY(fields.integer("moe_layer_freq", {1, 1000}, Presence::kNullIsAbsent, config.moe_layer_freq));
  LATHE_TRY(fields.real("aux_loss_alpha", {0.0, 1e3}, Presence::kNullIsAbsent, config.aux_loss_alpha));
  LATHE_TRY(fields.boolean("seq_aux", Presence::kNullIsAbsent, config.seq_aux));
  if (config.model_type != ModelType::kDeepseek) {
    LATHE_TRY(
        fields.integer("num_nextn_predict_layers", {0, 64}, Presence::kNullIsAbsent, config.num_nextn_predict_layers));
  }
  if (config.n_routed_experts == 0) {
    // A dense model: what its file says about experts is neither used nor checked, and no default may stay behind.
    fields.ignore(kExpertFields);
    config.n_shared_experts = config.num_experts_per_tok = 0;
    config.n_group = config.topk_group = 1;
    config.topk_method = TopkMethod::kGreedy;
    config.scoring_func = ScoringFunc::kSoftmax;
    config.norm_topk_prob = false;
    config.routed_scaling_factor = 1.0;
    return {};
  }
  LATHE_TRY(read_count(fields, "n_shared_experts", kSharedExperts, 0, config.n_shared_experts));
  LATHE_TRY(fields.integer("moe_intermediate_size", kExpertWidth, Presence::kRequired, config.moe_intermediate_size));
  const Presence chosen = is_v3(config.model_type) ? Presence::kOptional : Presence::kRequired;
  LATHE_TRY(fields.integer("num_experts_per_tok", {1, kExperts.greatest}, chosen, config.num_experts_per_tok));
  DefaultWarnings defaults(fields, out);
  defaults.add("n_routed_experts", config.n_routed_experts);
  defaults.add("n_shared_experts", config.n_shared_experts);
  defaults.add("num_experts_per_tok", config.num_experts_per_tok);
  defaults.add("first_k_dense_replace", config.first_k_dense_replace);
  return read_gate(fields, out);
}

}  // namespace lathe
