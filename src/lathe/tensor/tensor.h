// Tensor<T>: owns a row-major array of any rank, aligned for vector loads, zero-filled.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "lathe/tensor/tensor_view.h"

namespace lathe {

inline constexpr size_t kTensorAlignment = 64;

template <class T>
class Tensor {
 public:
  Tensor() = default;

  explicit Tensor(std::vector<int64_t> shape) : shape_(std::move(shape)) {
    size_ = 1;
    for (int64_t e : shape_) size_ *= e;
    const auto count = static_cast<size_t>(size_ > 0 ? size_ : 1);
    data_.reset(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{kTensorAlignment})));
    std::uninitialized_value_construct_n(data_.get(), count);
  }

  const std::vector<int64_t>& shape() const { return shape_; }

  int64_t size() const { return size_; }

  T* data() { return data_.get(); }

  const T* data() const { return data_.get(); }

  std::span<T> flat() { return {data_.get(), static_cast<size_t>(size_)}; }

  std::span<const T> flat() const { return {data_.get(), static_cast<size_t>(size_)}; }

  // Borrows; the tensor must outlive the view. Requires as many axes as the shape has.
  template <int Rank>
  TensorView<T, Rank> view() {
    return {data_.get(), extents<Rank>()};
  }

  template <int Rank>
  TensorView<const T, Rank> view() const {
    return {data_.get(), extents<Rank>()};
  }

 private:
  template <int Rank>
  std::array<int64_t, Rank> extents() const {
    LATHE_CHECK(shape_.size() == Rank, "rank ", shape_.size(), ", wanted ", Rank);
    std::array<int64_t, Rank> out{};
    for (int i = 0; i < Rank; ++i) out[static_cast<size_t>(i)] = shape_[static_cast<size_t>(i)];
    return out;
  }

  struct Free {
    void operator()(T* pointer) const { ::operator delete(pointer, std::align_val_t{kTensorAlignment}); }
  };

  std::vector<int64_t> shape_;
  int64_t size_ = 0;
  std::unique_ptr<T, Free> data_;
};

}  // namespace lathe
