// TensorView<T, Rank>: like a strided mdspan. No ownership, no allocation, cheap to copy. Row-major, last axis
// contiguous unless made by slice(). TensorView<T> converts to TensorView<const T>; inputs are always const.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <type_traits>

#include "lathe/base/check.h"

namespace lathe {

template <class T, int Rank>
class TensorView {
 public:
  using Extents = std::array<int64_t, Rank>;

  TensorView() = default;

  TensorView(T* data, Extents extents) : data_(data), extents_(extents) {
    int64_t stride = 1;
    for (int axis = Rank - 1; axis >= 0; --axis) {
      strides_[axis] = stride;
      stride *= extents_[axis];
    }
  }

  TensorView(T* data, Extents extents, Extents strides) : data_(data), extents_(extents), strides_(strides) {}

  // NOLINTNEXTLINE(google-explicit-constructor)
  operator TensorView<const T, Rank>() const
    requires(!std::is_const_v<T>)
  {
    return {data_, extents_, strides_};
  }

  template <class... I>
    requires(sizeof...(I) == Rank)
  T& operator()(I... index) const {
    const Extents at{static_cast<int64_t>(index)...};
    int64_t offset = 0;
    for (int axis = 0; axis < Rank; ++axis) {
      LATHE_DCHECK(
          at[axis] >= 0 && at[axis] < extents_[axis], "axis ", axis, " index ", at[axis], " extent ", extents_[axis]);
      offset += at[axis] * strides_[axis];
    }
    return data_[offset];
  }

  // Row i, contiguous.
  std::span<T> row(int64_t i) const
    requires(Rank == 2)
  {
    LATHE_DCHECK(i >= 0 && i < extents_[0] && strides_[1] == 1);
    return {data_ + i * strides_[0], static_cast<size_t>(extents_[1])};
  }

  // The sub-view at index i of the first axis.
  auto operator[](int64_t i) const
    requires(Rank >= 2)
  {
    LATHE_DCHECK(i >= 0 && i < extents_[0]);
    std::array<int64_t, Rank - 1> extents{};
    std::array<int64_t, Rank - 1> strides{};
    for (int axis = 1; axis < Rank; ++axis) {
      extents[axis - 1] = extents_[axis];
      strides[axis - 1] = strides_[axis];
    }
    return TensorView<T, Rank - 1>(data_ + i * strides_[0], extents, strides);
  }

  // The part [begin, end) of one axis.
  TensorView slice(int axis, int64_t begin, int64_t end) const {
    LATHE_DCHECK(axis >= 0 && axis < Rank && begin >= 0 && begin <= end && end <= extents_[axis]);
    TensorView out = *this;
    out.data_ += begin * strides_[axis];
    out.extents_[axis] = end - begin;
    return out;
  }

  T* data() const { return data_; }

  int64_t extent(int axis) const { return extents_[axis]; }

  int64_t stride(int axis) const { return strides_[axis]; }

  // Number of elements.
  int64_t size() const {
    int64_t n = 1;
    for (int64_t e : extents_) n *= e;
    return n;
  }

 private:
  T* data_ = nullptr;
  Extents extents_{};
  Extents strides_{};
};

}  // namespace lathe
