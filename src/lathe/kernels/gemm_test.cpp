#include <algorithm>
#include <array>
#include <memory>

#include "lathe/base/str.h"
#include "support/kernels.h"

namespace lathe {
namespace {

using testing::FencedBytes;
using testing::GuardedFloats;
using testing::near_within;
using testing::random_floats;
using testing::same_values;

constexpr std::array kTypes = {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3};

struct Case {
  DType dtype = DType::kF32;
  int64_t rows = 1;
  int64_t cols = 1;
  int64_t tokens = 1;
  int64_t row_begin = 0;
  int64_t row_end = 1;
  int64_t row_padding = 0;  // bytes between rows
  int64_t x_padding = 0;    // floats between tokens
  int64_t y_padding = 0;
  bool accumulate = false;
  bool scaled = true;  // F8_E4M3: with block scales

  std::string describe() const {
    return str(dtype_name(dtype),
               " [",
               rows,
               ", ",
               cols,
               "] rows ",
               row_begin,
               "..",
               row_end,
               " tokens ",
               tokens,
               " padding ",
               row_padding,
               "/",
               x_padding,
               "/",
               y_padding,
               accumulate ? " accumulate" : "");
  }
};

// Stored weights, their fp32 values and inputs of one case. `x` is [tokens, inputs], `y` [tokens, outputs].
struct Problem {
  Problem(const Case& of, Rng& rng, bool transposed);

  WeightMatrix matrix() const {
    return {.dtype = c.dtype,
            .rows = c.rows,
            .cols = c.cols,
            .data = bytes->data(),
            .stride = c.row_padding == 0 ? 0 : c.cols * dtype_size(c.dtype) + c.row_padding,
            .scales = scales.empty() ? nullptr : scales.data()};
  }

  int64_t x_stride() const { return inputs + c.x_padding; }

  int64_t y_stride() const { return outputs + c.y_padding; }

  float weight(int64_t r, int64_t k) const { return values[static_cast<size_t>(r * c.cols + k)]; }

  Case c;
  int64_t inputs = 0;
  int64_t outputs = 0;
  std::vector<float> values;  // [rows, cols], as the kernels must see them
  std::vector<float> scales;
  std::unique_ptr<FencedBytes> bytes;
  std::unique_ptr<FencedBytes> x;
  std::vector<float> y;  // what y holds before
};

Problem::Problem(const Case& of, Rng& rng, bool transposed) : c(of) {
  const int64_t range = c.row_end - c.row_begin;
  inputs = transposed ? range : c.cols;
  outputs = transposed ? c.cols : range;
  const int64_t size = dtype_size(c.dtype);
  const int64_t stride = c.cols * size + c.row_padding;
  std::vector<std::byte> stored(static_cast<size_t>(std::max<int64_t>(c.rows * stride - c.row_padding, 0)));
  const int64_t scale_cols = (c.cols + kFp8Block - 1) / kFp8Block;
  if (c.dtype == DType::kF8E4M3 && c.scaled) {
    scales = random_floats(rng, (c.rows + kFp8Block - 1) / kFp8Block * scale_cols);
  }
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t k = 0; k < c.cols; ++k) {
      auto value = static_cast<float>(rng.next_normal());
      std::byte* to = stored.data() + r * stride + k * size;
      if (c.dtype == DType::kF32) {
        std::memcpy(to, &value, 4);
      } else if (c.dtype == DType::kF8E4M3) {
        const uint8_t code = float_to_e4m3(value);
        value = e4m3_to_float(code);
        if (!scales.empty()) value *= scales[static_cast<size_t>((r / kFp8Block) * scale_cols + k / kFp8Block)];
        std::memcpy(to, &code, 1);
      } else {
        const bool bf16 = c.dtype == DType::kBF16;
        const uint16_t bits = bf16 ? float_to_bf16(value) : float_to_f16(value);
        value = bf16 ? bf16_to_float(bits) : f16_to_float(bits);
        std::memcpy(to, &bits, 2);
      }
      values.push_back(value);
    }
  }
  bytes = std::make_unique<FencedBytes>(stored);
  const int64_t x_floats = std::max<int64_t>(c.tokens * x_stride() - c.x_padding, 0);
  x = std::make_unique<FencedBytes>(random_floats(rng, x_floats));
  y = random_floats(rng, c.tokens * y_stride());
}

