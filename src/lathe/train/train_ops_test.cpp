// Operations of training against the golden vectors (float64), and the rules of token dropping.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lathe/tensor/workspace.h"
#include "lathe/train/adamw.h"
#include "lathe/train/balance.h"
#include "lathe/train/cross_entropy.h"
#include "lathe/train/norm.h"
#include "lathe/train/router.h"
#include "support/golden_file.h"

namespace lathe {
namespace {

using testing::golden_dir;
using testing::GoldenFile;

Json golden_ops(const char* file) {
  const Result<Json> json = read_json(golden_dir() / "ops" / "ops.json");
  EXPECT_TRUE(json.has_value());
  return *json->find(file);
}

// Largest |a - e| against the largest |e|.
void expect_near_largest(std::span<const float> actual, std::span<const float> expected, double relative) {
  ASSERT_EQ(actual.size(), expected.size());
  double largest = 0.0;
  double worst = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(expected[i])));
    worst = std::max(worst, std::fabs(static_cast<double>(actual[i]) - expected[i]));
  }
  EXPECT_LE(worst, relative * largest);
}

// A pool, scratch for products and a context over them.
struct Bench {
  std::unique_ptr<ThreadPool> pool = ThreadPool::create(2).value();
  Workspace memory = Workspace::create(2 * kSgemmScratchFloats).value();
  TrainContext context{kernels(), *pool, memory.take(2 * kSgemmScratchFloats)};
};

BalanceOptions balance_options(const Json& c) {
  return {.experts = c.find("experts")->as_int(),
          .chosen = c.find("top_k")->as_int(),
          .devices = c.find("devices")->as_int(),
          .device_limit = c.find("M")->as_int()};
}

// d(loss)/d(logits) of a balance loss alone, through the router's derivative.
std::vector<float> balance_gradient(const BalanceOptions& balance,
                                    std::span<const int64_t> sequences,
                                    std::vector<float> scores_TE,
                                    std::vector<int32_t> experts_TK) {
  Bench bench;
  RouterOptions options;
  options.gate.n_routed_experts = balance.experts;
  options.gate.num_experts_per_tok = balance.chosen;
  options.balance = balance;
  const auto tokens = static_cast<int64_t>(scores_TE.size()) / balance.experts;
  std::vector<int32_t> sequence_of(static_cast<size_t>(tokens));
  for (size_t t = 0, b = 0; t < sequence_of.size(); ++t) {
    while (b + 1 < sequences.size() && static_cast<int64_t>(t) >= sequences[b + 1]) ++b;
    sequence_of[t] = static_cast<int32_t>(b);
  }
  Routing routing;
  routing.losses = balance_losses(balance, sequences, scores_TE, experts_TK);
  std::vector<int32_t> rows(experts_TK.size(), 0);
  const std::vector<float> dweights(experts_TK.size(), 0.0F);
  routing.scores = scores_TE.data();
  routing.experts = experts_TK.data();
  routing.rows = rows.data();
  RouterBatch batch;
  batch.tokens = tokens;
  batch.sequences = sequences;
  batch.sequence_of_T = sequence_of;
  std::vector<float> dlogits(scores_TE.size());
  route_backward(bench.context, options, batch, routing, dweights.data(), 1.0, dlogits.data());
  return dlogits;
}

