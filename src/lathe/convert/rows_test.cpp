#include "lathe/convert/rows.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

namespace lathe::convert {
namespace {

// A stored F32 matrix with the values start, start + 1, ...
struct Matrix {
  Matrix(std::vector<int64_t> shape, float start) {
    tensor.name = std::string(1, 'm');
    tensor.shape = std::move(shape);
    values.resize(static_cast<size_t>(tensor.elements()));
    std::iota(values.begin(), values.end(), start);
    tensor.bytes = std::as_bytes(std::span(values));
  }

  RowsPtr rows() const {
    const int64_t count = tensor.elements() / columns_of(tensor);
    return stacked_rows({{.tensor = &tensor, .scales = nullptr, .first = 0, .count = count}}).value();
  }

  StoredTensor tensor;
  std::vector<float> values;
};

std::vector<float> read_all(const Rows& rows) {
  std::vector<float> out(static_cast<size_t>(rows.rows() * rows.cols()));
  rows.read(0, rows.rows(), out.data());
  return out;
}

// Any cut into ranges reads the same.
void expect_cuts_agree(const Rows& rows) {
  const std::vector<float> all = read_all(rows);
  for (int64_t step : {1, 2, 3, 5}) {
    std::vector<float> parts(all.size());
    for (int64_t r = 0; r < rows.rows(); r += step) {
      rows.read(r, std::min(rows.rows(), r + step), parts.data() + r * rows.cols());
    }
    EXPECT_EQ(parts, all) << step;
  }
}

TEST(Rows, PartsLieBelowEachOther) {
  const Matrix a({3, 4}, 0);
  const Matrix b({2, 2, 4}, 100);
  const RowsPtr rows = stacked_rows({{.tensor = &a.tensor, .scales = nullptr, .first = 1, .count = 2},
                                     {.tensor = &b.tensor, .scales = nullptr, .first = 0, .count = 4}})
                           .value();
  EXPECT_EQ(rows->rows(), 6);
  EXPECT_EQ(rows->cols(), 4);
  const std::vector<float> all = read_all(*rows);
  EXPECT_EQ(all[0], 4.0F);
  EXPECT_EQ(all[8], 100.0F);
  EXPECT_EQ(all.back(), 115.0F);
  EXPECT_EQ(rows->stored(), DType::kF32);
  float first = 0.0F;
  std::memcpy(&first, rows->raw_row(2), sizeof first);
  EXPECT_EQ(first, 100.0F);
  EXPECT_EQ(rows->source_bytes(), 6U * 4 * 4);
  expect_cuts_agree(*rows);
}

TEST(Rows, OrderIsFollowed) {
  const Matrix a({3, 2}, 0);
  const RowsPtr rows = reordered_rows(a.rows(), {2, 0, 2});
  EXPECT_EQ(read_all(*rows), (std::vector<float>{4, 5, 0, 1, 4, 5}));
  expect_cuts_agree(*rows);
}

TEST(Rows, HeadsAreTransposed) {
  const Matrix a({2 * 5, 3}, 0);  // two heads of five rows
  const RowsPtr rows = transposed_heads(a.rows(), {.heads = 2, .stride = 5, .offset = 1, .count = 2});
  ASSERT_EQ(rows->rows(), 6);
  ASSERT_EQ(rows->cols(), 2);
  const std::vector<float> all = read_all(*rows);
  for (int64_t h = 0; h < 2; ++h) {
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t n = 0; n < 2; ++n) {
        EXPECT_EQ(all[static_cast<size_t>((h * 3 + c) * 2 + n)], static_cast<float>((h * 5 + 1 + n) * 3 + c));
      }
    }
  }
  EXPECT_EQ(rows->raw_row(0), nullptr);
  expect_cuts_agree(*rows);
}

// What splitting takes apart, joining puts together: kv_b of two heads, three nope and two value rows, latent of 4.
TEST(Rows, JoiningInvertsSplitting) {
  const int64_t heads = 2;
  const int64_t nope = 3;
  const int64_t value = 2;
  const int64_t latent = 4;
  const Matrix both({heads * (nope + value), latent}, 1);
  const RowsPtr keys =
      transposed_heads(both.rows(), {.heads = heads, .stride = nope + value, .offset = 0, .count = nope});
  const RowsPtr values = reordered_rows(both.rows(), {3, 4, 8, 9});
  const RowsPtr back = transposed_heads(keys, {.heads = heads, .stride = latent, .offset = 0, .count = latent});
  const RowsPtr joined = interleaved_heads(back, nope, values, value, heads);
  EXPECT_EQ(read_all(*joined), both.values);
  expect_cuts_agree(*joined);
}

TEST(Rows, RefusesOtherTypesAndWidths) {
  Matrix a({2, 4}, 0);
  const Matrix b({2, 3}, 0);
  const Result<RowsPtr> uneven = stacked_rows({{.tensor = &a.tensor, .scales = nullptr, .first = 0, .count = 2},
                                               {.tensor = &b.tensor, .scales = nullptr, .first = 0, .count = 2}});
  ASSERT_FALSE(uneven);
  EXPECT_NE(uneven.error().message.find("rows of 4 elements"), std::string::npos) << uneven.error().message;
  a.tensor.dtype = DType::kI32;
  const Result<RowsPtr> integers = stacked_rows({{.tensor = &a.tensor, .scales = nullptr, .first = 0, .count = 2}});
  ASSERT_FALSE(integers);
  EXPECT_NE(integers.error().message.find("found I32"), std::string::npos) << integers.error().message;
}

}  // namespace
}  // namespace lathe::convert