std::vector<float> run(const KernelTable& table, const Problem& p, bool transposed) {
  GuardedFloats y(static_cast<int64_t>(p.y.size()));
  for (int64_t t = 0; t < p.c.tokens && p.c.accumulate; ++t) {
    std::copy_n(p.y.data() + t * p.y_stride(), p.outputs, y.data() + t * p.y_stride());
  }
  if (transposed) {
    table.gemm_transposed({.w = p.matrix(),
                           .row_begin = p.c.row_begin,
                           .row_end = p.c.row_end,
                           .x = p.x->floats(),
                           .x_stride = p.x_stride(),
                           .tokens = p.c.tokens,
                           .y = y.data(),
                           .y_stride = p.y_stride(),
                           .accumulate = p.c.accumulate});
  } else {
    table.gemm({.w = p.matrix(),
                .row_begin = p.c.row_begin,
                .row_end = p.c.row_end,
                .x = p.x->floats(),
                .x_stride = p.x_stride(),
                .tokens = p.c.tokens,
                .y = y.data(),
                .y_stride = p.y_stride(),
                .accumulate = p.c.accumulate});
  }
  EXPECT_TRUE(y.guards_intact()) << table.isa;
  std::vector<float> out;
  for (int64_t i = 0; i < static_cast<int64_t>(p.y.size()); ++i) {
    const float value = y.values()[static_cast<size_t>(i)];
    if (i % p.y_stride() < p.outputs) {
      out.push_back(value);
    } else {
      EXPECT_TRUE(GuardedFloats::is_untouched(value)) << table.isa << ": wrote between rows of y, at " << i;
    }
  }
  return out;
}

// The products by definition, in double, and the sums of their magnitudes.
struct Truth {
  std::vector<float> value;
  std::vector<float> magnitude;
};

Truth truth(const Problem& p, bool transposed) {
  Truth out;
  for (int64_t t = 0; t < p.c.tokens; ++t) {
    for (int64_t o = 0; o < p.outputs; ++o) {
      double sum = p.c.accumulate ? p.y[static_cast<size_t>(t * p.y_stride() + o)] : 0.0;
      double magnitude = std::fabs(sum);
      for (int64_t i = 0; i < p.inputs; ++i) {
        const float w = transposed ? p.weight(p.c.row_begin + i, o) : p.weight(p.c.row_begin + o, i);
        const double product = static_cast<double>(w) * p.x->floats()[t * p.x_stride() + i];
        sum += product;
        magnitude += std::fabs(product);
      }
      out.value.push_back(static_cast<float>(sum));
      out.magnitude.push_back(static_cast<float>(magnitude));
    }
  }
  return out;
}

// Every term may be rounded once per addition on its way through at most cols / 16 + 5 of them (rows for transposed).
double tolerance(const Problem& p, bool transposed) {
  return 6e-8 * (4.0 + (transposed ? static_cast<double>(p.inputs) : static_cast<double>(p.inputs) / 16.0));
}

