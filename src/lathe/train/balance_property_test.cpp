// What holds for any scores: limits of routing, statistics of balance, and the rules of token dropping, on random
// shapes and batches.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "lathe/base/rng.h"
#include "lathe/tensor/workspace.h"
#include "lathe/train/balance.h"
#include "lathe/train/router.h"

namespace lathe {
namespace {

constexpr int kCases = 300;

// A routed batch of random size: groups are devices, scores are more or less skewed.
struct Case {
  GateShape gate;
  int64_t tokens = 0;
  std::vector<float> scores_TE;
  std::vector<int32_t> experts_TK;
  std::vector<uint8_t> is_protected_T;

  std::span<const float> scores(int64_t t) const {
    return std::span(scores_TE).subspan(static_cast<size_t>(t * gate.n_routed_experts),
                                        static_cast<size_t>(gate.n_routed_experts));
  }

  std::span<const int32_t> experts(int64_t t) const {
    return std::span(experts_TK)
        .subspan(static_cast<size_t>(t * gate.num_experts_per_tok), static_cast<size_t>(gate.num_experts_per_tok));
  }

  int64_t device_of(int32_t expert) const { return expert / (gate.n_routed_experts / gate.n_group); }

  float affinity(size_t assignment) const {
    const auto t = static_cast<int64_t>(assignment) / gate.num_experts_per_tok;
    return scores(t)[static_cast<size_t>(experts_TK[assignment])];
  }
};

Case random_case(uint64_t seed) {
  Rng rng(seed);
  Case c;
  const bool sigmoid = rng.next_uniform() < 0.5;
  c.gate.scoring_func = sigmoid ? ScoringFunc::kSigmoid : ScoringFunc::kSoftmax;
  c.gate.topk_method = sigmoid ? TopkMethod::kNoauxTc : TopkMethod::kGroupLimitedGreedy;
  c.gate.n_group = rng.next_int(1, 9);
  const int64_t per_group = rng.next_int(2, 9);
  c.gate.n_routed_experts = c.gate.n_group * per_group;
  c.gate.topk_group = rng.next_int(1, c.gate.n_group);
  c.gate.num_experts_per_tok = rng.next_int(1, c.gate.topk_group * per_group);
  c.tokens = rng.next_int(1, 60);
  const double skew = 3.0 * rng.next_uniform();
  std::vector<double> favour;
  std::vector<float> bias;
  for (int64_t i = 0; i < c.gate.n_routed_experts; ++i) {
    favour.push_back(skew * rng.next_normal());
    if (sigmoid) bias.push_back(static_cast<float>(0.3 * rng.next_normal()));
  }
  std::vector<float> scratch(favour.size());
  for (int64_t t = 0; t < c.tokens; ++t) {
    std::vector<float> s;
    for (const double f : favour) s.push_back(static_cast<float>(f + rng.next_normal()));
    gate_scores(c.gate.scoring_func, s);
    std::vector<int32_t> chosen(static_cast<size_t>(c.gate.num_experts_per_tok));
    std::vector<float> weights(chosen.size());
    select_experts(c.gate, s, bias, scratch, chosen, weights);
    c.scores_TE.insert(c.scores_TE.end(), s.begin(), s.end());
    c.experts_TK.insert(c.experts_TK.end(), chosen.begin(), chosen.end());
    c.is_protected_T.push_back(rng.next_uniform() < 0.1 ? 1 : 0);
  }
  return c;
}

BalanceOptions balance_of(const Case& c) {
  return {.experts = c.gate.n_routed_experts,
          .chosen = c.gate.num_experts_per_tok,
          .devices = c.gate.n_group,
          .device_limit = c.gate.topk_group,
          .scoring_func = c.gate.scoring_func};
}

// Section 2.2.2: a token is sent to M devices at most, so the mean of f'' is at most 1; those of f and f' are 1.
TEST(RoutingProperty, NoTokenGoesToMoreThanMDevices) {
  for (uint64_t seed = 0; seed < kCases; ++seed) {
    SCOPED_TRACE(seed);
    const Case c = random_case(seed);
    double sent = 0.0;
    for (int64_t t = 0; t < c.tokens; ++t) {
      std::set<int64_t> devices;
      std::set<int32_t> distinct;
      for (const int32_t i : c.experts(t)) {
        devices.insert(c.device_of(i));
        distinct.insert(i);
      }
      ASSERT_LE(static_cast<int64_t>(devices.size()), c.gate.topk_group);
      ASSERT_EQ(static_cast<int64_t>(distinct.size()), c.gate.num_experts_per_tok);
      sent += static_cast<double>(devices.size());
    }
    const BalanceMeans means = balance_means(balance_of(c), c.scores_TE, c.experts_TK);
    const auto mean = [](const std::vector<double>& v) {
      return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
    };
    EXPECT_NEAR(mean(means.f), 1.0, 1e-12);
    EXPECT_NEAR(mean(means.f_device), 1.0, 1e-12);
    EXPECT_NEAR(mean(means.f_comm), sent / static_cast<double>(c.tokens * c.gate.topk_group), 1e-12);
    EXPECT_LE(mean(means.f_comm), 1.0 + 1e-12);
    EXPECT_NEAR(mean(means.P) * static_cast<double>(c.gate.n_routed_experts), 1.0, 1e-6);
  }
}

// Tokens that take every expert equally often, with equal affinities, over M devices each: every loss is its factor.
TEST(BalanceProperty, PerfectBalanceGivesTheFactors) {
  for (const ScoringFunc scoring : {ScoringFunc::kSoftmax, ScoringFunc::kSigmoid}) {
    for (const int64_t devices : {1, 2, 4, 8}) {
      for (int64_t limit = 1; limit <= devices; limit *= 2) {
        const int64_t E = 2 * devices;  // two experts per device, a token takes one on each of `limit` devices
        std::vector<int32_t> experts;
        for (int64_t t = 0; t < E; ++t) {
          std::vector<int32_t> chosen;
          for (int64_t k = 0; k < limit; ++k) chosen.push_back(static_cast<int32_t>((t + 2 * k) % E));
          std::ranges::sort(chosen);
          experts.insert(experts.end(), chosen.begin(), chosen.end());
        }
        const std::vector<float> scores(static_cast<size_t>(E * E), 1.0F / static_cast<float>(E));
        BalanceOptions options{
            .experts = E, .chosen = limit, .devices = devices, .device_limit = limit, .scoring_func = scoring};
        (scoring == ScoringFunc::kSoftmax ? options.alpha1 : options.alpha_v3) = 0.003;
        options.alpha2 = 0.05;
        options.alpha3 = 0.02;
        const int64_t sequences[] = {0};
        const BalanceLosses losses = balance_losses(options, sequences, scores, experts);
        EXPECT_NEAR(losses.expert + losses.sequence, 0.003, 1e-9);
        EXPECT_NEAR(losses.device, 0.05, 1e-8);
        EXPECT_NEAR(losses.communication, 0.02, 1e-8);
      }
    }
  }
}

// Section 2.2.4 on each device: what stays is min(load, budget), but for protected tokens, which all stay and count;
// and no dropped affinity is above a kept one that was not protected.
TEST(DroppingProperty, ConservesTheBudgetAndDropsTheLowest) {
  int64_t dropping = 0;
  for (uint64_t seed = 0; seed < kCases; ++seed) {
    SCOPED_TRACE(seed);
    const Case c = random_case(seed);
    const double capacity = seed % 3 == 0 ? 0.5 : seed % 3 == 1 ? 1.0 : 1.5;
    const int64_t budget = device_budget(c.tokens, c.gate.num_experts_per_tok, c.gate.n_group, capacity);
    std::vector<uint8_t> kept(c.experts_TK.size());
    const int64_t dropped = drop_assignments({.experts = c.gate.n_routed_experts,
                                              .chosen = c.gate.num_experts_per_tok,
                                              .devices = c.gate.n_group,
                                              .budget = budget,
                                              .scores_TE = c.scores_TE,
                                              .experts_TK = c.experts_TK,
                                              .is_protected_T = c.is_protected_T},
                                             kept);
    EXPECT_EQ(dropped, std::ranges::count(kept, uint8_t{0}));
    dropping += dropped > 0 ? 1 : 0;
    for (int64_t device = 0; device < c.gate.n_group; ++device) {
      int64_t load = 0;
      int64_t left = 0;
      int64_t marked = 0;
      float highest_dropped = -1.0F;
      float lowest_kept = 2.0F;
      for (size_t a = 0; a < kept.size(); ++a) {
        if (c.device_of(c.experts_TK[a]) != device) continue;
        const bool is_protected = c.is_protected_T[a / static_cast<size_t>(c.gate.num_experts_per_tok)] != 0;
        ++load;
        left += kept[a];
        marked += is_protected ? 1 : 0;
        ASSERT_TRUE(kept[a] == 1 || !is_protected);
        if (kept[a] == 0) highest_dropped = std::max(highest_dropped, c.affinity(a));
        if (kept[a] == 1 && !is_protected) lowest_kept = std::min(lowest_kept, c.affinity(a));
      }
      EXPECT_EQ(left, std::min(load, std::max(budget, marked)));
      EXPECT_LE(highest_dropped, lowest_kept);
    }
  }
  EXPECT_GT(dropping, kCases / 4);
}

// A dropped assignment adds nothing to its token, and its expert's output nothing to the router's gradient.
TEST(DroppingProperty, WhatIsDroppedHasNoWeightAndNoGradient) {
  const std::unique_ptr<ThreadPool> pool = ThreadPool::create(1).value();
  const TrainContext context{kernels(), *pool, nullptr};
  int64_t seen = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    const Case c = random_case(seed);
    RouterOptions options{.gate = c.gate, .balance = balance_of(c), .drop = true, .capacity_factor = 0.5};
    options.gate.routed_scaling_factor = 1.0F;
    const int64_t E = c.gate.n_routed_experts;
    const int64_t K = c.gate.num_experts_per_tok;
    TrainArena counter;
    Routing routing;
    routing.take(counter, c.gate, c.tokens);
    Workspace memory = Workspace::create(counter.used()).value();
    TrainArena arena(memory.take(counter.used()));
    routing.take(arena, c.gate, c.tokens);
    for (size_t i = 0; i < c.scores_TE.size(); ++i) {  // logits that give nearly these scores
      const double s = c.scores_TE[i];
      const double odds = c.gate.scoring_func == ScoringFunc::kSoftmax ? s : s / (1.0 - s);
      routing.scores[i] = static_cast<float>(std::log(std::max(odds, 1e-30)));
    }
    const std::vector<int64_t> sequences{0};
    const std::vector<int32_t> sequence_of(static_cast<size_t>(c.tokens), 0);
    const std::vector<float> bias(static_cast<size_t>(E), 0.0F);
    RouterBatch batch{.tokens = c.tokens,
                      .sequences = sequences,
                      .sequence_of_T = sequence_of,
                      .is_protected_T = c.is_protected_T,
                      .training = true};
    route(context, options, batch, bias, routing);
    // Derivatives by the weights of dropped assignments, and by them alone.
    std::vector<float> dweights(static_cast<size_t>(c.tokens * K), 0.0F);
    for (int64_t a = 0; a < c.tokens * K; ++a) {
      const bool is_dropped = routing.kept[static_cast<size_t>(a)] == 0;
      EXPECT_EQ(routing.rows[a] < 0, is_dropped);
      if (!is_dropped) continue;
      ++seen;
      EXPECT_EQ(routing.weights[a], 0.0F);
      dweights[static_cast<size_t>(a)] = 7.0F;
    }
    EXPECT_EQ(routing.total_rows(), c.tokens * K - routing.dropped);
    std::vector<float> dlogits(static_cast<size_t>(c.tokens * E), 1.0F);
    route_backward(context, options, batch, routing, dweights.data(), 1.0, dlogits.data());
    for (const float d : dlogits) ASSERT_EQ(d, 0.0F);
  }
  EXPECT_GT(seen, 100);
}

}  // namespace
}  // namespace lathe