TEST(TrainOps, BalanceLossesMatchTheGoldenOnes) {
  const GoldenFile golden(golden_dir() / "ops" / "balance_loss.safetensors");
  const Json ops = golden_ops("balance_loss");
  for (const Json& c : ops.find("cases")->as_array()) {
    const std::string name = c.find("case")->as_string() + ".";
    SCOPED_TRACE(name);
    const BalanceOptions plain = balance_options(c);
    std::vector<int64_t> sequences;
    for (int64_t b = 0; b < c.find("batch")->as_int(); ++b) sequences.push_back(b * c.find("seq")->as_int());
    std::vector<float> scores = golden.floats(name + "logits");
    const auto E = static_cast<size_t>(plain.experts);
    for (size_t t = 0; t < scores.size(); t += E) gate_scores(ScoringFunc::kSoftmax, std::span(scores).subspan(t, E));
    const std::vector<int32_t> experts = golden.ints(name + "topk_idx");
    const Json& loss = *c.find("loss");

    BalanceOptions expert = plain;
    expert.alpha1 = c.find("alpha1")->as_double();
    const double eq_23 = loss.find("expert")->as_double();
    EXPECT_NEAR(balance_losses(expert, sequences, scores, experts).expert, eq_23, 1e-6 * eq_23);
    expect_near_largest(
        balance_gradient(expert, sequences, scores, experts), golden.floats(name + "expert_grad"), 1e-5);
    BalanceOptions device = plain;
    device.alpha2 = c.find("alpha2")->as_double();
    const double eq_26 = loss.find("device")->as_double();
    EXPECT_NEAR(balance_losses(device, sequences, scores, experts).device, eq_26, 1e-6 * eq_26);
    expect_near_largest(
        balance_gradient(device, sequences, scores, experts), golden.floats(name + "device_grad"), 1e-5);
    BalanceOptions communication = plain;
    communication.alpha3 = c.find("alpha3")->as_double();
    const double eq_29 = loss.find("comm")->as_double();
    EXPECT_NEAR(balance_losses(communication, sequences, scores, experts).communication, eq_29, 1e-6 * eq_29);
    expect_near_largest(
        balance_gradient(communication, sequences, scores, experts), golden.floats(name + "comm_grad"), 1e-5);

    if (!golden.has(name + "expert_batchwise_grad")) continue;
    expert.per_sequence = false;
    const double pooled = c.find("expert_batchwise_loss")->as_double();
    EXPECT_NEAR(balance_losses(expert, sequences, scores, experts).expert, pooled, 1e-6 * pooled);
    expect_near_largest(
        balance_gradient(expert, sequences, scores, experts), golden.floats(name + "expert_batchwise_grad"), 1e-5);
  }
}

// At perfect balance, with every token on M devices, each loss is its factor.
TEST(TrainOps, BalanceLossesAreTheirFactorsAtPerfectBalance) {
  const BalanceOptions options{
      .experts = 4, .chosen = 2, .devices = 4, .device_limit = 2, .alpha1 = 0.003, .alpha2 = 0.05, .alpha3 = 0.02};
  const std::vector<float> scores(16, 0.25F);
  const std::vector<int32_t> experts{0, 1, 2, 3, 0, 2, 1, 3};
  const int64_t sequences[] = {0};
  const BalanceLosses losses = balance_losses(options, sequences, scores, experts);
  EXPECT_NEAR(losses.expert, 0.003, 1e-12);
  EXPECT_NEAR(losses.device, 0.05, 1e-12);
  EXPECT_NEAR(losses.communication, 0.02, 1e-12);
}

TEST(TrainOps, DroppingKeepsTheBudgetAndTheHighestAffinities) {
  constexpr int64_t kTokens = 64;
  constexpr int64_t kExperts = 8;
  constexpr int64_t kChosen = 2;
  constexpr int64_t kDevices = 4;
  std::vector<float> scores(kTokens * kExperts);
  std::vector<int32_t> experts(kTokens * kChosen);
  std::vector<uint8_t> is_protected(kTokens, 0);
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>((i * 37) % 101) / 101.0F;
  for (size_t t = 0; t < kTokens; ++t) {  // skewed to the first devices
    experts[2 * t] = static_cast<int32_t>(t % 3);
    experts[2 * t + 1] = static_cast<int32_t>(3 + t % 2);
    is_protected[t] = t % 10 == 0 ? 1 : 0;
  }
  const int64_t budget = device_budget(kTokens, kChosen, kDevices, 1.0);
  EXPECT_EQ(budget, 32);
  for (const bool with_protection : {false, true}) {
    const std::vector<uint8_t> flags = with_protection ? is_protected : std::vector<uint8_t>(kTokens, 0);
    std::vector<uint8_t> kept(experts.size());
    const int64_t dropped = drop_assignments({.experts = kExperts,
                                              .chosen = kChosen,
                                              .devices = kDevices,
                                              .budget = budget,
                                              .scores_TE = scores,
                                              .experts_TK = experts,
                                              .is_protected_T = flags},
                                             kept);
    EXPECT_EQ(dropped, std::ranges::count(kept, uint8_t{0}));
    EXPECT_GT(dropped, 0);
    for (int32_t device = 0; device < kDevices; ++device) {
      int64_t load = 0;
      int64_t left = 0;
      float highest_dropped = -1.0F;
      float lowest_kept = 2.0F;
      for (size_t i = 0; i < experts.size(); ++i) {
        if (experts[i] / 2 != device) continue;
        const float score = scores[i / kChosen * kExperts + static_cast<size_t>(experts[i])];
        ++load;
        left += kept[i];
        if (kept[i] == 0) highest_dropped = std::max(highest_dropped, score);
        if (kept[i] != 0 && flags[i / kChosen] == 0) lowest_kept = std::min(lowest_kept, score);
        if (flags[i / kChosen] != 0) {
          EXPECT_EQ(kept[i], 1);
        }
      }
      EXPECT_EQ(left, std::min(load, budget));
      EXPECT_LE(highest_dropped, lowest_kept);
    }
  }
}

