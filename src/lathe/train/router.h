// The router of training: affinities and choice (Eq. 21, 22, through moe/gate.h), dropping, balance losses, the order
// of rows by expert, and the derivative by the router's logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lathe/moe/gate.h"
#include "lathe/train/balance.h"
#include "lathe/train/train_context.h"

namespace lathe {

struct RouterOptions {
  GateShape gate;
  BalanceOptions balance;
  bool drop = false;
  double capacity_factor = 1.0;
};

// The batch as a router sees it.
struct RouterBatch {
  int64_t tokens = 0;
  std::span<const int64_t> sequences;       // first tokens
  std::span<const int32_t> sequence_of_T;   // [T]
  std::span<const uint8_t> is_protected_T;  // [T]
  bool training = false;                    // drop, and prepare the derivative
};

// What one layer's router decided; buffers for max_tokens.
struct Routing {
  float* scores = nullptr;        // [T, E]: logits at first, then affinities
  int32_t* experts = nullptr;     // [T, K], ascending
  float* weights = nullptr;       // [T, K], 0 where dropped
  int32_t* rows = nullptr;        // [T, K]: place among the rows sorted by expert, -1 where dropped
  int32_t* assignment = nullptr;  // [rows]: t * K + k
  std::vector<int64_t> offsets;   // [E + 1]: the rows of each expert
  std::vector<int64_t> load;      // [E]: tokens that chose it, before dropping
  std::vector<uint8_t> kept;      // [T, K]
  BalanceLosses losses;
  int64_t dropped = 0;

  // Takes the buffers above for that many tokens.
  void take(TrainArena& arena, const GateShape& gate, int64_t tokens);

  int64_t total_rows() const { return offsets.back(); }
};

// From the logits in routing.scores to everything else. bias: e_score_correction_bias, or empty.
void route(const TrainContext& c,
           const RouterOptions& options,
           const RouterBatch& batch,
           std::span<const float> bias_E,
           Routing& routing);

// dlogits [T, E] = derivative of the task loss, given dweights [T, K] by the weights (ignored where dropped), plus
// scale times that of the balance losses. Softmax: dz = s (ds - sum s ds), sigmoid: dz = s (1 - s) ds.
void route_backward(const TrainContext& c,
                    const RouterOptions& options,
                    const RouterBatch& batch,
                    const Routing& routing,
                    const float* dweights,
                    double scale,
                    float* dlogits);

}  // namespace lathe
