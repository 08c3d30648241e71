// Multi-head Latent Attention on the CPU: paper equations 9-19 and 37-47 with the RMSNorms on both latents (spec
// section 2.2). Only the latent c^KV and the shared key k^R are cached. Two forms give the same result within rounding:
//   absorbed: W^UK moved to the query side, W^UV to the output side; attention over the latent itself (decode);
//   expanded: k^C and v of a tile of positions are rebuilt from the latent, tile by tile (long prompts).
// Which form a token uses is fixed by its segment (AttentionSegment::expanded_until), never by the batch.
// The reference twin is reference/equations.h.
#pragma once

#include <cstdint>
#include <span>

#include "lathe/attention/cache_view.h"
#include "lathe/attention/rope.h"
#include "lathe/kernels/linear.h"

namespace lathe {

// eps of q_a_layernorm and kv_a_layernorm, whatever rms_norm_eps says (trap T3).
inline constexpr double kLatentNormEps = 1e-6;

struct MlaShape {
  int64_t hidden_size = 0;       // d
  int64_t num_heads = 0;         // n_h
  int64_t qk_nope_head_dim = 0;  // d_h
  int64_t qk_rope_head_dim = 0;  // d_h^R
  int64_t v_head_dim = 0;
  int64_t kv_lora_rank = 0;      // d_c
  int64_t q_lora_rank = 0;       // d'_c, 0: no query compression
  float softmax_scale = 0.0F;    // (d_h + d_h^R)^-1/2 * g^2 (traps T1, T2)
  bool rope_interleaved = true;  // pairs (2i, 2i+1), as the checkpoints store them (trap T9)

  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }

  int64_t cache_row() const { return kv_lora_rank + qk_rope_head_dim; }
};

// Biases and norms may be null (no bias; converted models without latent norms).
struct MlaWeights {
  WeightMatrix q_proj;              // [H (d_h + d_h^R), d]; empty with query compression
  WeightMatrix q_a_proj;            // W^DQ [d'_c, d]
  WeightMatrix q_b_proj;            // [W^UQ; W^QR] per head (trap T8)
  WeightMatrix kv_a_proj_with_mqa;  // [W^DKV; W^KR] [d_c + d_h^R, d]
  WeightMatrix kv_b_proj;           // per head [W^UK; W^UV], [H (d_h + d_v), d_c] (trap T8); or in its place
  WeightMatrix k_b_proj = {};       //   per head (W^UK)^T, [H d_c, d_h], and
  WeightMatrix v_b_proj = {};       //   per head W^UV, [H d_v, d_c]
  // W^UK once more beside packed weights, for the products that these do not serve: of all heads [H d_h, d_c],
  // row-major beside kv_b_proj, packed beside k_b_proj; or all of k_b_proj row-major. Empty when they are not packed.
  WeightMatrix uk_rows = {};
  WeightMatrix o_proj;  // W^O [d, H d_v] (trap T12)
  const float* q_a_layernorm = nullptr;
  const float* kv_a_layernorm = nullptr;
  const float* q_proj_bias = nullptr;
  const float* q_a_proj_bias = nullptr;
  const float* q_b_proj_bias = nullptr;
  const float* kv_a_proj_bias = nullptr;
  const float* o_proj_bias = nullptr;
};

// out[T, d] = attention block output for the block-normed input x[T, d]. Writes the new tokens' rows into the caches of
// `segments` first. rope_cos and rope_sin are [T, d_h^R / 2] for the tokens' positions.
struct MlaArgs {
  const MlaWeights& weights;
  const MlaShape& shape;
  std::span<const AttentionSegment> segments;
  int64_t tokens = 0;
  const float* x = nullptr;
  const float* rope_cos = nullptr;
  const float* rope_sin = nullptr;
  float* out = nullptr;
};

// One attention block; see MlaArgs.
void mla_attention(const CpuContext& cpu, const MlaArgs& args);

// Writes the new tokens' rows into the caches and computes nothing else: `out` is not used. The rows are those that
// mla_attention writes.
void mla_store(const CpuContext& cpu, const MlaArgs& args);

// Workspace floats that mla_attention takes for at most `tokens` tokens.
int64_t mla_scratch_floats(const MlaShape& shape, int64_t tokens, int threads);

}  // namespace lathe
