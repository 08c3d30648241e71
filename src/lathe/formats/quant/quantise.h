// Encoders: fp32 rows to the block formats of tensor/blocks.h. Each looks for scales (and minima) that make the squared
// error small; the result depends on the row alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lathe/base/thread_pool.h"
#include "lathe/tensor/dtype.h"

namespace lathe {

// Encodes one row, whose length must be whole blocks, into row_bytes(format, values.size()) bytes at `out` (which needs
// no alignment). Formats: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K. Values must be finite: check before with
// all_finite(). Scales beyond the range of fp16 are clamped to its largest number. Thread safe.
void quantise_row(DType format, std::span<const float> values, std::byte* out);

// Whether a row can be quantised.
bool all_finite(std::span<const float> values);

// fp32 to any type that weights are stored in: a block format, F32, F16 (beyond its range: infinity) or BF16, rounded
// to nearest even. `out` takes row_bytes(format, values.size()) bytes.
void encode_row(DType format, std::span<const float> values, std::byte* out);

// The inverse: n values of a row stored as F32, F16, BF16 or in a block format.
void decode_row(DType format, const std::byte* row, std::span<float> out);

// Encodes `rows` contiguous rows of `cols` values, spread over the pool's threads (null: this one).
void quantise_rows(DType format, const float* values, int64_t rows, int64_t cols, std::byte* out, ThreadPool* pool);

}  // namespace lathe
