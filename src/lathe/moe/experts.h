// DeepSeekMoE on the CPU: paper equations 20-22. Tokens are grouped by expert; decode touches only the chosen experts'
// weights. y[t] = shared(u[t]) + sum over the chosen experts, in ascending id, of w[t, e] * E_e(u[t]). The residual is
// the block's. The reference twin is reference/equations.h.
#pragma once

#include <cstdint>
#include <span>

#include "lathe/kernels/linear.h"
#include "lathe/moe/gate.h"

namespace lathe {

// One SwiGLU: W_down (silu(W_gate x) * W_up x).
struct SwigluWeights {
  WeightMatrix gate_proj;  // [w, d]
  WeightMatrix up_proj;    // [w, d]
  WeightMatrix down_proj;  // [d, w]
};

struct MoeWeights {
  WeightMatrix gate;                               // router [N_r, d]
  std::span<const float> e_score_correction_bias;  // [N_r] with noaux_tc, else empty
  std::span<const SwigluWeights> experts;          // N_r of them
  SwigluWeights shared;  // all shared experts as one SwiGLU of width N_s d_e; empty without any
};

// Sizes of one MoE layer.
struct MoeShape {
  int64_t hidden_size = 0;
  int64_t moe_intermediate_size = 0;
  int64_t shared_intermediate_size = 0;  // N_s d_e
  GateShape gate;
};

// What routing decided, for traces: ids ascending per token, and their weights, [T, K] each. May be null.
struct RoutingTrace {
  int32_t* experts_TK = nullptr;
  float* weights_TK = nullptr;
};

// out[T, d] = MoE(x[T, d]) for block-normed x. out must not overlap x.
void moe_forward(const CpuContext& cpu,
                 const MoeWeights& weights,
                 const MoeShape& shape,
                 const float* x,
                 int64_t tokens,
                 float* out,
                 RoutingTrace trace);

// A dense FFN: out[T, d] = SwiGLU(x[T, d]).
void swiglu_forward(const CpuContext& cpu, const SwigluWeights& weights, const float* x, int64_t tokens, float* out);

// Workspace floats that moe_forward takes for at most `tokens` tokens.
int64_t moe_scratch_floats(const MoeShape& shape, int64_t tokens);
// Workspace floats that swiglu_forward takes for at most `tokens` tokens of hidden_size and a SwiGLU of that width.
int64_t swiglu_scratch_floats(int64_t hidden_size, int64_t width, int64_t tokens);

}  // namespace lathe
