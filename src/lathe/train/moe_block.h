// DeepSeekMoE of training (Eq. 20-22), forward and backward: shared experts as one SwiGLU, routed ones on rows sorted
// by expert. Sums over a token's experts go in ascending id.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lathe/moe/experts.h"
#include "lathe/train/router.h"
#include "lathe/train/swiglu.h"

namespace lathe {

struct MoeParameters {
  Trained router;                // [E, d]
  std::span<const float> bias;   // e_score_correction_bias, or empty
  std::vector<Trained> gate_up;  // [E] of [2 d_e, d]
  std::vector<Trained> down;     // [E] of [d, d_e]
  SwigluParameters shared;       // empty without shared experts
};

// Of one layer, from the forward to the backward pass.
struct KeptMoe {
  Routing routing;
  float* gate_up = nullptr;         // [T K, 2 d_e]
  float* shared_gate_up = nullptr;  // [T, 2 N_s d_e]
};

// Shared by all layers.
struct MoeWork {
  float* x = nullptr;         // [T K, d]: inputs sorted by expert
  float* y = nullptr;         // [T K, d]: outputs, or their gradients
  float* act = nullptr;       // [max(T K d_e, T N_s d_e)]
  float* dact = nullptr;      // likewise
  float* dweights = nullptr;  // [T, K]
  float* dlogits = nullptr;   // [T, E]
};

// One layer's MoE in one step: what both passes work with.
struct MoePass {
  const TrainContext& c;
  const RouterBatch& batch;
  const MoeParameters& p;
  KeptMoe& kept;
  const MoeWork& work;
  const float* u;  // [T, d], block-normed
};

class MoeBlock {
 public:
  MoeBlock(const MoeShape& shape, const RouterOptions& options) : shape_(shape), options_(options) {}

  const RouterOptions& options() const { return options_; }

  // Buffers for that many tokens: what stays until the backward pass, and what all layers work in.
  void take_kept(TrainArena& arena, int64_t tokens, KeptMoe& out) const;
  // See take_kept.
  void take_work(TrainArena& arena, int64_t tokens, MoeWork& out) const;

  // out [T, d] = MoE of pass.u.
  void forward(const MoePass& pass, float* out) const;
  // du [T, d] is stored; `scale` is that of the balance losses.
  void backward(const MoePass& pass, const float* dout, double scale, float* du) const;

 private:
  void experts_backward(const MoePass& pass, const float* dout) const;
  // rows[i] = from[token of row i].
  void gather(const TrainContext& c, const Routing& routing, const float* from, float* rows) const;

  MoeShape shape_;
  RouterOptions options_;
};

}  // namespace lathe
