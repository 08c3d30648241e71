#include "lathe/moe/gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace lathe {

namespace {

constexpr float kExcluded = -std::numeric_limits<float>::infinity();

// Index of the largest value not yet taken (taken ones are kExcluded), the lowest on ties; -1 when all are taken.
int64_t take_best(std::span<float> values) {
  int64_t best = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] > (best < 0 ? kExcluded : values[static_cast<size_t>(best)])) best = static_cast<int64_t>(i);
  }
  if (best >= 0) values[static_cast<size_t>(best)] = kExcluded;
  return best;
}

// V2 (method 2): the best expert of the group. V3 (method 3): the sum of its two best (trap T6).
float group_score(TopkMethod method, std::span<const float> group) {
  float first = kExcluded;
  float second = kExcluded;
  for (const float value : group) {
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) {
      second = value;
    }
  }
  if (method == TopkMethod::kGroupLimitedGreedy) return first;
  return group.size() > 1 ? first + second : first;
}

// Device-limited routing (paper section 2.2.2): everything outside the M best groups is excluded with -infinity, not
// with 0, which would let an excluded expert beat a kept one with a negative biased score.
void keep_best_groups(const GateShape& shape, std::span<float> values_E) {
  const auto groups = static_cast<size_t>(shape.n_group);
  const size_t width = values_E.size() / groups;
  // Groups are few: mark the M best one after the other. A group is beaten by groups with a higher score or, on a tie,
  // a lower index; it stays when fewer than M beat it. Scores are computed before any value changes.
  const auto score = [&](size_t g) { return group_score(shape.topk_method, values_E.subspan(g * width, width)); };
  constexpr size_t kUsualGroups = 512;  // more only in hostile models
  float usual[kUsualGroups];
  std::vector<float> many(groups > kUsualGroups ? groups : 0);
  float* scores = many.empty() ? usual : many.data();
  for (size_t g = 0; g < groups; ++g) scores[g] = score(g);
  for (size_t g = 0; g < groups; ++g) {
    int64_t beaten_by = 0;
    for (size_t other = 0; other < groups; ++other) {
      if (scores[other] > scores[g] || (scores[other] == scores[g] && other < g)) ++beaten_by;
    }
    if (beaten_by >= shape.topk_group) std::ranges::fill(values_E.subspan(g * width, width), kExcluded);
  }
}

}  // namespace

void gate_scores(ScoringFunc scoring_func, std::span<float> logits_E) {
  if (scoring_func == ScoringFunc::kSigmoid) {
    for (float& z : logits_E) z = 1.0F / (1.0F + std::exp(-z));
    return;
  }
  const float largest = *std::ranges::max_element(logits_E);
  float sum = 0.0F;
  for (float& z : logits_E) {
    z = std::exp(z - largest);
    sum += z;
  }
  for (float& z : logits_E) z /= sum;
}

void select_experts(const GateShape& shape,
                    std::span<const float> scores_E,
                    std::span<const float> bias_E,
                    std::span<float> biased_E,
                    std::span<int32_t> experts_K,
                    std::span<float> weights_K) {
  for (size_t e = 0; e < scores_E.size(); ++e) biased_E[e] = scores_E[e] + (bias_E.empty() ? 0.0F : bias_E[e]);
  if (shape.topk_method != TopkMethod::kGreedy && shape.n_group > 1) keep_best_groups(shape, biased_E);
  for (int32_t& expert : experts_K) {
    // NaN scores leave nothing to choose from: any fixed choice does, the NaN reaches the logits through its weight.
    expert = static_cast<int32_t>(std::max<int64_t>(take_best(biased_E), 0));
  }
  std::ranges::sort(experts_K);

  float sum = 0.0F;
  for (size_t k = 0; k < experts_K.size(); ++k) {
    weights_K[k] = scores_E[static_cast<size_t>(experts_K[k])];
    sum += weights_K[k];
  }
  const bool normalise = shape.norm_topk_prob && experts_K.size() > 1;
  for (float& weight : weights_K) {
    if (normalise) weight /= sum + 1e-20F;
    if (!normalise || shape.scale_normalised) weight *= shape.routed_scaling_factor;
  }
}

}  // namespace lathe
