#include "lathe/convert/rows.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "lathe/base/check.h"
#include "lathe/base/file.h"
#include "lathe/base/scalar.h"
#include "lathe/base/str.h"
#include "lathe/formats/quant/quantise.h"
#include "lathe/tensor/matrix.h"

namespace lathe::convert {

namespace {

const std::array<float, 256>& fp8_values() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> out{};
    for (size_t i = 0; i < out.size(); ++i) out[i] = e4m3_to_float(static_cast<uint8_t>(i));
    return out;
  }();
  return table;
}

class StackedRows final : public Rows {
 public:
  StackedRows(std::vector<Part> parts, int64_t cols) : parts_(std::move(parts)), cols_(cols) {
    starts_.reserve(parts_.size() + 1);
    for (const Part& part : parts_) {
      starts_.push_back(rows_);
      rows_ += part.count;
    }
  }

  int64_t rows() const override { return rows_; }

  int64_t cols() const override { return cols_; }

  void read(int64_t begin, int64_t end, float* out) const override {
    for (int64_t row = begin; row < end; ++row, out += cols_) {
      const Part& part = part_of(row);
      const std::byte* data = row_of(row);
      if (part.tensor->dtype == DType::kF8E4M3) {
        read_fp8(part, row - start_of(row) + part.first, data, out);
      } else {
        decode_row(part.tensor->dtype, data, {out, static_cast<size_t>(cols_)});
      }
    }
  }

  std::optional<DType> stored() const override {
    const DType first = parts_.front().tensor->dtype;
    for (const Part& part : parts_) {
      if (part.tensor->dtype != first || first == DType::kF8E4M3) return std::nullopt;
    }
    return first;
  }

  const std::byte* raw_row(int64_t row) const override { return row_of(row); }

  bool quantised() const override {
    return std::any_of(parts_.begin(), parts_.end(), [](const Part& p) { return is_block_format(p.tensor->dtype); });
  }

  DType first_dtype() const override { return parts_.front().tensor->dtype; }

  uint64_t source_bytes() const override {
    uint64_t total = 0;
    for (const Part& part : parts_) {
      total += static_cast<uint64_t>(part.count * row_bytes(part.tensor->dtype, cols_));
    }
    return total;
  }

  void release() const override {
    for (const Part& part : parts_) {
      const int64_t bytes = row_bytes(part.tensor->dtype, cols_);
      release_mapped(
          part.tensor->bytes.subspan(static_cast<size_t>(part.first * bytes), static_cast<size_t>(part.count * bytes)));
    }
  }

 private:
  size_t index_of(int64_t row) const {
    const auto after = std::upper_bound(starts_.begin(), starts_.end(), row);
    return static_cast<size_t>(after - starts_.begin()) - 1;
  }

  const Part& part_of(int64_t row) const { return parts_[index_of(row)]; }

  int64_t start_of(int64_t row) const { return starts_[index_of(row)]; }

  const std::byte* row_of(int64_t row) const {
    const size_t i = index_of(row);
    const Part& part = parts_[i];
    return part.tensor->bytes.data() + (row - starts_[i] + part.first) * row_bytes(part.tensor->dtype, cols_);
  }

  void read_fp8(const Part& part, int64_t row, const std::byte* data, float* out) const {
    const std::array<float, 256>& values = fp8_values();
    const int64_t blocks = (cols_ + kFp8Block - 1) / kFp8Block;
    const float* scales = part.scales == nullptr ? nullptr : part.scales->data() + row / kFp8Block * blocks;
    for (int64_t c = 0; c < cols_; ++c) {
      const float scale = scales == nullptr ? 1.0F : scales[c / kFp8Block];
      out[c] = values[static_cast<size_t>(data[c])] * scale;
    }
  }

  std::vector<Part> parts_;
  std::vector<int64_t> starts_;
  int64_t cols_ = 0;
  int64_t rows_ = 0;
};

class ReorderedRows final : public Rows {
 public:
  ReorderedRows(RowsPtr base, std::vector<int64_t> order) : base_(std::move(base)), order_(std::move(order)) {}

  int64_t rows() const override { return static_cast<int64_t>(order_.size()); }

  int64_t cols() const override { return base_->cols(); }

  void read(int64_t begin, int64_t end, float* out) const override {
    for (int64_t r = begin; r < end; ++r, out += cols()) {
      const int64_t from = order_[static_cast<size_t>(r)];
      base_->read(from, from + 1, out);
    }
  }

  std::optional<DType> stored() const override { return base_->stored(); }

  const std::byte* raw_row(int64_t row) const override { return base_->raw_row(order_[static_cast<size_t>(row)]); }

  bool quantised() const override { return base_->quantised(); }

  DType first_dtype() const override { return base_->first_dtype(); }

  uint64_t source_bytes() const override {
    return base_->source_bytes() / static_cast<uint64_t>(std::max<int64_t>(base_->rows(), 1)) * order_.size();
  }

  void release() const override { base_->release(); }

 private:
  RowsPtr base_;
  std::vector<int64_t> order_;
};

class TransposedHeads final : public Rows {
 public:
  TransposedHeads(RowsPtr base, const HeadSlice& slice) : base_(std::move(base)), slice_(slice) {}

  int64_t rows() const override { return slice_.heads * base_->cols(); }

