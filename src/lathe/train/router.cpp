#include "lathe/train/router.h"

#include <algorithm>

#include "lathe/base/check.h"

namespace lathe {
namespace {

constexpr int64_t kMaxExperts = 4096;  // per layer, for buffers on the stack

void choose(const TrainContext& c, const RouterOptions& o, int64_t tokens, std::span<const float> bias_E, Routing& r) {
  const int64_t E = o.gate.n_routed_experts;
  const int64_t K = o.gate.num_experts_per_tok;
  const auto experts = static_cast<size_t>(E);
  const auto chosen = static_cast<size_t>(K);
  c.pool.run(tokens, 64, [&](int64_t begin, int64_t end, int) {
    float biased[kMaxExperts];
    for (int64_t t = begin; t < end; ++t) {
      const std::span<float> scores(r.scores + t * E, experts);
      gate_scores(o.gate.scoring_func, scores);
      select_experts(
          o.gate, scores, bias_E, {biased, experts}, {r.experts + t * K, chosen}, {r.weights + t * K, chosen});
    }
  });
}

// Counting sort: rows by expert, by token within an expert.
void sort_rows(const RouterOptions& o, int64_t tokens, Routing& r) {
  const auto E = static_cast<size_t>(o.gate.n_routed_experts);
  const int64_t assignments = tokens * o.gate.num_experts_per_tok;
  r.load.assign(E, 0);
  r.offsets.assign(E + 1, 0);
  for (int64_t i = 0; i < assignments; ++i) {
    const auto e = static_cast<size_t>(r.experts[i]);
    ++r.load[e];
    if (r.kept[static_cast<size_t>(i)] != 0) ++r.offsets[e + 1];
  }
  for (size_t e = 0; e < E; ++e) r.offsets[e + 1] += r.offsets[e];
  std::vector<int64_t> next(r.offsets.begin(), r.offsets.end() - 1);
  for (int64_t i = 0; i < assignments; ++i) {
    if (r.kept[static_cast<size_t>(i)] == 0) {
      r.rows[i] = -1;
      r.weights[i] = 0.0F;
      continue;
    }
    const int64_t row = next[static_cast<size_t>(r.experts[i])]++;
    r.rows[i] = static_cast<int32_t>(row);
    r.assignment[row] = static_cast<int32_t>(i);
  }
}

// ds [E]: derivative by the affinities of one token, from that by its weights (training.md section 3 of the model's
// mathematics: the choice itself has none).
void weights_backward(
    const GateShape& g, const float* s, const int32_t* experts, const int32_t* rows, const float* dw, double* ds) {
  const int64_t K = g.num_experts_per_tok;
  const bool normalise = g.norm_topk_prob && K > 1;
  const double factor = !normalise || g.scale_normalised ? static_cast<double>(g.routed_scaling_factor) : 1.0;
  double sum = 1e-20;
  double mean = 0.0;
  for (int64_t k = 0; k < K; ++k) {
    sum += s[experts[k]];
    if (rows[k] >= 0) mean += static_cast<double>(s[experts[k]]) * dw[k];
  }
  for (int64_t k = 0; k < K; ++k) {
    const double delta = rows[k] >= 0 ? static_cast<double>(dw[k]) : 0.0;
    ds[experts[k]] += normalise ? factor / sum * (delta - mean / sum) : factor * delta;
  }
}

// ds += scale * slope, through the division by the sum of the affinities for sigmoid gates.
void balance_backward(const BalanceOptions& o, const float* s, const double* slope, double scale, double* ds) {
  if (o.scoring_func == ScoringFunc::kSoftmax) {
    for (int64_t i = 0; i < o.experts; ++i) ds[i] += scale * slope[i];
    return;
  }
  double sum = 0.0;
  double mean = 0.0;
  for (int64_t i = 0; i < o.experts; ++i) {
    sum += s[i];
    mean += slope[i] * s[i];
  }
  for (int64_t i = 0; i < o.experts; ++i) ds[i] += scale / sum * (slope[i] - mean / sum);
}

}  // namespace

void Routing::take(TrainArena& arena, const GateShape& gate, int64_t tokens) {
  scores = arena.take(tokens * gate.n_routed_experts);
  experts = arena.take_integers(tokens * gate.num_experts_per_tok);
  weights = arena.take(tokens * gate.num_experts_per_tok);
  rows = arena.take_integers(tokens * gate.num_experts_per_tok);
  assignment = arena.take_integers(tokens * gate.num_experts_per_tok);
}

void route(const TrainContext& c,
           const RouterOptions& o,
           const RouterBatch& batch,
           std::span<const float> bias_E,
           Routing& r) {
  LATHE_CHECK(o.gate.n_routed_experts <= kMaxExperts);
  choose(c, o, batch.tokens, bias_E, r);
  const auto assignments = static_cast<size_t>(batch.tokens * o.gate.num_experts_per_tok);
  const std::span<const float> scores(r.scores, static_cast<size_t>(batch.tokens * o.gate.n_routed_experts));
  const std::span<const int32_t> experts(r.experts, assignments);
  r.kept.assign(assignments, 1);
  r.dropped = 0;
  if (batch.training && o.drop) {
    const int64_t budget =
        device_budget(batch.tokens, o.gate.num_experts_per_tok, o.balance.devices, o.capacity_factor);
    r.dropped = drop_assignments({.experts = o.gate.n_routed_experts,
                                  .chosen = o.gate.num_experts_per_tok,
                                  .devices = o.balance.devices,
                                  .budget = budget,
                                  .scores_TE = scores,
                                  .experts_TK = experts,
                                  .is_protected_T = batch.is_protected_T},
                                 r.kept);
  }
  sort_rows(o, batch.tokens, r);
  r.losses = balance_losses(o.balance, batch.sequences, scores, experts);
}

void route_backward(const TrainContext& c,
                    const RouterOptions& o,
                    const RouterBatch& batch,
                    const Routing& r,
                    const float* dweights,
                    double scale,
                    float* dlogits) {
  const int64_t E = o.gate.n_routed_experts;
  const int64_t K = o.gate.num_experts_per_tok;
  c.pool.run(batch.tokens, 64, [&](int64_t begin, int64_t end, int) {
    double ds[kMaxExperts];
    for (int64_t t = begin; t < end; ++t) {
      const float* s = r.scores + t * E;
      std::fill_n(ds, E, 0.0);
      weights_backward(o.gate, s, r.experts + t * K, r.rows + t * K, dweights + t * K, ds);
      const int64_t sequence = o.balance.per_sequence ? batch.sequence_of_T[static_cast<size_t>(t)] : 0;
      balance_backward(o.balance, s, r.losses.slope.data() + sequence * E, scale, ds);
      double mean = 0.0;
      for (int64_t i = 0; i < E; ++i) mean += s[i] * ds[i];
      for (int64_t i = 0; i < E; ++i) {
        const double slope = o.gate.scoring_func == ScoringFunc::kSoftmax ? ds[i] - mean : (1.0 - s[i]) * ds[i];
        dlogits[t * E + i] = static_cast<float>(s[i] * slope);
      }
    }
  });
}

}  // namespace lathe
