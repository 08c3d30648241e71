// The bits of every vector table on fixed inputs as pinned numbers, so that instruction sets which no machine has
// together can be compared: x86 and ARM must both give them. The inputs are integers, so no mathematical library is
// involved.
#include <gtest/gtest.h>

#include <cstring>
#include <span>
#include <vector>

#include "lathe/kernels/kernel_table.h"
#include "lathe/tensor/panels.h"
#include "lathe/tensor/tensor.h"

namespace lathe {
namespace {

// A generator of exact values in [-1, 1).
struct Source {
  uint64_t state;

  uint32_t next() {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<uint32_t>(state >> 33);
  }

  std::vector<float> floats(int64_t n) {
    std::vector<float> out(static_cast<size_t>(n));
    for (float& v : out) v = static_cast<float>(static_cast<int>(next() % 65536) - 32768) / 32768.0F;
    return out;
  }
};

// FNV-1a.
template <class T>
void mix(uint64_t& hash, std::span<const T> values) {
  for (const std::byte b : std::as_bytes(values)) hash = (hash ^ static_cast<uint64_t>(b)) * 1099511628211U;
}

// The products of 1 and of `tokens` tokens.
uint64_t panel_bits(const KernelTable& table, DType format, int64_t tokens) {
  Source source{7};
  const int64_t cols = 3 * block_elements(format);
  const int64_t rows = 37;
  Tensor<std::byte> panels({packed_bytes(format, rows, cols)});
  for (int64_t i = 0; i < panels.size(); ++i) panels.data()[i] = static_cast<std::byte>(source.next() & 0xff);
  // Scales of about 2^-6, both halves of every pair of bytes that is one.
  const PanelLayout layout = panel_layout(format);
  const bool unsigned_scales = format == DType::kQ4_K || format == DType::kQ5_K;  // of six bits
  for (int64_t chunk = 0; chunk < panels.size(); chunk += layout.chunk_bytes()) {
    for (int64_t i = 0; i < (layout.blocks == 8 ? 64 : layout.scale_bytes); i += 2) {
      const auto bits = static_cast<uint16_t>(0x2400 + (source.next() & 0x83ff));
      std::memcpy(panels.data() + chunk + i, &bits, 2);
    }
    for (int64_t i = 64; unsigned_scales && i < layout.scale_bytes; ++i) panels.data()[chunk + i] &= std::byte{63};
  }
  const std::vector<float> x = source.floats(tokens * cols);
  Tensor<std::byte> q({tokens * QuantisedRows::row_bytes(cols)});
  for (int64_t t = 0; t < tokens; ++t) table.quantise(x.data() + t * cols, 0, cols / kBlock, {q.data(), cols}, t);
  uint64_t hash = 14695981039346656037U;
  for (const int64_t count : {int64_t{1}, tokens}) {
    std::vector<float> y(static_cast<size_t>(tokens * rows));
    table.panel_gemm({.w = {.dtype = format, .rows = rows, .cols = cols, .data = panels.data(), .packed = true},
                      .panel_begin = 0,
                      .panel_end = 3,
                      .x = {q.data(), cols},
                      .x_rows = nullptr,
                      .tokens = count,
                      .y = y.data(),
                      .y_stride = rows});
    mix<float>(hash, y);
  }
  return hash;
}

uint64_t other_bits(const KernelTable& table) {
  Source source{11};
  uint64_t hash = 14695981039346656037U;
  const std::vector<float> w = source.floats(9 * 203);
  const std::vector<float> x = source.floats(5 * 203);
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<float> stored(w.size());
    table.from_float(type, w.data(), stored.data(), static_cast<int64_t>(w.size()));
    const WeightMatrix matrix{
        .dtype = type, .rows = 9, .cols = 203, .data = reinterpret_cast<const std::byte*>(stored.data())};
    std::vector<float> y(5 * 9);
    table.gemm({matrix, 0, 9, x.data(), 203, 5, y.data(), 9, false});
    mix<float>(hash, y);
    std::vector<float> back(5 * 203);
    table.gemm_transposed({matrix, 0, 9, x.data(), 203, 5, back.data(), 203, false});
    mix<float>(hash, back);
  }
  std::vector<float> out(203);
  table.rms_norm(x.data(), w.data(), out.data(), 203, 1e-6F);
  mix<float>(hash, out);
  table.silu_mul(x.data(), w.data(), out.data(), 203);
  mix<float>(hash, out);
  SoftmaxState state{-__builtin_inff(), 0.0F};
  out.assign(x.begin(), x.begin() + 203);
  table.softmax_step(out.data(), 203, 203, 3.0F, state);
  mix<float>(hash, out);
  mix<float>(hash, std::vector<float>{state.maximum, state.sum});

  const std::vector<float> strip = source.floats(kStripFloats);
  const std::vector<float> q = source.floats(64 * 16);
  std::vector<float> scores(kLaneScores);
  table.lane_scores({strip.data(), 64, 64, q.data(), 64 * 16, scores.data(), 1, false});
  mix<float>(hash, scores);
  const std::vector<int32_t> visible(16, 50);
  std::vector<float> maximum(16, -__builtin_inff());
  std::vector<float> sum(16);
  std::vector<float> factor(16);
  table.lane_softmax({scores.data(), 64, visible.data(), 0.5F, maximum.data(), sum.data(), factor.data()});
  mix<float>(hash, scores);
  mix<float>(hash, sum);
  std::vector<float> values(64 * 16);
  table.lane_values({strip.data(), 64, 64, scores.data(), factor.data(), values.data(), 64 * 16, 1});
  mix<float>(hash, values);
  return hash;
}

struct Pinned {
  DType format;
  uint64_t bits;
  uint64_t bits_of_many;  // tokens: more than one tile of them
};

TEST(PinnedBits, PanelProducts) {
  constexpr Pinned kPinned[] = {{DType::kQ4_0, 12946915761524330091U, 7310721563626809821U},
                                {DType::kQ4_1, 16138415082184215472U, 13915901948558127069U},
                                {DType::kQ5_0, 2403173912990571787U, 8693125896511305660U},
                                {DType::kQ5_1, 9152704827519833818U, 4666209112052243766U},
                                {DType::kQ8_0, 8812074190141046564U, 10329689606818986588U},
                                {DType::kQ4_K, 4503130271065374870U, 3526392404170794728U},
                                {DType::kQ5_K, 1651648814147962497U, 13529005703763733224U},
                                {DType::kQ6_K, 15075165170605316873U, 17996132402697787567U}};
  for (const KernelTable* table : all_kernels()) {
    for (const Pinned& p : kPinned) {
      EXPECT_EQ(panel_bits(*table, p.format, 7), p.bits) << table->isa << " " << dtype_name(p.format);
      EXPECT_EQ(panel_bits(*table, p.format, 27), p.bits_of_many) << table->isa << " " << dtype_name(p.format);
    }
  }
}

TEST(PinnedBits, ProductsNormsAndAttention) {
  if (all_kernels().size() < 2) GTEST_SKIP() << "no vector table runs on this processor";
  for (const KernelTable* table : all_kernels().subspan(1))
    EXPECT_EQ(other_bits(*table), 11997741854512303345U) << table->isa;
}

}  // namespace
}  // namespace lathe
