// Shape letters: T packed tokens, S cached positions, H heads, D hidden, C latent d_c, N nope dim, R rope dim, V value
// dim.
#include "lathe/attention/mla.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "lathe/attention/flash.h"
#include "lathe/attention/mla_expanded.h"
#include "lathe/attention/mla_heads.h"

namespace lathe {

namespace {

// Query: Eq. 12-13 and 14 (with compression) or the plain projection; latent: Eq. 9 and 15. One parallel region each
// way.
void project_down(const CpuContext& cpu, const MlaArgs& a, float* q_THK, float* q_latent_TQ, float* kv_a_T) {
  const MlaWeights& w = a.weights;
  const MlaShape& s = a.shape;
  const bool compressed = s.q_lora_rank > 0;
  const WeightMatrix& first = compressed ? w.q_a_proj : w.q_proj;
  float* first_out = compressed ? q_latent_TQ : q_THK;
  const std::array<LinearOutput, 2> outputs{LinearOutput{first, first_out, first.rows},
                                            LinearOutput{w.kv_a_proj_with_mqa, kv_a_T, s.cache_row()}};
  run_linear(cpu, a.x, a.tokens, outputs);
  add_bias(cpu, compressed ? w.q_a_proj_bias : w.q_proj_bias, first_out, a.tokens, first.rows);
  add_bias(cpu, w.kv_a_proj_bias, kv_a_T, a.tokens, s.cache_row());
  if (!compressed) return;
  if (w.q_a_layernorm != nullptr) {
    for (int64_t t = 0; t < a.tokens; ++t) {
      float* row = q_latent_TQ + t * s.q_lora_rank;
      cpu.kernels.rms_norm(row, w.q_a_layernorm, row, s.q_lora_rank, static_cast<float>(kLatentNormEps));
    }
  }
  linear(cpu, w.q_b_proj, w.q_b_proj_bias, q_latent_TQ, a.tokens, q_THK);
}

// Norm of the latent (never of k^R: trap T4), RoPE of k^R and of every q^R, and the cache row of each token (Eq. 9, 14,
// 15). q_THK may be null.
void rotate_and_store(const CpuContext& cpu, const MlaArgs& a, float* q_THK, float* kv_a_T) {
  const MlaShape& s = a.shape;
  const int64_t pairs = s.qk_rope_head_dim / 2;
  const auto rope = s.rope_interleaved ? cpu.kernels.rope_interleaved : cpu.kernels.rope_half_split;
  const auto one_token = [&](const AttentionSegment& segment, int64_t i) {
    const int64_t t = segment.first_row + i;
    const float* cos = a.rope_cos + t * pairs;
    const float* sin = a.rope_sin + t * pairs;
    float* row = kv_a_T + t * s.cache_row();
    if (a.weights.kv_a_layernorm != nullptr) {
      cpu.kernels.rms_norm(row, a.weights.kv_a_layernorm, row, s.kv_lora_rank, static_cast<float>(kLatentNormEps));
    }
    rope(row + s.kv_lora_rank, cos, sin, pairs);
    segment.cache.store(cpu.kernels, segment.position + i, row);
    if (q_THK == nullptr) return;
    for (int64_t h = 0; h < s.num_heads; ++h) {
      rope(q_THK + (t * s.num_heads + h) * s.qk_head_dim() + s.qk_nope_head_dim, cos, sin, pairs);
    }
  };
  for (const AttentionSegment& segment : a.segments) {
    cpu.pool.run(segment.tokens, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) one_token(segment, i);
    });
  }
}

// The tokens of `segment` whose form is absorbed (or expanded): forms are contiguous, expanded ones first.
AttentionSegment part_of(const AttentionSegment& segment, bool expanded) {
  const int64_t split = std::clamp(segment.expanded_until - segment.position, int64_t{0}, segment.tokens);
  AttentionSegment part = segment;
  if (expanded) {
    part.tokens = split;
  } else {
    part.first_row += split;
    part.position += split;
    part.tokens -= split;
  }
  return part;
}

