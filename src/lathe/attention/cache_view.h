// CacheView: how attention sees the cached rows of one sequence in one layer. The runtime owns the pages; this borrows
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lathe/kernels/kernel_table.h"
#include "lathe/tensor/matrix.h"

namespace lathe {

inline constexpr int64_t kPageTokens = 64;  // positions per cache page

// MLA row: [c (kv_lora_rank, after its norm) | k^R (qk_rope_head_dim, after RoPE)]; kGqa row: [k of all kv heads | v of
// all kv heads], keys after RoPE. Position p lies in page p / 64 at row p % 64.
struct CacheView {
  CacheFormat format = CacheFormat::kF32;
  int64_t row_elements = 0;
  std::span<std::byte* const> pages;  // of the sequence; each holds the rows of every layer
  int64_t layer_offset = 0;           // bytes from the start of a page to the rows of this layer

  // First byte of the row of `position`, which must lie in `pages`.
  std::byte* row(int64_t position) const {
    return pages[static_cast<size_t>(position / kPageTokens)] + layer_offset + (position % kPageTokens) * row_bytes();
  }

  int64_t row_bytes() const { return cache_row_bytes(format, row_elements); }

  // Columns [first, first + cols) of `rows` rows from position `start` on, all in one page, as a matrix. Plain formats
  // only.
  WeightMatrix columns(int64_t start, int64_t rows, int64_t first, int64_t cols) const {
    const DType dtype = plain_dtype(format);
    return {.dtype = dtype,
            .rows = rows,
            .cols = cols,
            .data = row(start) + first * dtype_size(dtype),
            .stride = row_bytes(),
            .scales = nullptr};
  }

  // Stores x[row_elements] as the row of `position`.
  void store(const KernelTable& kernels, int64_t position, const float* x) const {
    if (format == CacheFormat::kQ8) {
      kernels.encode_q8(x, row_elements, row(position));
    } else if (format == CacheFormat::kQ6) {
      encode_cache_row(format, x, row_elements, row(position));
    } else {
      kernels.from_float(plain_dtype(format), x, row(position), row_elements);
    }
  }

  // Elements [first, first + n) of the row of `position` as fp32.
  void load(const KernelTable& kernels, int64_t position, int64_t first, int64_t n, float* out) const {
    kernels.cache_to_float(format, row(position), row_elements, first, n, out);
  }
};

// Consecutive tokens of one sequence inside a packed batch.
struct AttentionSegment {
  int64_t first_row = 0;  // of the batch
  int64_t tokens = 0;
  int64_t position = 0;        // of the first token; everything before it is in the cache already
  int64_t expanded_until = 0;  // MLA: positions below this use the expanded form, the others the absorbed form
  int64_t first_key = 0;       // positions below have no row: at most `position`, below 64; absorbed form only
  CacheView cache;
};

}  // namespace lathe
