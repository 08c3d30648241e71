// The gate on hand-made scores where each rule of selection and weighting decides, and against brute force.
// Values of independent implementations: tests/e2e/golden_ops_test.cpp.
#include "lathe/moe/gate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "lathe/base/rng.h"
#include "lathe/base/str.h"

namespace lathe {
namespace {

struct Choice {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Choice choose(const GateShape& shape, const std::vector<float>& scores, const std::vector<float>& bias = {}) {
  const auto k = static_cast<size_t>(shape.num_experts_per_tok);
  Choice out{std::vector<int32_t>(k, -1), std::vector<float>(k, -1.0F)};
  std::vector<float> scratch(scores.size());
  select_experts(shape, scores, bias, scratch, out.experts, out.weights);
  return out;
}

GateShape greedy(int64_t experts, int64_t k) {
  return {.n_routed_experts = experts, .num_experts_per_tok = k};
}

GateShape grouped(TopkMethod method, int64_t experts, int64_t k, int64_t groups, int64_t kept) {
  return {.n_routed_experts = experts,
          .num_experts_per_tok = k,
          .n_group = groups,
          .topk_group = kept,
          .topk_method = method,
          .scoring_func = method == TopkMethod::kNoauxTc ? ScoringFunc::kSigmoid : ScoringFunc::kSoftmax};
}

using Ids = std::vector<int32_t>;
using Floats = std::vector<float>;

TEST(GateScores, SoftmaxSumsToOneAndSurvivesLargeLogits) {
  Floats scores{1000.0F, 1001.0F, -1000.0F};
  gate_scores(ScoringFunc::kSoftmax, scores);
  EXPECT_NEAR(scores[0], 1.0 / (1.0 + std::exp(1.0)), 1e-7);
  EXPECT_NEAR(scores[0] + scores[1] + scores[2], 1.0F, 1e-6);
  EXPECT_EQ(scores[2], 0.0F);
}

TEST(GateScores, SigmoidSaturatesWithoutNaN) {
  Floats scores{-200.0F, -1.0F, 0.0F, 1.0F, 200.0F};
  gate_scores(ScoringFunc::kSigmoid, scores);
  EXPECT_EQ(scores[0], 0.0F);
  EXPECT_NEAR(scores[1], 0.2689414214, 1e-7);
  EXPECT_EQ(scores[2], 0.5F);
  EXPECT_NEAR(scores[3], 0.7310585786, 1e-7);
  EXPECT_EQ(scores[4], 1.0F);
}

TEST(Gate, GreedyTakesTheLargestInAscendingOrder) {
  const Choice choice = choose(greedy(5, 3), {0.1F, 0.4F, 0.05F, 0.15F, 0.3F});
  EXPECT_EQ(choice.experts, (Ids{1, 3, 4}));
  EXPECT_EQ(choice.weights, (Floats{0.4F, 0.15F, 0.3F}));
}

TEST(Gate, TiesGoToTheLowerIndex) {
  EXPECT_EQ(choose(greedy(6, 2), Floats(6, 0.25F)).experts, (Ids{0, 1}));
  EXPECT_EQ(choose(greedy(4, 2), {0.1F, 0.3F, 0.2F, 0.2F}).experts, (Ids{1, 2}));
  // Of equal groups too.
  EXPECT_EQ(choose(grouped(TopkMethod::kGroupLimitedGreedy, 6, 2, 3, 1), Floats(6, 0.25F)).experts, (Ids{0, 1}));
  EXPECT_EQ(choose(grouped(TopkMethod::kNoauxTc, 6, 2, 3, 1), {0.1F, 0.1F, 0.5F, 0.4F, 0.4F, 0.5F}).experts,
            (Ids{2, 3}));
}

TEST(Gate, GroupsAreRankedByTheirBestExpertOrTheirTwoBest) {
  // Group 0 has the best expert, group 1 the best pair.
  const Floats scores{0.9F, 0.0F, 0.6F, 0.5F};
  EXPECT_EQ(choose(grouped(TopkMethod::kGroupLimitedGreedy, 4, 1, 2, 1), scores).experts, (Ids{0}));
  EXPECT_EQ(choose(grouped(TopkMethod::kNoauxTc, 4, 1, 2, 1), scores).experts, (Ids{2}));
  // Groups of one expert: the pair is that expert.
  EXPECT_EQ(choose(grouped(TopkMethod::kNoauxTc, 4, 2, 4, 2), scores).experts, (Ids{0, 2}));
}

TEST(Gate, ThousandsOfGroupsAreSlowAndRight) {
  Floats scores(2000, 0.1F);
  scores[7] = 0.3F;
  scores[1999] = 0.2F;
  EXPECT_EQ(choose(grouped(TopkMethod::kGroupLimitedGreedy, 2000, 2, 2000, 2), scores).experts, (Ids{7, 1999}));
}

TEST(Gate, WeightsOfAGroupLimitedChoiceStayThoseOfTheFullSoftmax) {
  const Floats scores{0.5F, 0.05F, 0.25F, 0.2F};
  const Choice choice = choose(grouped(TopkMethod::kGroupLimitedGreedy, 4, 2, 2, 1), scores);
  EXPECT_EQ(choice.experts, (Ids{0, 1}));
  EXPECT_EQ(choice.weights, (Floats{0.5F, 0.05F}));
}

TEST(Gate, ExcludedGroupsStayOutWhenKeptScoresAreNegative) {
  // Both experts of the kept group have negative biased scores; 0 in place of an excluded one would win.
  const Choice choice =
      choose(grouped(TopkMethod::kNoauxTc, 4, 2, 2, 1), {0.3F, 0.3F, 0.2F, 0.2F}, {-0.5F, -0.6F, -0.9F, -0.9F});
  EXPECT_EQ(choice.experts, (Ids{0, 1}));
}

TEST(Gate, TheBiasDecidesTheChoiceAndNeverAWeight) {
  GateShape shape = grouped(TopkMethod::kNoauxTc, 4, 2, 1, 1);
  const Choice choice = choose(shape, {0.9F, 0.8F, 0.1F, 0.2F}, {0.0F, 0.0F, 1.0F, 0.0F});
  EXPECT_EQ(choice.experts, (Ids{0, 2}));
  EXPECT_EQ(choice.weights, (Floats{0.9F, 0.1F}));
}

TEST(Gate, NormalisationAndScalingFollowTheModel) {
  const Floats scores{0.1F, 0.3F, 0.5F, 0.1F};
  GateShape shape = greedy(4, 2);
  shape.routed_scaling_factor = 16.0F;
  EXPECT_EQ(choose(shape, scores).weights, (Floats{4.8F, 8.0F}));  // V2: scaled
  shape.norm_topk_prob = true;
  EXPECT_EQ(choose(shape, scores).weights, (Floats{0.3F / 0.8F, 0.5F / 0.8F}));  // V2: normalised, not scaled
  shape.scale_normalised = true;
  EXPECT_EQ(choose(shape, scores).weights, (Floats{0.3F / 0.8F * 16.0F, 0.5F / 0.8F * 16.0F}));  // V3: both
  shape.num_experts_per_tok = 1;
  EXPECT_EQ(choose(shape, scores).weights, (Floats{8.0F}));  // one expert is never normalised
  shape.scale_normalised = false;
  EXPECT_EQ(choose(shape, scores).weights, (Floats{8.0F}));
}

TEST(Gate, NormalisingZerosGivesZeros) {
  GateShape shape = greedy(3, 2);
  shape.norm_topk_prob = true;
  EXPECT_EQ(choose(shape, {0.0F, 0.0F, 0.0F}).weights, (Floats{0.0F, 0.0F}));
}

TEST(Gate, NaNScoresChooseValidExpertsAndKeepTheNaN) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const TopkMethod method : {TopkMethod::kGreedy, TopkMethod::kGroupLimitedGreedy, TopkMethod::kNoauxTc}) {
    const Choice all = choose(grouped(method, 8, 3, 4, 2), Floats(8, nan));
    for (const int32_t expert : all.experts) EXPECT_TRUE(expert >= 0 && expert < 8);
    for (const float weight : all.weights) EXPECT_TRUE(std::isnan(weight));
  }
  Floats logits{nan, 1.0F, 2.0F};
  gate_scores(ScoringFunc::kSoftmax, logits);
  for (const float score : logits) EXPECT_TRUE(std::isnan(score));
}

// The rules again, as sets: an expert is chosen when fewer than K experts of kept groups beat it.
Ids brute_force(const GateShape& shape, const Floats& scores, const Floats& bias) {
  const auto n = scores.size();
  const size_t width = n / static_cast<size_t>(shape.n_group);
  std::vector<float> value(n);
  for (size_t e = 0; e < n; ++e) value[e] = scores[e] + (bias.empty() ? 0.0F : bias[e]);
  const auto beats = [](float a, size_t at, float b, size_t than) { return a > b || (a == b && at < than); };
  std::vector<float> group(static_cast<size_t>(shape.n_group));
  for (size_t g = 0; g < group.size(); ++g) {
    std::vector<float> members(value.begin() + static_cast<int64_t>(g * width),
                               value.begin() + static_cast<int64_t>((g + 1) * width));
    std::sort(members.rbegin(), members.rend());
    group[g] = shape.topk_method == TopkMethod::kNoauxTc && width > 1 ? members[0] + members[1] : members[0];
  }
  const auto kept = [&](size_t g) {
    int64_t better = 0;
    for (size_t other = 0; other < group.size(); ++other) better += beats(group[other], other, group[g], g) ? 1 : 0;
    return shape.topk_method == TopkMethod::kGreedy || better < shape.topk_group;
  };
  Ids chosen;
  for (size_t e = 0; e < n; ++e) {
    if (!kept(e / width)) continue;
    int64_t better = 0;
    for (size_t other = 0; other < n; ++other) {
      better += kept(other / width) && beats(value[other], other, value[e], e) ? 1 : 0;
    }
    if (better < shape.num_experts_per_tok) chosen.push_back(static_cast<int32_t>(e));
  }
  return chosen;
}

TEST(Gate, MatchesBruteForceOnRandomScores) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    Rng rng(seed);
    const int64_t groups = rng.next_int(1, 6);
    const int64_t width = rng.next_int(1, 7);
    const int64_t kept = rng.next_int(1, groups);
    constexpr TopkMethod kMethods[] = {TopkMethod::kGreedy, TopkMethod::kGroupLimitedGreedy, TopkMethod::kNoauxTc};
    const GateShape shape = grouped(kMethods[seed % 3], groups * width, rng.next_int(1, kept * width), groups, kept);
    Floats scores(static_cast<size_t>(groups * width));
    // Few distinct values, so that ties are common.
    for (float& s : scores) s = static_cast<float>(rng.next_int(0, 12)) / 16.0F;
    Floats bias;
    if (shape.topk_method == TopkMethod::kNoauxTc) {
      for (size_t e = 0; e < scores.size(); ++e) bias.push_back(static_cast<float>(rng.next_int(-12, 12)) / 16.0F);
    }
    const Choice choice = choose(shape, scores, bias);
    ASSERT_EQ(choice.experts, brute_force(shape, scores, bias)) << "seed " << seed;
    for (size_t k = 0; k < choice.experts.size(); ++k) {
      ASSERT_EQ(choice.weights[k], scores[static_cast<size_t>(choice.experts[k])]) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace lathe
