#include "lathe/tensor/tensor.h"

#include <gtest/gtest.h>

#include <set>
#include <type_traits>

#include "lathe/tensor/dtype.h"
#include "lathe/tensor/matrix.h"

namespace lathe {
namespace {

constexpr int kDTypes = static_cast<int>(DType::kBool) + 1;

TEST(DType, NamesAndSizesAreThoseOfSafetensors) {
  EXPECT_EQ(dtype_name(DType::kBF16), "BF16");
  EXPECT_EQ(dtype_name(DType::kF8E4M3), "F8_E4M3");
  EXPECT_EQ(dtype_name(DType::kBool), "BOOL");
  EXPECT_EQ(dtype_size(DType::kF64), 8);
  EXPECT_EQ(dtype_size(DType::kF32), 4);
  EXPECT_EQ(dtype_size(DType::kBF16), 2);
  EXPECT_EQ(dtype_size(DType::kF8E5M2), 1);
  EXPECT_EQ(dtype_size(DType::kBool), 1);
}

TEST(DType, EveryNameReadsBack) {
  std::set<std::string_view> names;
  for (int i = 0; i < kDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
    EXPECT_TRUE(names.insert(dtype_name(dtype)).second);
    EXPECT_EQ(is_floating(dtype), dtype_name(dtype).find('F') != std::string_view::npos);
  }
  for (const char* unknown : {"", "f32", "F32 ", "F4", "BFLOAT16"}) {
    EXPECT_EQ(dtype_from_name(unknown), std::nullopt) << unknown;
  }
}

TEST(TensorView, IndexesRowMajor) {
  std::array<int, 24> data{};
  for (int i = 0; i < 24; ++i) data[static_cast<size_t>(i)] = i;
  const TensorView<int, 3> view(data.data(), {2, 3, 4});
  EXPECT_EQ(view(0, 0, 0), 0);
  EXPECT_EQ(view(0, 0, 3), 3);
  EXPECT_EQ(view(0, 2, 1), 9);
  EXPECT_EQ(view(1, 2, 3), 23);
  EXPECT_EQ(view.size(), 24);
  EXPECT_EQ(view.extent(1), 3);
  EXPECT_EQ(view.stride(0), 12);
  EXPECT_EQ(view.stride(2), 1);
  view(1, 0, 0) = -1;
  EXPECT_EQ(data[12], -1);
}

TEST(TensorView, RowsAndSubViewsShareTheData) {
  std::array<int, 24> data{};
  for (int i = 0; i < 24; ++i) data[static_cast<size_t>(i)] = i;
  const TensorView<int, 3> view(data.data(), {2, 3, 4});
  const TensorView<int, 2> second = view[1];
  EXPECT_EQ(second(0, 0), 12);
  EXPECT_EQ(second.extent(0), 3);
  const std::span<int> row = second.row(2);
  ASSERT_EQ(row.size(), 4u);
  EXPECT_EQ(row[3], 23);
  row[3] = 99;
  EXPECT_EQ(data[23], 99);
  const TensorView<int, 1> last = second[2];
  EXPECT_EQ(last(0), 20);
}

TEST(TensorView, SlicesKeepStrides) {
  std::array<int, 24> data{};
  for (int i = 0; i < 24; ++i) data[static_cast<size_t>(i)] = i;
  const TensorView<int, 2> view(data.data(), {4, 6});
  const TensorView<int, 2> columns = view.slice(1, 2, 5);
  EXPECT_EQ(columns.extent(0), 4);
  EXPECT_EQ(columns.extent(1), 3);
  EXPECT_EQ(columns(0, 0), 2);
  EXPECT_EQ(columns(3, 2), 22);
  EXPECT_EQ(columns.row(1)[0], 8);
  const TensorView<int, 2> both = columns.slice(0, 1, 3);
  EXPECT_EQ(both.size(), 6);
  EXPECT_EQ(both(0, 0), 8);
  EXPECT_EQ(both(1, 2), 16);
  EXPECT_EQ(view.slice(0, 2, 2).size(), 0);
  EXPECT_EQ(view.slice(0, 4, 4).size(), 0);
  EXPECT_EQ(view.slice(0, 0, 4).size(), 24);
}

TEST(TensorView, ConvertsToConstAndNotBack) {
  static_assert(std::is_convertible_v<TensorView<float, 2>, TensorView<const float, 2>>);
  static_assert(!std::is_convertible_v<TensorView<const float, 2>, TensorView<float, 2>>);
  static_assert(!std::is_convertible_v<TensorView<float, 2>, TensorView<const float, 3>>);
  static_assert(std::is_trivially_copyable_v<TensorView<float, 4>>);
  std::array<float, 6> data{1, 2, 3, 4, 5, 6};
  const TensorView<float, 2> view(data.data(), {2, 3});
  const TensorView<const float, 2> constant = view.slice(1, 1, 3);
  EXPECT_EQ(constant(1, 0), 5.0f);
  EXPECT_EQ(constant.stride(0), 3);
}

TEST(TensorView, ADefaultViewIsEmpty) {
  const TensorView<float, 2> view;
  EXPECT_EQ(view.data(), nullptr);
  EXPECT_EQ(view.size(), 0);
}

TEST(Tensor, IsAlignedAndZeroFilled) {
  for (const int64_t size : {1, 3, 16, 1000}) {
    const Tensor<float> tensor({size});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data()) % kTensorAlignment, 0u);
    for (const float x : tensor.flat()) ASSERT_EQ(x, 0.0f);
  }
  const Tensor<uint8_t> bytes({5, 7});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % kTensorAlignment, 0u);
  EXPECT_EQ(bytes.size(), 35);
  EXPECT_EQ(bytes.flat().size(), 35u);
}