  int64_t cols() const override { return slice_.count; }

  int64_t granule() const override { return base_->cols(); }

  void read(int64_t begin, int64_t end, float* out) const override {
    const int64_t width = base_->cols();
    std::vector<float> row(static_cast<size_t>(width));
    for (int64_t h = begin / width; h * width < end; ++h) {
      const int64_t from = std::max(begin, h * width);
      const int64_t to = std::min(end, (h + 1) * width);
      for (int64_t n = 0; n < slice_.count; ++n) {
        const int64_t source = h * slice_.stride + slice_.offset + n;
        base_->read(source, source + 1, row.data());
        for (int64_t r = from; r < to; ++r) {
          out[(r - begin) * slice_.count + n] = row[static_cast<size_t>(r - h * width)];
        }
      }
    }
  }

  std::optional<DType> stored() const override { return base_->stored(); }

  const std::byte* raw_row(int64_t) const override { return nullptr; }

  bool quantised() const override { return base_->quantised(); }

  DType first_dtype() const override { return base_->first_dtype(); }

  uint64_t source_bytes() const override {
    return base_->source_bytes() / static_cast<uint64_t>(slice_.stride) * static_cast<uint64_t>(slice_.count);
  }

  void release() const override { base_->release(); }

 private:
  RowsPtr base_;
  HeadSlice slice_;
};

class InterleavedHeads final : public Rows {
 public:
  InterleavedHeads(RowsPtr a, int64_t a_rows, RowsPtr b, int64_t b_rows, int64_t heads)
      : a_(std::move(a)), b_(std::move(b)), a_rows_(a_rows), b_rows_(b_rows), heads_(heads) {}

  int64_t rows() const override { return heads_ * (a_rows_ + b_rows_); }

  int64_t cols() const override { return a_->cols(); }

  int64_t granule() const override { return a_rows_ + b_rows_; }

  void read(int64_t begin, int64_t end, float* out) const override {
    const int64_t both = a_rows_ + b_rows_;
    for (int64_t r = begin; r < end;) {
      const int64_t head = r / both;
      const int64_t at = r % both;
      const bool first = at < a_rows_;
      const int64_t until = std::min(end, head * both + (first ? a_rows_ : both));
      const int64_t from = first ? head * a_rows_ + at : head * b_rows_ + at - a_rows_;
      (first ? a_ : b_)->read(from, from + until - r, out);
      out += (until - r) * cols();
      r = until;
    }
  }

  std::optional<DType> stored() const override { return a_->stored() == b_->stored() ? a_->stored() : std::nullopt; }

  const std::byte* raw_row(int64_t) const override { return nullptr; }

  bool quantised() const override { return a_->quantised() || b_->quantised(); }

  DType first_dtype() const override { return a_->first_dtype(); }

  uint64_t source_bytes() const override { return a_->source_bytes() + b_->source_bytes(); }

  void release() const override {
    a_->release();
    b_->release();
  }

 private:
  RowsPtr a_;
  RowsPtr b_;
  int64_t a_rows_;
  int64_t b_rows_;
  int64_t heads_;
};

bool is_readable(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF8E4M3 ||
         is_block_format(dtype);
}

}  // namespace

int64_t columns_of(const StoredTensor& tensor) {
  return tensor.shape.empty() ? 1 : tensor.shape.back();
}

Result<RowsPtr> stacked_rows(std::vector<Part> parts) {
  LATHE_CHECK(!parts.empty());
  const int64_t cols = columns_of(*parts.front().tensor);
  for (const Part& part : parts) {
    const StoredTensor& tensor = *part.tensor;
    if (!is_readable(tensor.dtype)) {
      return Error{
          Errc::kUnsupported,
          str(tensor.name, ": expected F32, F16, BF16, F8_E4M3 or a block format, found ", dtype_name(tensor.dtype))};
    }
    if (columns_of(tensor) != cols || cols < 1 || cols % block_elements(tensor.dtype) != 0) {
      return Error{
          Errc::kInvalidData,
          str(tensor.name, ": expected rows of ", cols, " elements in whole blocks, found ", columns_of(tensor))};
    }
    const int64_t rows = tensor.elements() / cols;
    LATHE_CHECK(part.first >= 0 && part.count >= 0 && part.first + part.count <= rows, tensor.name);
  }
  return RowsPtr(std::make_shared<StackedRows>(std::move(parts), cols));
}

RowsPtr reordered_rows(RowsPtr base, std::vector<int64_t> order) {
  return std::make_shared<ReorderedRows>(std::move(base), std::move(order));
}

RowsPtr transposed_heads(RowsPtr base, const HeadSlice& slice) {
  LATHE_CHECK(base->rows() == slice.heads * slice.stride && slice.offset + slice.count <= slice.stride);
  return std::make_shared<TransposedHeads>(std::move(base), slice);
}

RowsPtr interleaved_heads(RowsPtr a, int64_t a_rows, RowsPtr b, int64_t b_rows, int64_t heads) {
  LATHE_CHECK(a->cols() == b->cols() && a->rows() == heads * a_rows && b->rows() == heads * b_rows);
  return std::make_shared<InterleavedHeads>(std::move(a), a_rows, std::move(b), b_rows, heads);
}

}  // namespace lathe::convert