TEST(TrainOps, BalancedInputDropsNothingAndATenthIsProtected) {
  const std::vector<float> scores(16, 0.25F);
  const std::vector<int32_t> experts{0, 1, 2, 3, 0, 2, 1, 3};
  const std::vector<uint8_t> none(4, 0);
  std::vector<uint8_t> kept(8);
  EXPECT_EQ(drop_assignments({.experts = 4,
                              .chosen = 2,
                              .devices = 4,
                              .budget = device_budget(4, 2, 4, 1.0),
                              .scores_TE = scores,
                              .experts_TK = experts,
                              .is_protected_T = none},
                             kept),
            0);
  int64_t marked = 0;
  for (uint64_t id = 0; id < 10000; ++id) marked += is_protected_sequence(id, 0.1) ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(marked), 1000.0, 120.0);  // four deviations
}

TEST(TrainOps, AdamWMatchesTheGoldenSteps) {
  const GoldenFile golden(golden_dir() / "ops" / "adamw.safetensors");
  const Json ops = golden_ops("adamw");
  Bench bench;
  for (const Json& c : ops.find("cases")->as_array()) {
    const std::string name = c.find("case")->as_string() + ".";
    SCOPED_TRACE(name);
    const std::vector<float> start = golden.floats(name + "param0");
    const std::vector<float> gradients = golden.floats(name + "grads");
    const std::vector<float> expected = golden.floats(name + "params");
    const auto size = static_cast<int64_t>(start.size());
    Result<ParameterSet> set =
        ParameterSet::create({{.name = "p", .shape = {size}, .offset = 0, .size = size, .decay = true}});
    ASSERT_TRUE(set.has_value());
    std::ranges::copy(start, set->values(0).begin());
    Result<AdamW> optimizer = AdamW::create({.beta1 = c.find("beta1")->as_double(),
                                             .beta2 = c.find("beta2")->as_double(),
                                             .epsilon = c.find("eps")->as_double(),
                                             .weight_decay = c.find("weight_decay")->as_double()},
                                            set->size(),
                                            *bench.pool,
                                            kernels());
    ASSERT_TRUE(optimizer.has_value());
    const Json* clip = c.find("clip_grad_norm");
    for (size_t step = 0; step < gradients.size() / start.size(); ++step) {
      const auto first = static_cast<std::ptrdiff_t>(step * start.size());
      std::copy_n(gradients.begin() + first, start.size(), set->gradients(0).begin());
      const double norm = optimizer->global_norm(*set);
      const double expected_norm = c.find("grad_norms")->as_array()[step].as_double();
      EXPECT_NEAR(norm, expected_norm, 1e-6 * expected_norm);
      const double factor = clip->is_null() ? 1.0 : AdamW::clip_factor(norm, clip->as_double());
      optimizer->step(*set, c.find("lr")->as_double(), factor);
      expect_near_largest(set->values(0), std::span(expected).subspan(step * start.size(), start.size()), 1e-6);
    }
    expect_near_largest(optimizer->first_moments().first(start.size()), golden.floats(name + "m"), 1e-6);
    expect_near_largest(optimizer->second_moments().first(start.size()), golden.floats(name + "v"), 1e-6);
  }
}