TEST(Tensor, AnAxisOfSizeZeroIsAnEmptyTensor) {
  Tensor<float> tensor({4, 0, 3});
  EXPECT_EQ(tensor.size(), 0);
  EXPECT_TRUE(tensor.flat().empty());
  EXPECT_EQ((tensor.view<3>().extent(0)), 4);
  EXPECT_EQ((tensor.view<3>().size()), 0);
}

TEST(Tensor, RankZeroIsOneNumberAndNoTensorIsNone) {
  Tensor<int> scalar{std::vector<int64_t>{}};
  EXPECT_EQ(scalar.size(), 1);
  scalar.flat()[0] = 5;
  EXPECT_EQ(scalar.data()[0], 5);
  const Tensor<int> none;
  EXPECT_EQ(none.size(), 0);
  EXPECT_TRUE(none.flat().empty());
}

TEST(Tensor, ViewsWriteThrough) {
  Tensor<int> tensor({2, 3});
  tensor.view<2>()(1, 2) = 7;
  EXPECT_EQ(tensor.flat()[5], 7);
  const Tensor<int>& constant = tensor;
  static_assert(std::is_same_v<decltype(constant.view<2>()), TensorView<const int, 2>>);
  EXPECT_EQ(constant.view<2>()(1, 2), 7);
}

TEST(Tensor, MovesKeepTheData) {
  Tensor<int> tensor({2});
  const int* data = tensor.data();
  const Tensor<int> moved = std::move(tensor);
  EXPECT_EQ(moved.data(), data);
  EXPECT_EQ(moved.shape(), (std::vector<int64_t>{2}));
}

TEST(TensorDeathTest, AViewOfAnotherRankIsABug) {
  Tensor<int> tensor({2, 3});
  EXPECT_DEATH((void)tensor.view<3>(), "rank 2, wanted 3");
}

#if defined(LATHE_DCHECKS)
TEST(TensorViewDeathTest, IndicesAreChecked) {
  std::array<int, 6> data{};
  const TensorView<int, 2> view(data.data(), {2, 3});
  EXPECT_DEATH((void)view(0, 3), "axis 1 index 3 extent 3");
  EXPECT_DEATH((void)view(-1, 0), "axis 0 index -1 extent 2");
  EXPECT_DEATH((void)view.slice(1, 2, 4), "end <= extents_");
  EXPECT_DEATH((void)view.row(2), "i < extents_");
}
#endif

TEST(WeightMatrix, StrideAndBlocksFollowTheShape) {
  WeightMatrix w{.dtype = DType::kBF16, .rows = 4, .cols = 129};
  EXPECT_TRUE(w.empty());
  EXPECT_EQ(w.row_stride(), 258);
  EXPECT_EQ(w.scale_cols(), 2);
  w.stride = 512;
  w.cols = 128;
  EXPECT_EQ(w.row_stride(), 512);
  EXPECT_EQ(w.scale_cols(), 1);
}

}  // namespace
}  // namespace lathe
