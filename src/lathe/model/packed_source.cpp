#include "lathe/model/packed_source.h"

#include "lathe/base/file.h"
#include "lathe/kernels/kernel_table.h"

namespace lathe {

Result<SourceMatrix> SourceMatrix::open(const Checkpoint& checkpoint, const std::string& name) {
  const StoredTensor* tensor = checkpoint.find(name);
  if (tensor == nullptr || tensor->shape.size() != 2) {
    return Error{Errc::kInvalidData, str(checkpoint.folder(), ": ", name, ": expected a matrix, found none")};
  }
  const bool known = is_block_format(tensor->dtype) || tensor->dtype == DType::kF32 || tensor->dtype == DType::kBF16 ||
                     tensor->dtype == DType::kF16 || tensor->dtype == DType::kF8E4M3;
  if (!known) {
    return Error{Errc::kInvalidData,
                 str(checkpoint.file_of(*tensor),
                     ": ",
                     name,
                     ": expected dtype F32, F16, BF16, F8_E4M3 or a block format, found ",
                     dtype_name(tensor->dtype))};
  }
  SourceMatrix out;
  out.matrix_ = {
      .dtype = tensor->dtype, .rows = tensor->shape[0], .cols = tensor->shape[1], .data = tensor->bytes.data()};
  if (tensor->dtype != DType::kF8E4M3) return out;
  const StoredTensor* scales = checkpoint.find(name + "_scale_inv");
  if (scales == nullptr) return out;  // taken with scale 1, which binding warns of
  const std::vector<int64_t> shape{(out.matrix_.rows + kFp8Block - 1) / kFp8Block, out.matrix_.scale_cols()};
  const bool floats = scales->dtype == DType::kF32 || scales->dtype == DType::kBF16 || scales->dtype == DType::kF16;
  if (scales->shape != shape || !floats) {
    return Error{Errc::kInvalidData,
                 str(checkpoint.file_of(*scales),
                     ": ",
                     scales->name,
                     ": expected F32, F16 or BF16 ",
                     shape,
                     ", found ",
                     dtype_name(scales->dtype),
                     " ",
                     scales->shape)};
  }
  out.scales_.resize(static_cast<size_t>(scales->elements()));
  kernels().to_float(scales->dtype, scales->bytes.data(), out.scales_.data(), scales->elements());
  return out;
}

void SourceMatrix::read_row(int64_t r, std::span<float> out) const {
  kernels().to_float(matrix_.dtype, stored_row(r), out.data(), matrix_.cols);
  if (scales_.empty()) return;
  const float* scale = scales_.data() + r / kFp8Block * matrix_.scale_cols();
  for (int64_t i = 0; i < matrix_.cols; ++i) out[static_cast<size_t>(i)] *= scale[i / kFp8Block];
}

void SourceMatrix::release() const {
  release_mapped({matrix_.data, static_cast<size_t>(matrix_.rows * matrix_.row_stride())});
}

}  // namespace lathe
