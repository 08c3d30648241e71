// WeightMatrix: a stored matrix as kernels see it, [rows, cols] = [out, in], applied as y = W x. It borrows the bytes
// (usually of a mapped checkpoint or of a file of packed panels); they are multiplied as stored, never expanded in
// memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lathe/tensor/dtype.h"

namespace lathe {

inline constexpr int64_t kFp8Block = 128;  // edge of the square blocks that share one scale

struct WeightMatrix {
  DType dtype = DType::kF32;  // kF32, kBF16, kF16, kF8E4M3 or a block format
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* data = nullptr;  // row-major; need not be aligned
  int64_t stride = 0;               // bytes from row to row; 0: rows are contiguous
  const float* scales = nullptr;    // kF8E4M3 only: [ceil(rows/128), ceil(cols/128)], multiplied (trap T15); else null
  bool packed = false;              // block format in panels of 16 rows (tensor/panels.h) instead of rows

  bool empty() const { return data == nullptr; }

  int64_t row_stride() const { return stride != 0 ? stride : row_bytes(dtype, cols); }

  int64_t scale_cols() const { return (cols + kFp8Block - 1) / kFp8Block; }
};

}  // namespace lathe
