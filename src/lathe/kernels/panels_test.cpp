// Products with packed weights: every table must give the bits of the reference table, and that one the value of the
// formula.
#include "lathe/tensor/panels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include "lathe/base/cpu.h"
#include "lathe/base/rng.h"
#include "lathe/base/scalar.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/kernels/x86_amx/emulated.h"
#include "lathe/tensor/tensor.h"

namespace lathe {
namespace {

constexpr DType kFormats[] = {
    DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// A matrix in a block format from random bytes, with fp16 scales of moderate size.
struct Blocks {
  std::vector<std::byte> bytes;
  WeightMatrix matrix;
};

// Offsets of the fp16 fields of a block.
std::vector<int64_t> half_fields(DType format) {
  switch (format) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

Blocks random_blocks(DType format, int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed);
  Blocks out;
  out.bytes.resize(static_cast<size_t>(rows * row_bytes(format, cols)));
  for (std::byte& b : out.bytes) b = static_cast<std::byte>(rng.next_int(0, 255));
  for (size_t block = 0; block < out.bytes.size(); block += static_cast<size_t>(block_bytes(format))) {
    for (const int64_t field : half_fields(format)) {
      const uint16_t bits = float_to_f16(static_cast<float>(rng.next_normal()) * 0.01F);
      std::memcpy(out.bytes.data() + block + static_cast<size_t>(field), &bits, 2);
    }
  }
  out.matrix = {.dtype = format, .rows = rows, .cols = cols, .data = out.bytes.data()};
  return out;
}

struct Panels {
  Tensor<std::byte> bytes;
  WeightMatrix matrix;
};

Panels pack(const WeightMatrix& rows) {
  Panels out;
  out.bytes = Tensor<std::byte>({packed_bytes(rows.dtype, rows.rows, rows.cols)});
  for (int64_t p = 0; p < (rows.rows + kPanelRows - 1) / kPanelRows; ++p) {
    pack_panel(rows, p, out.bytes.data() + p * panel_bytes(rows.dtype, rows.cols));
  }
  out.matrix = rows;
  out.matrix.data = out.bytes.data();
  out.matrix.packed = true;
  return out;
}

std::vector<float> random_rows(int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> out(static_cast<size_t>(rows * cols));
  for (float& v : out) v = static_cast<float>(rng.next_normal());
  return out;
}

Tensor<std::byte> quantised(const KernelTable& table, const std::vector<float>& x, int64_t rows, int64_t cols) {
  Tensor<std::byte> out({rows * QuantisedRows::row_bytes(cols)});
  for (int64_t r = 0; r < rows; ++r) table.quantise(x.data() + r * cols, 0, cols / kBlock, {out.data(), cols}, r);
  return out;
}

class EveryFormat : public ::testing::TestWithParam<DType> {};

TEST_P(EveryFormat, PackingKeepsEveryInteger) {
  const int64_t cols = 3 * block_elements(GetParam());
  const Blocks blocks = random_blocks(GetParam(), 21, cols, 3);
  const Panels panels = pack(blocks.matrix);
  for (int64_t r = 0; r < 21; ++r) {
    for (int64_t b = 0; b < cols / kBlock; ++b) {
      const BlockValues expected = read_block(GetParam(), blocks.bytes.data() + r * row_bytes(GetParam(), cols), b);
      const BlockValues found = read_packed_block(panels.matrix, r, b);
      ASSERT_EQ(found.q, expected.q) << "row " << r << " block " << b;
      ASSERT_EQ(found.offset, expected.offset);
      ASSERT_EQ(found.d, expected.d);
      ASSERT_EQ(found.m, expected.m);
      ASSERT_EQ(found.scale_q, expected.scale_q);
      ASSERT_EQ(found.minimum_q, expected.minimum_q);
    }
  }
}

struct PanelGemm {
  std::string_view isa;
  internal::PanelGemmFunction run;
};

// Of every table, the reference first, and of the amx table without the registers that it takes.
std::vector<PanelGemm> panel_gemms() {
  std::vector<PanelGemm> out;
  for (const KernelTable* table : all_kernels()) out.push_back({table->isa, table->panel_gemm});
#if defined(__x86_64__)
  if (cpu_features().avx2) out.push_back({"emulated amx", internal::kEmulatedAmxPanelGemm});
#endif
  return out;
}

// y of every table, compared with that of the first, the reference.
void expect_same_products(const WeightMatrix& panels, const Tensor<std::byte>& q, int64_t tokens) {
  std::vector<float> expected;
  for (const PanelGemm& panel_gemm : panel_gemms()) {
    std::vector<float> y(static_cast<size_t>(tokens * panels.rows));
    panel_gemm.run({.w = panels,
                    .panel_begin = 0,
                    .panel_end = (panels.rows + kPanelRows - 1) / kPanelRows,
                    .x = {const_cast<std::byte*>(q.data()), panels.cols},
                    .x_rows = nullptr,
                    .tokens = tokens,
                    .y = y.data(),
                    .y_stride = panels.rows});
    if (expected.empty()) expected = y;
    ASSERT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)), 0)
        << panel_gemm.isa << " " << tokens << " tokens";
  }
}