// Calls visit(first row, tokens) for the runs of neighbouring rows that `parts` cover: sequences that decode lie side
// by side and so share one product per head.
template <class Visit>
void for_row_runs(std::span<const AttentionSegment> parts, const Visit& visit) {
  for (size_t i = 0; i < parts.size();) {
    const int64_t begin = parts[i].first_row;
    int64_t end = begin;
    for (; i < parts.size() && parts[i].first_row == end; ++i) end += parts[i].tokens;
    visit(begin, end - begin);
  }
}

// q~[h] = W_UK[h]^T q^C[h], then q^R[h], for one head of `tokens` rows from t0.
void absorb_queries(const MlaHead& head, int64_t t0, int64_t tokens, const float* q_THK, float* q_absorbed_THC) {
  const MlaShape& s = head.shape;
  const float* q = q_THK + (t0 * s.num_heads + head.index) * s.qk_head_dim();
  float* out = q_absorbed_THC + (t0 * s.num_heads + head.index) * s.cache_row();
  absorb_query(head, tokens, q, s.num_heads * s.qk_head_dim(), {out, s.num_heads * s.cache_row()});
  for (int64_t t = 0; t < tokens; ++t) {
    std::memcpy(out + t * s.num_heads * s.cache_row() + s.kv_lora_rank,
                q + t * s.num_heads * s.qk_head_dim() + s.qk_nope_head_dim,
                static_cast<size_t>(s.qk_rope_head_dim) * sizeof(float));
  }
}

// o[h] = W_UV[h] z[h] for one head of `tokens` rows from t0.
void project_outputs(const MlaHead& head, int64_t t0, int64_t tokens, const float* z_THC, float* out_THV) {
  const MlaShape& s = head.shape;
  const int64_t row = t0 * s.num_heads + head.index;
  project_value(head,
                tokens,
                z_THC + row * s.kv_lora_rank,
                s.num_heads * s.kv_lora_rank,
                {out_THV + row * s.v_head_dim, s.num_heads * s.v_head_dim});
}

// Eq. 16-18 with Eq. 10-11 moved to the query and output side (absorption):
//   q~[h] = W_UK[h]^T q^C[h]      score[h, s] = (q~[h] . c[s] + q^R[h] . k^R[s]) * scale      o[h] = W_UV[h] z[h]
// The two products per head stay two steps: W_UK^T W_UQ would be larger than both (spec 2.2.8).
void absorbed_form(const CpuContext& cpu,
                   const MlaArgs& a,
                   std::span<const AttentionSegment> parts,
                   const float* q_THK,
                   float* out_THV) {
  const MlaShape& s = a.shape;
  const Workspace::Scope scope(cpu.workspace);
  float* q_absorbed_THC = cpu.workspace.take(a.tokens * s.num_heads * s.cache_row());
  float* z_THC = cpu.workspace.take(a.tokens * s.num_heads * s.kv_lora_rank);
  const int64_t scratch_floats = head_scratch_floats(s);
  float* scratch = cpu.workspace.take(cpu.pool.threads() * scratch_floats);
  // Calls visit(head, first row, tokens) for every head and run of rows, heads spread over the threads.
  const auto for_heads = [&](const auto& visit) {
    cpu.pool.run(s.num_heads, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t h = begin; h < end; ++h) {
        const MlaHead head{cpu.kernels, a.weights, s, h, scratch + thread * scratch_floats};
        for_row_runs(parts, [&](int64_t t0, int64_t tokens) { visit(head, t0, tokens); });
      }
    });
  };
  for_heads([&](const MlaHead& head, int64_t t0, int64_t tokens) {
    absorb_queries(head, t0, tokens, q_THK, q_absorbed_THC);
  });
  const FlashGroup all_heads{.first_head = 0, .heads = s.num_heads, .key_first = 0, .value_first = 0};
  flash_attention(cpu,
                  {.segments = parts,
                   .groups = {&all_heads, 1},
                   .num_heads = s.num_heads,
                   .key_cols = s.cache_row(),
                   .value_cols = s.kv_lora_rank,
                   .scale = s.softmax_scale,
                   .q = q_absorbed_THC,
                   .out = z_THC});
  for_heads(
      [&](const MlaHead& head, int64_t t0, int64_t tokens) { project_outputs(head, t0, tokens, z_THC, out_THV); });
}

}  // namespace

