// The MoE gate: paper equations 21-22 with the three selection methods of the DeepSeek family (spec section 2.5), fp32
// end to end (trap T5). Pure functions of one token's router logits.
#pragma once

#include <cstdint>
#include <span>

namespace lathe {

enum class TopkMethod { kGreedy, kGroupLimitedGreedy, kNoauxTc };
// How router logits become scores.
enum class ScoringFunc { kSoftmax, kSigmoid };

struct GateShape {
  int64_t n_routed_experts = 0;     // N_r
  int64_t num_experts_per_tok = 0;  // K_r
  int64_t n_group = 1;              // D: groups of N_r / D consecutive experts (trap T22)
  int64_t topk_group = 1;           // M: groups that a token may use
  TopkMethod topk_method = TopkMethod::kGreedy;
  ScoringFunc scoring_func = ScoringFunc::kSoftmax;
  bool norm_topk_prob = false;
  bool scale_normalised = false;  // V3: normalised weights are scaled too; V2: either normalised or scaled
  float routed_scaling_factor = 1.0F;
};

// Scores of all experts: softmax(logits) or sigmoid(logits). In place. s_{i,t} of Eq. 22.
void gate_scores(ScoringFunc scoring_func, std::span<float> logits_E);

// Chooses the experts of one token and their weights. scores_E: from gate_scores; bias_E: e_score_correction_bias
// (noaux_tc), else empty; it decides the selection only, never a weight (trap T6). Writes K expert ids in ascending
// order, and the weight of each. Ties go to the lower id. `biased_E` is scratch of N_r floats.
void select_experts(const GateShape& shape,
                    std::span<const float> scores_E,
                    std::span<const float> bias_E,
                    std::span<float> biased_E,
                    std::span<int32_t> experts_K,
                    std::span<float> weights_K);

}  // namespace lathe
