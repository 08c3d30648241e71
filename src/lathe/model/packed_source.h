// SourceMatrix: a matrix of a checkpoint as packing reads it, row by row, whatever type it is stored in.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "lathe/formats/checkpoint.h"
#include "lathe/tensor/matrix.h"

namespace lathe {

class SourceMatrix {
 public:
  // The tensor of that name (with its FP8 scales), which must exist and have two axes. Errors: a dtype that weights do
  // not have, scales of another shape. Borrows from the checkpoint.
  static Result<SourceMatrix> open(const Checkpoint& checkpoint, const std::string& name);

  DType format() const { return matrix_.dtype; }

  int64_t cols() const { return matrix_.cols; }

  // The bytes of row r.
  const std::byte* stored_row(int64_t r) const { return matrix_.data + r * matrix_.row_stride(); }

  // The values of row r, out [cols]. Thread safe.
  void read_row(int64_t r, std::span<float> out) const;

  // Tells the system that the mapped bytes will not be read again soon, so that they do not count as memory in use.
  void release() const;

 private:
  WeightMatrix matrix_;
  std::vector<float> scales_;  // FP8: one per 128 x 128 block
};

}  // namespace lathe