std::vector<Case> awkward_cases(uint64_t seed) {
  std::vector<Case> cases;
  Rng rng(seed);
  for (int64_t cols = 1; cols <= 70; ++cols) {  // every tail
    const int64_t rows = 1 + cols % 11;
    cases.push_back({.dtype = kTypes[static_cast<size_t>(cols) % 4],
                     .rows = rows,
                     .cols = cols,
                     .tokens = 1 + cols % 9,
                     .row_end = rows});
  }
  for (const DType dtype : kTypes) {
    for (int64_t tokens = 0; tokens <= 14; ++tokens) {
      cases.push_back({.dtype = dtype, .rows = 13, .cols = 37, .tokens = tokens, .row_end = 13});
    }
    for (const int64_t tokens : {1, 5, 48, 49, 97, 103}) {  // panels of 48 tokens and 512 columns
      cases.push_back({.dtype = dtype, .rows = 9, .cols = 1100, .tokens = tokens, .row_end = 9, .x_padding = 3});
      cases.push_back({.dtype = dtype, .rows = 150, .cols = 300, .tokens = tokens, .row_begin = 119, .row_end = 141});
    }
    for (const bool accumulate : {false, true}) {  // stretches of 256 decoded rows
      Case c{.dtype = dtype, .rows = 530, .cols = 37, .tokens = 13, .row_begin = 3, .row_end = 530};
      c.accumulate = accumulate;
      cases.push_back(c);
    }
    cases.push_back({.dtype = dtype, .rows = 4, .cols = 0, .tokens = 3, .row_end = 4});
    cases.push_back({.dtype = dtype, .rows = 4, .cols = 20, .tokens = 3, .row_begin = 2, .row_end = 2});
    cases.push_back({.dtype = dtype, .rows = 300, .cols = 16, .tokens = 2, .row_begin = 130, .row_end = 131});
    cases.push_back({.dtype = dtype, .rows = 5, .cols = 512, .tokens = 9, .row_end = 5, .scaled = false});
  }
  for (int i = 0; i < 250; ++i) {
    Case c;
    c.dtype = kTypes[static_cast<size_t>(rng.next_int(0, 3))];
    c.rows = rng.next_int(1, 280);
    c.cols = rng.next_int(1, 300);
    c.tokens = rng.next_int(0, 20);
    c.row_begin = rng.next_int(0, c.rows);
    c.row_end = std::min(c.rows, c.row_begin + rng.next_int(0, 30));
    c.row_padding = rng.next_int(0, 1) * rng.next_int(1, 9);  // odd strides: unaligned rows
    c.x_padding = rng.next_int(0, 5);
    c.y_padding = rng.next_int(0, 5);
    c.accumulate = rng.next_int(0, 1) == 1;
    cases.push_back(c);
  }
  return cases;
}

class GemmTable : public ::testing::TestWithParam<const KernelTable*> {};

INSTANTIATE_TEST_SUITE_P(All,
                         GemmTable,
                         ::testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         testing::table_name);

TEST_P(GemmTable, GemmIsTheMatrixProduct) {
  Rng rng(11);
  for (const Case& c : awkward_cases(1)) {
    SCOPED_TRACE(c.describe());
    const Problem p(c, rng, false);
    const Truth expected = truth(p, false);
    ASSERT_TRUE(near_within(run(*GetParam(), p, false), expected.value, expected.magnitude, tolerance(p, false)));
  }
}

TEST_P(GemmTable, GemmTransposedIsTheTransposedProduct) {
  Rng rng(12);
  for (const Case& c : awkward_cases(2)) {
    SCOPED_TRACE(c.describe());
    const Problem p(c, rng, true);
    const Truth expected = truth(p, true);
    ASSERT_TRUE(near_within(run(*GetParam(), p, true), expected.value, expected.magnitude, tolerance(p, true)));
  }
}

// A comparison that cannot fail proves nothing: one wrong weight must show.
TEST_P(GemmTable, TheComparisonSeesOneWrongWeight) {
  Rng rng(13);
  for (const bool transposed : {false, true}) {
    Problem p({.dtype = DType::kBF16, .rows = 7, .cols = 130, .tokens = 3, .row_end = 7}, rng, transposed);
    p.values[130 * 3 + 129] += 0.01f;
    const Truth wrong = truth(p, transposed);
    const std::vector<float> actual = run(*GetParam(), p, transposed);
    EXPECT_FALSE(near_within(actual, wrong.value, wrong.magnitude, tolerance(p, transposed)));
    EXPECT_FALSE(same_values(actual, wrong.value));
  }
}

