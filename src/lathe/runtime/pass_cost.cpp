#include "lathe/runtime/pass_cost.h"

#include <algorithm>
#include <cmath>

#include "lathe/tensor/panels.h"

namespace lathe {
namespace {

double elements(const WeightMatrix& matrix) {
  return static_cast<double>(matrix.rows) * static_cast<double>(matrix.cols);
}

// Sums over the matrices that all tokens of the pass go through.
struct Counter {
  double tokens;
  PassCost sum;

  // `share` of the tokens use it.
  void product(const WeightMatrix& matrix, double share = 1.0) {
    if (matrix.empty()) return;
    sum.bytes += stored_bytes(matrix);
    sum.operations += 2.0 * elements(matrix) * tokens * share;
  }

  void floats(int64_t count) { sum.bytes += 4.0 * static_cast<double>(count); }
};

// Cached positions that the tokens at [begin, end) look at, each itself included, summed.
double looked_at(int64_t begin, int64_t end) {
  if (end <= begin) return 0.0;
  return 0.5 * static_cast<double>(end - begin) * static_cast<double>(begin + end + 1);
}

// W^UK and W^UV as the absorbed form reads them: the transposed product may have a twin of its own.
double absorbed_kv_bytes(const MlaWeights& w, const MlaShape& s) {
  const double both = stored_bytes(w.kv_b_proj);
  const double value_share = static_cast<double>(s.v_head_dim) / static_cast<double>(s.qk_nope_head_dim + s.v_head_dim);
  double bytes = w.v_b_proj.empty() ? both * value_share : stored_bytes(w.v_b_proj);
  if (!w.k_b_proj.empty()) {
    bytes += stored_bytes(w.k_b_proj);
  } else {
    bytes += w.uk_rows.empty() ? both * (1.0 - value_share) : stored_bytes(w.uk_rows);
  }
  return bytes;
}

double expanded_kv_bytes(const MlaWeights& w) {
  if (!w.kv_b_proj.empty()) return stored_bytes(w.kv_b_proj);
  return stored_bytes(w.uk_rows.empty() ? w.k_b_proj : w.uk_rows) + stored_bytes(w.v_b_proj);
}

void count_mla(Counter& c, const MlaWeights& w, const MlaShape& s, const PassShape& pass) {
  c.product(w.q_proj);
  c.product(w.q_a_proj);
  c.product(w.q_b_proj);
  c.product(w.kv_a_proj_with_mqa);
  c.product(w.o_proj);
  c.floats(s.q_lora_rank + s.kv_lora_rank);
  const auto heads = static_cast<double>(s.num_heads);
  const auto latent = static_cast<double>(s.kv_lora_rank);
  const auto rope = static_cast<double>(s.qk_rope_head_dim);
  const auto rebuilt = static_cast<double>(s.qk_nope_head_dim + s.v_head_dim);  // per head and position
  const int64_t end = pass.position + pass.tokens;
  const int64_t expanded_end = std::clamp(pass.expanded_until, pass.position, end);
  const auto absorbed_tokens = static_cast<double>(end - expanded_end);
  const double absorbed_bytes = end > expanded_end ? absorbed_kv_bytes(w, s) : 0.0;
  const double expanded_bytes = expanded_end > pass.position ? expanded_kv_bytes(w) : 0.0;
  c.sum.bytes += std::max(absorbed_bytes, expanded_bytes);  // mostly the same bytes
  // Absorbed: both halves of kv_b on the token's side, then scores and sums over the latent itself.
  double products = absorbed_tokens * heads * rebuilt * latent;
  products += looked_at(expanded_end, end) * heads * (2.0 * latent + rope);
  // Expanded: every cached position through kv_b, then scores and sums per head.
  if (expanded_end > pass.position) products += static_cast<double>(expanded_end) * heads * rebuilt * latent;
  products += looked_at(pass.position, expanded_end) * heads * (rebuilt + rope);
  c.sum.operations += 2.0 * products;
}

void count_gqa(Counter& c, const GqaWeights& w, const GqaShape& s, const PassShape& pass) {
  for (const WeightMatrix* matrix : {&w.q_proj, &w.k_proj, &w.v_proj, &w.o_proj}) c.product(*matrix);
  const double width = 2.0 * static_cast<double>(s.num_heads * s.head_dim);  // scores and sums
  c.sum.operations += 2.0 * width * looked_at(pass.position, pass.position + pass.tokens);
}

void count_swiglu(Counter& c, const SwigluWeights& w) {
  c.product(w.gate_proj);
  c.product(w.up_proj);
  c.product(w.down_proj);
}

void count_moe(Counter& c, const MoeWeights& w, const MoeShape& s) {
  c.product(w.gate);
  count_swiglu(c, w.shared);
  const auto experts = static_cast<double>(s.gate.n_routed_experts);
  const auto chosen = static_cast<double>(s.gate.num_experts_per_tok);
  const double touched = experts * (1.0 - std::pow(1.0 - chosen / experts, c.tokens));
  Counter all{c.tokens, {}};
  for (const SwigluWeights& expert : w.experts) count_swiglu(all, expert);
  c.sum += {.bytes = all.sum.bytes / experts * touched, .operations = all.sum.operations / experts * chosen};
}

}  // namespace

double stored_bytes(const WeightMatrix& matrix) {
  if (matrix.empty()) return 0.0;
  if (matrix.packed) return static_cast<double>(packed_bytes(matrix.dtype, matrix.rows, matrix.cols));
  double bytes = static_cast<double>(row_bytes(matrix.dtype, matrix.cols)) * static_cast<double>(matrix.rows);
  if (matrix.scales != nullptr) {
    const int64_t scales = (matrix.rows + kFp8Block - 1) / kFp8Block * matrix.scale_cols();
    bytes += 4.0 * static_cast<double>(scales);
  }
  return bytes;
}

PassCost pass_cost(const ModelWeights& weights, const CacheLayout& cache, const PassShape& pass) {
  const ModelConfig& config = weights.config();
  Counter c{static_cast<double>(pass.tokens), {}};
  const WeightMatrix& table = weights.embed_tokens();
  c.sum.bytes += stored_bytes(table) * std::min(c.tokens / static_cast<double>(table.rows), 1.0);
  for (const LayerWeights& layer : weights.layers()) {
    c.floats(2 * config.hidden_size);
    if (config.attention == AttentionKind::kMla) {
      count_mla(c, layer.mla, mla_shape(config), pass);
    } else {
      count_gqa(c, layer.gqa, gqa_shape(config), pass);
    }
    if (layer.is_moe) {
      count_moe(c, layer.moe, moe_shape(config));
    } else {
      count_swiglu(c, layer.dense);
    }
  }
  c.floats(config.hidden_size);
  if (pass.logit_rows > 0) {
    c.product(weights.lm_head(), static_cast<double>(pass.logit_rows) / c.tokens);
  }
  const double position_bytes = static_cast<double>(cache.page_bytes()) / static_cast<double>(kPageTokens);
  c.sum.bytes += position_bytes * static_cast<double>(pass.position + pass.tokens);
  return c.sum;
}

}  // namespace lathe