int64_t mla_scratch_floats(const MlaShape& s, int64_t tokens, int threads) {
  const auto padded = Workspace::padded;
  const int64_t common = padded(tokens * s.num_heads * s.qk_head_dim()) + padded(tokens * s.q_lora_rank) +
                         padded(tokens * s.cache_row()) + padded(tokens * s.num_heads * s.v_head_dim);
  const int64_t absorbed = padded(tokens * s.num_heads * s.cache_row()) +
                           padded(tokens * s.num_heads * s.kv_lora_rank) + padded(threads * head_scratch_floats(s)) +
                           flash_scratch_floats(s.cache_row(), s.kv_lora_rank, threads);
  const int64_t quantised = std::max({quantised_floats(tokens, s.hidden_size),
                                      quantised_floats(tokens, s.q_lora_rank),
                                      quantised_floats(tokens, s.num_heads * s.v_head_dim)});
  return common + std::max({absorbed, mla_expanded_scratch_floats(s, tokens, threads), quantised});
}

void mla_store(const CpuContext& cpu, const MlaArgs& a) {
  const Workspace::Scope scope(cpu.workspace);
  float* kv_a_T = cpu.workspace.take(a.tokens * a.shape.cache_row());
  linear(cpu, a.weights.kv_a_proj_with_mqa, a.weights.kv_a_proj_bias, a.x, a.tokens, kv_a_T);
  rotate_and_store(cpu, a, nullptr, kv_a_T);
}

void mla_attention(const CpuContext& cpu, const MlaArgs& a) {
  const MlaShape& s = a.shape;
  const Workspace::Scope scope(cpu.workspace);
  float* q_THK = cpu.workspace.take(a.tokens * s.num_heads * s.qk_head_dim());
  float* q_latent_TQ = cpu.workspace.take(a.tokens * s.q_lora_rank);
  float* kv_a_T = cpu.workspace.take(a.tokens * s.cache_row());
  float* out_THV = cpu.workspace.take(a.tokens * s.num_heads * s.v_head_dim);
  project_down(cpu, a, q_THK, q_latent_TQ, kv_a_T);
  rotate_and_store(cpu, a, q_THK, kv_a_T);
  // Parts are handled in groups of a fixed size.
  std::array<AttentionSegment, kExpandedSegments> expanded{};
  std::array<AttentionSegment, kExpandedSegments> absorbed{};
  for (std::span<const AttentionSegment> rest = a.segments; !rest.empty();) {
    const size_t count = std::min(rest.size(), expanded.size());
    size_t expanded_count = 0;
    size_t absorbed_count = 0;
    for (const AttentionSegment& segment : rest.first(count)) {
      const AttentionSegment first = part_of(segment, true);
      if (first.tokens > 0) expanded[expanded_count++] = first;
      const AttentionSegment second = part_of(segment, false);
      if (second.tokens > 0) absorbed[absorbed_count++] = second;
    }
    if (expanded_count > 0) mla_expanded(cpu, a, std::span(expanded).first(expanded_count), q_THK, out_THV);
    if (absorbed_count > 0) absorbed_form(cpu, a, std::span(absorbed).first(absorbed_count), q_THK, out_THV);
    rest = rest.subspan(count);
  }
  linear(cpu, a.weights.o_proj, a.weights.o_proj_bias, out_THV, a.tokens, a.out);  // Eq. 19
}

}  // namespace lathe