TEST(TrainOps, RmsNormMatchesTheGoldenOneForwardAndBackward) {
  const GoldenFile golden(golden_dir() / "ops" / "rmsnorm.safetensors");
  const Json ops = golden_ops("rmsnorm");
  Bench bench;
  for (const Json& c : ops.find("cases")->as_array()) {
    const std::string name = c.find("case")->as_string() + ".";
    SCOPED_TRACE(name);
    const int64_t rows = c.find("rows")->as_int();
    const int64_t n = c.find("dim")->as_int();
    const std::vector<float> x = golden.floats(name + "x");
    std::vector<float> weight = golden.floats(name + "weight");
    const std::vector<float> dy = golden.floats(name + "dy");
    const NormRows in{.x = x.data(), .x_stride = n, .rows = rows, .n = n, .eps = c.find("eps")->as_double()};
    std::vector<float> y(x.size());
    norm_forward(bench.context, in, weight.data(), y.data(), n);
    expect_near_largest(y, golden.floats(name + "y"), 2e-6);
    std::vector<float> dx(x.size());
    std::vector<float> dweight(weight.size(), 0.0F);
    std::vector<float> partials(static_cast<size_t>(column_sum_floats(rows, n)));
    norm_backward(bench.context,
                  {.rows = in,
                   .weight = {weight.data(), dweight.data()},
                   .dy = dy.data(),
                   .dy_stride = n,
                   .dx = dx.data(),
                   .dx_stride = n,
                   .sum = Sum::kStore,
                   .partials = partials.data()});
    // Of one value nothing is left of dx but rounding: errors are measured by what it is the difference of.
    const std::vector<float> expected = golden.floats(name + "dx");
    double largest = 0.0;
    for (size_t i = 0; i < dy.size(); ++i)
      largest = std::max({largest, std::fabs(static_cast<double>(dy[i])), std::fabs(static_cast<double>(expected[i]))});
    for (size_t i = 0; i < dx.size(); ++i) EXPECT_NEAR(dx[i], expected[i], 2e-6 * largest);
    expect_near_largest(dweight, golden.floats(name + "dweight"), 2e-6);
  }
}

// Logits are given, so the inputs are the logits themselves and the head is the identity.
TEST(TrainOps, CrossEntropyMatchesTheGoldenOne) {
  const GoldenFile golden(golden_dir() / "ops" / "cross_entropy.safetensors");
  const Json ops = golden_ops("cross_entropy");
  Bench bench;
  for (const Json& c : ops.find("cases")->as_array()) {
    const std::string name = c.find("case")->as_string() + ".";
    SCOPED_TRACE(name);
    const int64_t V = c.find("vocab")->as_int();
    const std::vector<float> logits = golden.floats(name + "logits");
    const std::vector<int32_t> targets = golden.ints(name + "targets");
    const auto counted = static_cast<double>(std::ranges::count_if(targets, [](int32_t t) { return t >= 0; }));
    std::vector<float> head(static_cast<size_t>(V * V), 0.0F);
    for (int64_t i = 0; i < V; ++i) head[static_cast<size_t>(i * V + i)] = 1.0F;
    std::vector<float> dhead(head.size(), 0.0F);
    std::vector<float> dx(logits.size());
    std::vector<float> losses(targets.size());
    const auto room = static_cast<size_t>(head_rows(V) * V);
    std::vector<float> chunk(room);
    std::vector<float> rows(room);
    std::vector<float> drows(room);
    const double loss = head_cross_entropy(bench.context,
                                           {.hidden = V,
                                            .vocab = V,
                                            .head = {head.data(), dhead.data()},
                                            .x = logits.data(),
                                            .targets = targets,
                                            .weights = {},
                                            .factor = 1.0 / counted,
                                            .dx = dx.data(),
                                            .token_losses = losses,
                                            .logits = chunk.data(),
                                            .rows = rows.data(),
                                            .drows = drows.data()});
    const double expected = c.find("loss")->as_double();
    EXPECT_NEAR(loss / counted, expected, 1e-6 * expected);
    expect_near_largest(dx, golden.floats(name + "grad"), 1e-6);
  }
}

}  // namespace
}  // namespace lathe