// Sums of products of the largest integers must still fit the intermediate types of every table.
TEST_P(EveryFormat, ExtremeIntegersDoNotOverflow) {
  const int64_t cols = 2 * block_elements(GetParam());
  const PanelLayout layout = panel_layout(GetParam());
  Panels panels = pack(random_blocks(GetParam(), kPanelRows, cols, 8).matrix);
  for (const int fill : {0x00, 0xff}) {
    for (int64_t at = 0; at < panel_bytes(GetParam(), cols); at += layout.chunk_bytes()) {
      std::memset(
          panels.bytes.data() + at + layout.scale_bytes, fill, static_cast<size_t>(layout.blocks * layout.block_bytes));
    }
    for (const int64_t tokens : {1, 3, 8, 16}) {
      std::vector<float> x(static_cast<size_t>(tokens * cols), 1.0F);
      std::fill_n(x.begin(), cols, -1.0F);
      for (size_t i = 1; i < x.size(); i += 64) x[i] = -1.0F;
      expect_same_products(panels.matrix, quantised(*all_kernels().front(), x, tokens, cols), tokens);
    }
  }
}

// More columns and tokens than are gathered at a time, without tiles and with them.
TEST_P(EveryFormat, LargeProductsAgreeBitForBit) {
  const int64_t cols = 70 * kBlock / block_elements(GetParam()) * block_elements(GetParam()) + 256;
  const Panels panels = pack(random_blocks(GetParam(), 2 * kPanelRows, cols, 9).matrix);
  for (const int64_t tokens : {48 + 7, 128 + 9}) {
    const std::vector<float> x = random_rows(tokens, cols, 10);
    expect_same_products(panels.matrix, quantised(*all_kernels().front(), x, tokens, cols), tokens);
  }
}

TEST_P(EveryFormat, TablesAgreeBitForBit) {
  const int64_t cols = 3 * block_elements(GetParam());
  const int64_t rows = 16 * 3 + 5;
  const Blocks blocks = random_blocks(GetParam(), rows, cols, 4);
  const Panels panels = pack(blocks.matrix);
  const int64_t most = 41;
  const std::vector<float> x = random_rows(most, cols, 5);
  const Tensor<std::byte> q = quantised(*all_kernels().front(), x, most, cols);
  std::vector<int32_t> picked;
  for (int32_t t = 0; t < most; ++t) picked.push_back(static_cast<int32_t>((t * 7) % most));
  for (const int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 23, 24, 29, 41}) {
    for (const bool gather : {false, true}) {
      std::vector<float> expected;
      for (const PanelGemm& panel_gemm : panel_gemms()) {
        // Panel by panel and all at once: a split must not matter. One guard value past each row.
        std::vector<float> y(static_cast<size_t>(tokens * (rows + 1)), 77.0F);
        const PanelGemmArgs all{.w = panels.matrix,
                                .panel_begin = 0,
                                .panel_end = 4,
                                .x = {const_cast<std::byte*>(q.data()), cols},
                                .x_rows = gather ? picked.data() : nullptr,
                                .tokens = tokens,
                                .y = y.data(),
                                .y_stride = rows + 1};
        panel_gemm.run(all);
        if (expected.empty()) expected = y;
        ASSERT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)), 0)
            << panel_gemm.isa << " " << tokens << " tokens";
        std::fill(y.begin(), y.end(), 77.0F);
        for (int64_t p = 0; p < 4; ++p) {
          PanelGemmArgs one = all;
          one.panel_begin = p;
          one.panel_end = p + 1;
          one.y = y.data() + p * kPanelRows;
          panel_gemm.run(one);
        }
        ASSERT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)), 0) << panel_gemm.isa << " split";
      }
    }
  }
}

TEST_P(EveryFormat, ReferenceIsTheProductOfTheDecodedValues) {
  const int64_t cols = 2 * block_elements(GetParam());
  const Blocks blocks = random_blocks(GetParam(), 16, cols, 6);
  const Panels panels = pack(blocks.matrix);
  const std::vector<float> x = random_rows(1, cols, 7);
  const KernelTable& table = *all_kernels().front();
  const Tensor<std::byte> q = quantised(table, x, 1, cols);
  std::vector<float> y(16);
  table.panel_gemm({.w = panels.matrix,
                    .panel_begin = 0,
                    .panel_end = 1,
                    .x = {const_cast<std::byte*>(q.data()), cols},
                    .x_rows = nullptr,
                    .tokens = 1,
                    .y = y.data(),
                    .y_stride = 16});
  const auto* bytes = reinterpret_cast<const int8_t*>(q.data());
  const auto* scale = reinterpret_cast<const float*>(q.data() + cols);
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < 16; ++r) {
    decode_blocks(GetParam(), blocks.bytes.data() + r * row_bytes(GetParam(), cols), row.data(), cols);
    double sum = 0.0;
    double magnitude = 0.0;
    for (int64_t k = 0; k < cols; ++k) {
      const double term = static_cast<double>(row[static_cast<size_t>(k)]) * bytes[k] * scale[k / kBlock];
      sum += term;
      magnitude += std::abs(term);
    }
    EXPECT_NEAR(y[static_cast<size_t>(r)], sum, 1e-5 * magnitude) << "row " << r;
  }
}

