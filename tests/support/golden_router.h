// The cases of tests/golden/ops/router.safetensors.
#pragma once

#include <string>
#include <vector>

#include "lathe/moe/gate.h"
#include "support/golden_file.h"

namespace lathe::testing {

// A case of ops/router.safetensors: the gate's shape and its data.
struct GoldenRouter {
  std::string name;
  GateShape shape;
  int64_t tokens = 0;
  std::vector<float> logits;     // [tokens, E]
  std::vector<float> bias;       // [E] or empty
  std::vector<float> scores;     // [tokens, E]; empty where not given
  std::vector<int32_t> experts;  // [tokens, K], ascending
  std::vector<float> weights;    // [tokens, K]
};

inline std::vector<GoldenRouter> golden_routers() {
  const GoldenFile file(golden_dir() / "ops" / "router.safetensors");
  const Json ops = read_json(golden_dir() / "ops" / "ops.json").value();
  std::vector<GoldenRouter> out;
  for (const Json& c : ops.find("router")->find("cases")->as_array()) {
    const bool sigmoid = c.find("scoring_func")->as_string() == "sigmoid";
    const std::string method = c.find("topk_method")->as_string();
    GoldenRouter golden;
    golden.name = c.find("case")->as_string();
    golden.shape = {.n_routed_experts = c.find("n_routed_experts")->as_int(),
                    .num_experts_per_tok = c.find("num_experts_per_tok")->as_int(),
                    .n_group = c.find("n_group")->as_int(),
                    .topk_group = c.find("topk_group")->as_int(),
                    .topk_method = method == "noaux_tc"               ? TopkMethod::kNoauxTc
                                   : method == "group_limited_greedy" ? TopkMethod::kGroupLimitedGreedy
                                                                      : TopkMethod::kGreedy,
                    .scoring_func = sigmoid ? ScoringFunc::kSigmoid : ScoringFunc::kSoftmax,
                    .norm_topk_prob = c.find("norm_topk_prob")->as_bool(),
                    .scale_normalised = sigmoid,  // V3's rule
                    .routed_scaling_factor = static_cast<float>(c.find("routed_scaling_factor")->as_double())};
    golden.tokens = c.find("tokens")->as_int();
    // Dropped groups are masked with -infinity, as DeepSeek's inference code does.
    const std::string suffix = golden.name == "noaux_negative_bias" ? "_mask_minus_inf" : "";
    golden.logits = file.floats(golden.name + ".logits");
    golden.experts = file.ints(golden.name + ".topk_idx" + suffix);
    golden.weights = file.floats(golden.name + ".topk_weight" + suffix);
    if (file.has(golden.name + ".bias")) golden.bias = file.floats(golden.name + ".bias");
    if (file.has(golden.name + ".scores")) golden.scores = file.floats(golden.name + ".scores");
    out.push_back(golden);
  }
  return out;
}

// The case of that name.
inline GoldenRouter golden_router(const std::string& name) {
  for (GoldenRouter& golden : golden_routers()) {
    if (golden.name == name) return golden;
  }
  throw std::runtime_error("no golden router case " + name);
}

struct Selection {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

// What the gate makes of all tokens' logits [T, E].
inline Selection run_gate(const GateShape& shape, std::vector<float> logits, std::span<const float> bias) {
  const auto experts = static_cast<size_t>(shape.n_routed_experts);
  const auto k = static_cast<size_t>(shape.num_experts_per_tok);
  const size_t tokens = logits.size() / experts;
  Selection out{std::vector<int32_t>(tokens * k), std::vector<float>(tokens * k)};
  std::vector<float> scratch(experts);
  for (size_t t = 0; t < tokens; ++t) {
    const std::span<float> row = std::span(logits).subspan(t * experts, experts);
    gate_scores(shape.scoring_func, row);
    select_experts(
        shape, row, bias, scratch, std::span(out.experts).subspan(t * k, k), std::span(out.weights).subspan(t * k, k));
  }
  return out;
}

}  // namespace lathe::testing