TEST(VectorGemm, AgreeBitForBit) {
  const auto tables = all_kernels();
  if (tables.size() < 3) GTEST_SKIP() << "this machine runs " << tables.size() - 1 << " vector tables";
  Rng rng(14);
  for (const Case& c : awkward_cases(3)) {
    SCOPED_TRACE(c.describe());
    for (const bool transposed : {false, true}) {
      const Problem p(c, rng, transposed);
      ASSERT_TRUE(same_values(run(*tables[2], p, transposed), run(*tables[1], p, transposed)));
    }
  }
}

// The canonical order itself, spelled out: no blocking may change it.
TEST(VectorGemm, AddInTheCanonicalOrder) {
  Rng rng(15);
  const Problem p({.dtype = DType::kF16, .rows = 5, .cols = 45, .tokens = 7, .row_end = 5}, rng, false);
  std::vector<float> expected;
  for (int64_t t = 0; t < 7; ++t) {
    for (int64_t r = 0; r < 5; ++r) {
      std::array<float, 16> lane = {};
      for (int64_t k = 0; k < 45; ++k) {
        float& sum = lane[static_cast<size_t>(k % 16)];
        sum = std::fma(p.weight(r, k), p.x->floats()[t * 45 + k], sum);
      }
      for (size_t half = 8; half > 0; half /= 2) {
        for (size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
      }
      expected.push_back(lane[0]);
    }
  }
  for (const KernelTable* table : all_kernels().subspan(1)) {
    EXPECT_TRUE(same_values(run(*table, p, false), expected)) << table->isa;
  }
}

// A token's result depends neither on its company nor on how rows are split.
TEST_P(GemmTable, ResultsDoNotDependOnTheSplit) {
  Rng rng(16);
  for (const DType dtype : kTypes) {
    for (const int64_t tokens : {8, 61}) {
      for (const bool transposed : {false, true}) {
        const Case c{.dtype = dtype, .rows = 140, .cols = 650, .tokens = tokens, .row_begin = 110, .row_end = 135};
        SCOPED_TRACE(c.describe());
        const Problem p(c, rng, transposed);
        const std::vector<float> together = run(*GetParam(), p, transposed);
        for (const int64_t t : {int64_t{0}, int64_t{5}, tokens - 1}) {
          std::vector<float> alone(static_cast<size_t>(p.outputs));
          if (transposed) {
            GetParam()->gemm_transposed({.w = p.matrix(),
                                         .row_begin = 110,
                                         .row_end = 135,
                                         .x = p.x->floats() + t * p.x_stride(),
                                         .x_stride = 0,
                                         .tokens = 1,
                                         .y = alone.data(),
                                         .y_stride = 0});
          } else {
            int64_t begin = 110;  // pieces of 1, 2, 3, ... rows
            for (int64_t step = 1; begin < 135; ++step) {
              const int64_t end = std::min<int64_t>(135, begin + step);
              GetParam()->gemm({.w = p.matrix(),
                                .row_begin = begin,
                                .row_end = end,
                                .x = p.x->floats() + t * p.x_stride(),
                                .x_stride = 0,
                                .tokens = 1,
                                .y = alone.data() + (begin - 110),
                                .y_stride = 0});
              begin = end;
            }
          }
          ASSERT_TRUE(
              same_values(alone, std::span(together).subspan(static_cast<size_t>(t * p.outputs), alone.size())));
        }
      }
    }
  }
}

// Every code, through both products: a matrix with one row per code and x = 1 returns the decoded value.
TEST_P(GemmTable, Fp8CodesHaveTheirValues) {
  constexpr float kScale = 0.37f;
  std::array<std::byte, 256> codes;
  for (size_t i = 0; i < 256; ++i) codes[i] = static_cast<std::byte>(i);
  const std::array<float, 2> scales = {kScale, 2 * kScale};
  const float one = 1.0f;
  std::array<float, 256> by_rows, by_columns;
  const WeightMatrix column{
      .dtype = DType::kF8E4M3, .rows = 256, .cols = 1, .data = codes.data(), .scales = scales.data()};
  GetParam()->gemm({.w = column,
                    .row_begin = 0,
                    .row_end = 256,
                    .x = &one,
                    .x_stride = 1,
                    .tokens = 1,
                    .y = by_rows.data(),
                    .y_stride = 256});
  const WeightMatrix row{
      .dtype = DType::kF8E4M3, .rows = 1, .cols = 256, .data = codes.data(), .scales = scales.data()};
  GetParam()->gemm_transposed({.w = row,
                               .row_begin = 0,
                               .row_end = 1,
                               .x = &one,
                               .x_stride = 1,
                               .tokens = 1,
                               .y = by_columns.data(),
                               .y_stride = 256});
  for (int i = 0; i < 256; ++i) {
    const int magnitude = i & 0x7f;
    const int exponent = magnitude >> 3, mantissa = magnitude & 7;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    if (magnitude == 0x7f) value = std::numeric_limits<float>::quiet_NaN();
    const float expected = (i < 128 ? value : -value) * scales[static_cast<size_t>(i / 128)];
    // A sum that starts from +0 turns -0 into +0.
    EXPECT_TRUE(testing::same_value(by_rows[static_cast<size_t>(i)], expected + 0.0f)) << "code " << i;
    EXPECT_TRUE(testing::same_value(by_columns[static_cast<size_t>(i)], expected + 0.0f)) << "code " << i;
  }
}

// Scales near the ends of fp32: no intermediate may overflow or lose bits that the value itself has.
TEST_P(GemmTable, Fp8ScalesOfAnySize) {
  const std::array<std::byte, 3> codes = {
      static_cast<std::byte>(0x01), static_cast<std::byte>(0x38), static_cast<std::byte>(0x08)};
  for (const float scale : {0x1p127f, 0x1.8p119f, 0x1p120f, 0x1.000002p-126f, 0x1p-149f, 0x1.6p-133f}) {
    const WeightMatrix w{.dtype = DType::kF8E4M3, .rows = 3, .cols = 1, .data = codes.data(), .scales = &scale};
    const float one = 1.0f;
    std::array<float, 3> y;
    GetParam()->gemm(
        {.w = w, .row_begin = 0, .row_end = 3, .x = &one, .x_stride = 1, .tokens = 1, .y = y.data(), .y_stride = 3});
    EXPECT_EQ(y, (std::array<float, 3>{0x1p-9f * scale, scale, 0x1p-6f * scale})) << scale;
  }
}

// A NaN weight spoils its row (or column) only, whatever tile it falls into.
TEST_P(GemmTable, NanWeightsStayInTheirOutputs) {
  for (const int64_t tokens : {1, 3, 20}) {
    std::vector<std::byte> codes(10 * 200, static_cast<std::byte>(0x38));  // all 1.0
    codes[3 * 200 + 190] = static_cast<std::byte>(0xff);
    const WeightMatrix w{.dtype = DType::kF8E4M3, .rows = 10, .cols = 200, .data = codes.data()};
    const std::vector<float> x(static_cast<size_t>(tokens * 200), 0.0f);
    std::vector<float> y(static_cast<size_t>(tokens * 200));
    GetParam()->gemm({.w = w,
                      .row_begin = 0,
                      .row_end = 10,
                      .x = x.data(),
                      .x_stride = 200,
                      .tokens = tokens,
                      .y = y.data(),
                      .y_stride = 10});
    for (int64_t i = 0; i < tokens * 10; ++i) EXPECT_EQ(std::isnan(y[static_cast<size_t>(i)]), i % 10 == 3) << i;
    GetParam()->gemm_transposed({.w = w,
                                 .row_begin = 0,
                                 .row_end = 10,
                                 .x = x.data(),
                                 .x_stride = 10,
                                 .tokens = tokens,
                                 .y = y.data(),
                                 .y_stride = 200});
    for (int64_t i = 0; i < tokens * 200; ++i) EXPECT_EQ(std::isnan(y[static_cast<size_t>(i)]), i % 200 == 190) << i;
  }
}

}  // namespace
}  // namespace lathe