TEST_P(EveryFormat, TablesDecodeRowsAlike) {
  const int64_t cols = 2 * block_elements(GetParam());
  const Blocks blocks = random_blocks(GetParam(), 1, cols, 8);
  std::vector<float> expected(static_cast<size_t>(cols));
  decode_blocks(GetParam(), blocks.bytes.data(), expected.data(), cols);
  for (const KernelTable* table : all_kernels()) {
    std::vector<float> found(static_cast<size_t>(cols), -1.0F);
    table->to_float(GetParam(), blocks.bytes.data(), found.data(), cols);
    EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)), 0) << table->isa;
  }
}

TEST(TransposedQ80, IsTheProductOfTheDecodedRows) {
  constexpr int64_t kRows = 24;
  constexpr int64_t kCols = 96;
  const Blocks blocks = random_blocks(DType::kQ8_0, kRows, kCols, 9);
  std::vector<float> values(static_cast<size_t>(kRows * kCols));
  decode_blocks(DType::kQ8_0, blocks.bytes.data(), values.data(), kRows * kCols);
  WeightMatrix plain{
      .rows = kRows, .cols = kCols, .data = reinterpret_cast<const std::byte*>(values.data()), .stride = 0};
  const std::vector<float> x = random_rows(7, 16, 10);
  for (const KernelTable* table : all_kernels()) {
    for (const int64_t tokens : {1, 7}) {
      GemmTransposedArgs args{.w = plain,
                              .row_begin = 5,
                              .row_end = 21,
                              .x = x.data(),
                              .x_stride = 16,
                              .tokens = tokens,
                              .y = nullptr,
                              .y_stride = kCols};
      std::vector<float> expected(static_cast<size_t>(tokens * kCols));
      std::vector<float> found(expected.size());
      args.y = expected.data();
      table->gemm_transposed(args);
      args.w = blocks.matrix;
      args.y = found.data();
      table->gemm_transposed(args);
      EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)), 0) << table->isa;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, EveryFormat, ::testing::ValuesIn(kFormats), [](const auto& format) {
  return std::string(dtype_name(format.param));
});

TEST(Quantise, TablesAgreeBitForBit) {
  const int64_t cols = 32 * 9;
  std::vector<float> x = random_rows(1, cols, 11);
  x[33] = std::numeric_limits<float>::infinity();
  x[70] = std::numeric_limits<float>::quiet_NaN();
  for (int i = 96; i < 128; ++i) x[static_cast<size_t>(i)] = 0.0F;
  for (int i = 128; i < 160; ++i) x[static_cast<size_t>(i)] = 1e-33F;
  for (int i = 160; i < 192; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i - 160) - 15.5F;  // ties
  for (int i = 192; i < 224; ++i) x[static_cast<size_t>(i)] *= 1e37F;
  std::vector<std::byte> expected;
  for (const KernelTable* table : all_kernels()) {
    const Tensor<std::byte> q = quantised(*table, x, 1, cols);
    const std::vector<std::byte> bytes(q.flat().begin(), q.flat().end());
    if (expected.empty()) expected = bytes;
    EXPECT_EQ(bytes, expected) << table->isa;
  }
}

TEST(Quantise, KeepsTheLargestAndItsSums) {
  std::vector<float> x(64, 0.0F);
  x[3] = -2.0F;
  x[20] = 1.0F;
  for (const KernelTable* table : all_kernels()) {
    const Tensor<std::byte> out = quantised(*table, x, 1, 64);
    const auto* q = reinterpret_cast<const int8_t*>(out.data());
    const auto* scale = reinterpret_cast<const float*>(out.data() + 64);
    const auto* sum = reinterpret_cast<const int32_t*>(scale + 2);
    EXPECT_EQ(q[3], -127);
    EXPECT_EQ(q[20], 64);  // 63.5 to even
    EXPECT_EQ(scale[0], 2.0F / 127.0F);
    EXPECT_EQ(scale[1], 0.0F);
    EXPECT_EQ(sum[0], -128 * (64 - 127));
    EXPECT_EQ(sum[2], -128 * -127);
    EXPECT_EQ(reinterpret_cast<const float*>(sum)[4], 2.0F / 127.0F * (64 - 127));
  }
}

TEST(Quantise, WritesOnlyTheBlocksAskedFor) {
  const std::vector<float> x = random_rows(1, 128, 12);
  for (const KernelTable* table : all_kernels()) {
    const Tensor<std::byte> whole = quantised(*table, x, 1, 128);
    Tensor<std::byte> parts({QuantisedRows::row_bytes(128)});
    table->quantise(x.data(), 2, 4, {parts.data(), 128}, 0);
    EXPECT_EQ(parts.data()[0], std::byte{0});
    table->quantise(x.data(), 0, 2, {parts.data(), 128}, 0);
    EXPECT_EQ(std::memcmp(parts.data(), whole.data(), static_cast<size_t>(whole.size())), 0) << table->isa;
  }
}

}  // namespace
}  // namespace lathe
