// Shape letters as in mla.cpp.
#include "lathe/attention/mla_expanded.h"

#include <algorithm>
#include <limits>

namespace lathe {

namespace {

constexpr int64_t kQueryBlock = 256;  // queries that share one expansion of a tile

struct Scratch {
  float* latents_SC;  // [64, C] in fp32
  float* kv_SK;       // [64, N + V]
  float* scores_TS;   // [queries, 64]
  float* out_TV;      // [queries, V]
  SoftmaxState* state_T;
};

Scratch take_scratch(Workspace& workspace, const MlaShape& s) {
  return {workspace.take(kPageTokens * s.kv_lora_rank),
          workspace.take(kPageTokens * (s.qk_nope_head_dim + s.v_head_dim)),
          workspace.take(kQueryBlock * kPageTokens),
          workspace.take(kQueryBlock * s.v_head_dim),
          workspace.take_as<SoftmaxState>(kQueryBlock)};
}

// Rebuilds [k^C ; v] of one head for `keys` positions from `start`: rows of W^UK and W^UV are neighbours (trap T8), so
// this is one product.
void expand_tile(const KernelTable& kernels,
                 const MlaArgs& a,
                 const CacheView& cache,
                 int64_t h,
                 int64_t start,
                 int64_t keys,
                 const Scratch& scratch) {
  const MlaShape& s = a.shape;
  const int64_t head_rows = s.qk_nope_head_dim + s.v_head_dim;
  for (int64_t i = 0; i < keys; ++i) {
    kernels.to_float(cache.dtype, cache.row(start + i), scratch.latents_SC + i * s.kv_lora_rank, s.kv_lora_rank);
  }
  kernels.gemm({.w = a.weights.kv_b_proj,
                .row_begin = h * head_rows,
                .row_end = (h + 1) * head_rows,
                .x = scratch.latents_SC,
                .x_stride = s.kv_lora_rank,
                .tokens = keys,
                .y = scratch.kv_SK,
                .y_stride = head_rows,
                .accumulate = false});
}

WeightMatrix fp32_rows(const float* data, int64_t rows, int64_t cols, int64_t stride) {
  return {.dtype = DType::kF32,
          .rows = rows,
          .cols = cols,
          .data = reinterpret_cast<const std::byte*>(data),
          .stride = stride * static_cast<int64_t>(sizeof(float)),
          .scales = nullptr};
}

// One head of queries [begin, end) of the segment against every position they see. Eq. 16-17.
void run_head(const CpuContext& cpu,
              const MlaArgs& a,
              const AttentionSegment& segment,
              int64_t h,
              int64_t begin,
              int64_t end,
              const float* q_THK,
              float* out_THV,
              const Scratch& scratch) {
  const MlaShape& s = a.shape;
  const KernelTable& kernels = cpu.kernels;
  const int64_t queries = end - begin;
  const int64_t head_rows = s.qk_nope_head_dim + s.v_head_dim;
  const int64_t q_stride = s.num_heads * s.qk_head_dim();
  const float* q = q_THK + ((segment.first_row + begin) * s.num_heads + h) * s.qk_head_dim();
  std::fill_n(scratch.out_TV, queries * s.v_head_dim, 0.0F);
  std::fill_n(scratch.state_T, queries, SoftmaxState{-std::numeric_limits<float>::infinity(), 0.0F});

  const int64_t first_position = segment.position + begin;
  const int64_t keys_end = first_position + queries;
  for (int64_t start = 0; start < keys_end; start += kPageTokens) {
    const int64_t keys = std::min(kPageTokens, keys_end - start);
    const int64_t t0 = std::max(int64_t{0}, start - first_position);  // causal tiles skipped
    expand_tile(kernels, a, segment.cache, h, start, keys, scratch);
    GemmArgs scores{.w = fp32_rows(scratch.kv_SK, keys, s.qk_nope_head_dim, head_rows),
                    .row_begin = 0,
                    .row_end = keys,
                    .x = q + t0 * q_stride,
                    .x_stride = q_stride,
                    .tokens = queries - t0,
                    .y = scratch.scores_TS + t0 * kPageTokens,
                    .y_stride = kPageTokens,
                    .accumulate = false};
    kernels.gemm(scores);  // q^C . k^C
    scores.w = segment.cache.columns(start, keys, s.kv_lora_rank, s.qk_rope_head_dim);
    scores.x += s.qk_nope_head_dim;
    scores.accumulate = true;
    kernels.gemm(scores);  // + q^R . k^R
    for (int64_t t = t0; t < queries; ++t) {
      const int64_t visible = std::min(keys, first_position + t + 1 - start);
      const float factor =
          kernels.softmax_step(scratch.scores_TS + t * kPageTokens, visible, keys, s.softmax_scale, scratch.state_T[t]);
      kernels.scale(scratch.out_TV + t * s.v_head_dim, factor, s.v_head_dim);
    }
    kernels.gemm_transposed({.w = fp32_rows(scratch.kv_SK + s.qk_nope_head_dim, keys, s.v_head_dim, head_rows),
                             .row_begin = 0,
                             .row_end = keys,
                             .x = scratch.scores_TS + t0 * kPageTokens,
                             .x_stride = kPageTokens,
                             .tokens = queries - t0,
                             .y = scratch.out_TV + t0 * s.v_head_dim,
                             .y_stride = s.v_head_dim,
                             .accumulate = true});
  }
  for (int64_t t = 0; t < queries; ++t) {
    const float* from = scratch.out_TV + t * s.v_head_dim;
    float* to = out_THV + ((segment.first_row + begin + t) * s.num_heads + h) * s.v_head_dim;
    std::copy_n(from, s.v_head_dim, to);
    kernels.scale(to, 1.0F / scratch.state_T[t].sum, s.v_head_dim);
  }
}

}  // namespace

int64_t mla_expanded_scratch_floats(const MlaShape& s, int threads) {
  const auto padded = Workspace::padded;
  return threads * (padded(kPageTokens * s.kv_lora_rank) + padded(kPageTokens * (s.qk_nope_head_dim + s.v_head_dim)) +
                    padded(kQueryBlock * kPageTokens) + padded(kQueryBlock * s.v_head_dim) + padded(kQueryBlock * 2)) +
         padded(threads * static_cast<int64_t>(sizeof(Scratch)) / 4);
}

void mla_expanded(
    const CpuContext& cpu, const MlaArgs& a, const AttentionSegment& segment, const float* q_THK, float* out_THV) {
  const Workspace::Scope scope(cpu.workspace);
  auto* scratch = cpu.workspace.take_as<Scratch>(cpu.pool.threads());
  for (int i = 0; i < cpu.pool.threads(); ++i) scratch[i] = take_scratch(cpu.workspace, a.shape);
  const int64_t blocks = (segment.tokens + kQueryBlock - 1) / kQueryBlock;
  cpu.pool.run(a.shape.num_heads * blocks, 1, [&](int64_t first, int64_t last, int thread) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = (i % blocks) * kQueryBlock;
      const int64_t end = std::min(begin + kQueryBlock, segment.tokens);
      run_head(cpu, a, segment, i / blocks, begin, end, q_THK, out_THV, scratch[thread]);
    }
  });
}

}  // namespace lathe
