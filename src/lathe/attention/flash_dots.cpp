// Shape letters: R rows of a task, S positions of a tile, K and V key and value columns.
#include <algorithm>
#include <cstring>
#include <limits>

#include "lathe/attention/flash_task.h"

namespace lathe {

namespace {

// Columns [first, first + cols) of a tile, as they are stored or, from a quantised cache, as fp32 in `memory`.
WeightMatrix tile_columns(const KernelTable& kernels,
                          const CacheView& cache,
                          int64_t start,
                          int64_t rows,
                          int64_t first,
                          int64_t cols,
                          float* memory) {
  if (!is_quantised(cache.format)) return cache.columns(start, rows, first, cols);
  for (int64_t i = 0; i < rows; ++i) cache.load(kernels, start + i, first, cols, memory + i * cols);
  return {.dtype = DType::kF32,
          .rows = rows,
          .cols = cols,
          .data = reinterpret_cast<const std::byte*>(memory),
          .stride = 0,
          .scales = nullptr};
}

}  // namespace

int64_t dots_scratch_floats(int64_t key_cols, int64_t value_cols) {
  return kDotRows * (key_cols + kPageTokens) + kPageTokens * std::max(key_cols, value_cols);
}

void flash_by_dots(
    const KernelTable& kernels, const FlashProblem& p, const FlashTask& task, float* scratch, const FlashResults& out) {
  const AttentionSegment& segment = *task.segment;
  float* out_RV = out.out_PV + task.partial * p.value_cols;
  SoftmaxState* state_R = out.state_P + task.partial;
  const int64_t rows = task.rows();
  float* q_RK = scratch;
  float* scores_RS = scratch + kDotRows * p.key_cols;
  float* tile = scores_RS + kDotRows * kPageTokens;
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(q_RK + r * p.key_cols,
                p.q + task.pair(p, task.row_begin + r) * p.key_cols,
                static_cast<size_t>(p.key_cols) * sizeof(float));
  }
  std::fill_n(out_RV, rows * p.value_cols, 0.0F);
  std::fill_n(state_R, rows, SoftmaxState{-std::numeric_limits<float>::infinity(), 0.0F});
  const int64_t keys_end = task.keys_end();
  for (int64_t page = split_begin(task.split); page < keys_end; page += kPageTokens) {
    const int64_t start = std::max(page, segment.first_key);
    const int64_t keys = std::min(page + kPageTokens, keys_end) - start;
    const int64_t row0 = task.first_row_at(start) - task.row_begin;  // earlier rows see nothing of this tile
    kernels.gemm({.w = tile_columns(kernels, segment.cache, start, keys, task.group->key_first, p.key_cols, tile),
                  .row_begin = 0,
                  .row_end = keys,
                  .x = q_RK + row0 * p.key_cols,
                  .x_stride = p.key_cols,
                  .tokens = rows - row0,
                  .y = scores_RS + row0 * kPageTokens,
                  .y_stride = kPageTokens,
                  .accumulate = false});
    for (int64_t r = row0; r < rows; ++r) {
      const int64_t visible = std::min(keys, task.position(task.row_begin + r) + 1 - start);
      const float factor = kernels.softmax_step(scores_RS + r * kPageTokens, visible, keys, p.scale, state_R[r]);
      kernels.scale(out_RV + r * p.value_cols, factor, p.value_cols);
    }
    kernels.gemm_transposed(
        {.w = tile_columns(kernels, segment.cache, start, keys, task.group->value_first, p.value_cols, tile),
         .row_begin = 0,
         .row_end = keys,
         .x = scores_RS + row0 * kPageTokens,
         .x_stride = kPageTokens,
         .tokens = rows - row0,
         .y = out_RV + row0 * p.value_cols,
         .y_stride = p.value_cols,
         .accumulate = true});
  }
}

}  // namespace lathe
