// Multi-Head, Grouped-Query and Multi-Query Attention on the CPU: paper equations 1-8 with shared key and value heads
// (spec section 2.1). MHA: num_key_value_heads = num_heads; MQA: 1. The baselines of the paper's Table 1, and the
// attention of `llama` and `deepseek` checkpoints. The reference twin is reference/equations.h.
#pragma once

#include <cstdint>
#include <span>

#include "lathe/attention/cache_view.h"
#include "lathe/kernels/linear.h"

namespace lathe {

struct GqaShape {
  int64_t hidden_size = 0;          // d
  int64_t num_heads = 0;            // n_h
  int64_t num_key_value_heads = 0;  // n_kv
  int64_t head_dim = 0;             // d_h
  float softmax_scale = 0.0F;       // d_h^-1/2 (times g^2 with YaRN)
  bool rope_interleaved = false;    // HF llama and deepseek: half-split pairs (i, i + d_h/2)

  int64_t cache_row() const { return 2 * num_key_value_heads * head_dim; }
};

// Biases may be null.
struct GqaWeights {
  WeightMatrix q_proj;  // W^Q [H d_h, d]
  WeightMatrix k_proj;  // W^K [n_kv d_h, d]
  WeightMatrix v_proj;  // W^V [n_kv d_h, d]
  WeightMatrix o_proj;  // W^O [d, H d_h]
  const float* q_proj_bias = nullptr;
  const float* k_proj_bias = nullptr;
  const float* v_proj_bias = nullptr;
  const float* o_proj_bias = nullptr;
};

// As MlaArgs; rope_cos and rope_sin are [T, d_h / 2].
struct GqaArgs {
  const GqaWeights& weights;
  const GqaShape& shape;
  std::span<const AttentionSegment> segments;
  int64_t tokens = 0;
  const float* x = nullptr;
  const float* rope_cos = nullptr;
  const float* rope_sin = nullptr;
  float* out = nullptr;
};

// One attention block; see GqaArgs.
void gqa_attention(const CpuContext& cpu, const GqaArgs& args);

// Workspace floats that gqa_attention takes for at most `tokens` tokens.
int64_t gqa_scratch_floats(const GqaShape& shape, int64_t tokens, int threads);

}  // namespace lathe
