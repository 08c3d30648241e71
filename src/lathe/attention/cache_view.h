// CacheView: how attention sees the cached rows of one sequence in one layer. The runtime owns the pages; this borrows
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lathe/tensor/matrix.h"

namespace lathe {

inline constexpr int64_t kPageTokens = 64;  // positions per cache page

// MLA row: [c (kv_lora_rank, after its norm) | k^R (qk_rope_head_dim, after RoPE)]; kGqa row: [k of all kv heads | v of
// all kv heads], keys after RoPE. Position p lies in page p / 64 at row p % 64.
struct CacheView {
  DType dtype = DType::kF32;  // kF32, kBF16 or kF16
  int64_t row_elements = 0;
  std::span<std::byte* const> pages;  // of the sequence; each holds the rows of every layer
  int64_t layer_offset = 0;           // bytes from the start of a page to the rows of this layer

  // First byte of the row of `position`, which must lie in `pages`.
  std::byte* row(int64_t position) const {
    return pages[static_cast<size_t>(position / kPageTokens)] + layer_offset +
           (position % kPageTokens) * row_elements * dtype_size(dtype);
  }

  // Columns [first, first + cols) of the page that begins at position `start` (a multiple of 64), as a matrix of `rows`
  // rows.
  WeightMatrix columns(int64_t start, int64_t rows, int64_t first, int64_t cols) const {
    return {.dtype = dtype,
            .rows = rows,
            .cols = cols,
            .data = row(start) + first * dtype_size(dtype),
            .stride = row_elements * dtype_size(dtype),
            .scales = nullptr};
  }
};

// Consecutive tokens of one sequence inside a packed batch.
struct AttentionSegment {
  int64_t first_row = 0;  // of the batch
  int64_t tokens = 0;
  int64_t position = 0;        // of the first token; everything before it is in the cache already
  int64_t expanded_until = 0;  // MLA: positions below this use the expanded form, the others the absorbed form
  CacheView cache;
};

}  // namespace lathe
