// Rows of a tensor to come, read as fp32 from wherever a checkpoint has them: one matrix, many experts in a row, heads
// taken apart, transposed or put together. Reading allocates nothing lasting, so tensors may be larger than memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/tensor/dtype.h"

namespace lathe::convert {

// A matrix of rows() x cols() values. Reading is thread safe. Borrows from the checkpoint, which must live as long.
class Rows {
 public:
  virtual ~Rows() = default;

  virtual int64_t rows() const = 0;
  // Values of a row.
  virtual int64_t cols() const = 0;

  // Rows that are cheap to read together; ranges should be multiples of it.
  virtual int64_t granule() const { return 1; }

  // Rows [begin, end) to out[end - begin][cols].
  virtual void read(int64_t begin, int64_t end, float* out) const = 0;

  // The type that the values are stored in; nothing when there are several or values have scales of their own.
  virtual std::optional<DType> stored() const = 0;
  // The row's bytes as stored() says, or null when rows do not lie in one piece.
  virtual const std::byte* raw_row(int64_t row) const = 0;

  // Whether any of the values lie in a block format.
  virtual bool quantised() const = 0;
  // "F8_E4M3", "BF16", ...: for reports; of the first part where there are several.
  virtual DType first_dtype() const = 0;
  // Bytes of the source.
  virtual uint64_t source_bytes() const = 0;
  // Gives the mapped pages of all rows back to the system; they are read again when needed.
  virtual void release() const = 0;
};

using RowsPtr = std::shared_ptr<const Rows>;

// Rows [first, first + count) of a stored tensor, whose leading dimensions count as rows; a vector is one row. F32,
// F16, BF16, a block format, or F8_E4M3 with its scales. Errors name the tensor: other types, blocks that do not fit.
struct Part {
  const StoredTensor* tensor = nullptr;
  std::shared_ptr<const std::vector<float>> scales;  // of F8_E4M3: [ceil(rows/128), ceil(cols/128)], else null
  int64_t first = 0;
  int64_t count = 0;
};

// The parts below each other, all of the same number of columns.
Result<RowsPtr> stacked_rows(std::vector<Part> parts);

// base in another order: row r is row order[r] of base.
RowsPtr reordered_rows(RowsPtr base, std::vector<int64_t> order);

// base has `heads` groups of `stride` rows; of each group the rows [offset, offset + count) are transposed:
// out[h * base.cols + c][n] = base[h * stride + offset + n][c].
struct HeadSlice {
  int64_t heads = 0;
  int64_t stride = 0;
  int64_t offset = 0;
  int64_t count = 0;
};

// base must have heads * stride rows; see HeadSlice.
RowsPtr transposed_heads(RowsPtr base, const HeadSlice& slice);

// For each head, `a_rows` rows of a and then `b_rows` rows of b.
RowsPtr interleaved_heads(RowsPtr a, int64_t a_rows, RowsPtr b, int64_t b_rows, int64_t heads);

// Number of columns that a stored tensor has as rows: its last extent; 1 for a scalar.
int64_t columns_of(const StoredTensor& tensor);

}  // namespace lathe::convert
