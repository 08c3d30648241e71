// The reference twin of products with packed weights: scalar code that does exactly the operations PanelGemmArgs lists.
#include "lathe/kernels/reference/panels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "lathe/base/scalar.h"
#include "lathe/tensor/panels.h"

namespace lathe::internal {

namespace {

// One row of QuantisedRows.
struct Row {
  int8_t* q;
  float* scale;
  int32_t* sum;
  int32_t* half_sum;
  float* scaled_sum;
};

Row row_of(const QuantisedRows& rows, int64_t row) {
  std::byte* q = rows.data + row * QuantisedRows::row_bytes(rows.cols);
  const int64_t blocks = rows.cols / kBlock;
  auto* scale = reinterpret_cast<float*>(q + rows.cols);
  auto* sum = reinterpret_cast<int32_t*>(scale + blocks);
  return {reinterpret_cast<int8_t*>(q), scale, sum, sum + blocks, reinterpret_cast<float*>(sum + 2 * blocks)};
}

// Sum of (u - offset) * q over 16 columns of a block.
int32_t half_dot(const BlockValues& w, const int8_t* q, int half) {
  int32_t sum = 0;
  for (int k = half * 16; k < half * 16 + 16; ++k) sum += (w.q[static_cast<size_t>(k)] - w.offset) * q[k];
  return sum;
}

float output(const WeightMatrix& w, int64_t r, const Row& x) {
  const bool k_format = block_elements(w.dtype) == kSuperBlock;
  float acc = 0.0F;
  for (int64_t b = 0; b < w.cols / kBlock; ++b) {
    const BlockValues block = read_packed_block(w, r, b);
    const float d = f16_to_float(block.d);
    const int32_t low = half_dot(block, x.q + b * kBlock, 0);
    const int32_t high = half_dot(block, x.q + b * kBlock, 1);
    const float xs = x.scale[b];
    if (w.dtype == DType::kQ6_K) {
      const int32_t whole = block.scale_q[0] * low + block.scale_q[1] * high;
      acc = std::fma(static_cast<float>(whole), d * xs, acc);
      continue;
    }
    const float scale = k_format ? d * static_cast<float>(block.scale_q[0]) : d;
    acc = std::fma(static_cast<float>(low + high), scale * xs, acc);
    if (k_format) {
      acc = std::fma(-(f16_to_float(block.m) * static_cast<float>(block.minimum_q)), x.scaled_sum[b], acc);
    } else if (block.minimum_q != 0) {
      acc = std::fma(f16_to_float(block.m), x.scaled_sum[b], acc);
    }
  }
  return acc;
}

}  // namespace

void panel_gemm(const PanelGemmArgs& args) {
  const int64_t end = std::min(args.panel_end * kPanelRows, args.w.rows);
  for (int64_t t = 0; t < args.tokens; ++t) {
    const Row x = row_of(args.x, args.x_rows != nullptr ? args.x_rows[t] : t);
    for (int64_t r = args.panel_begin * kPanelRows; r < end; ++r) {
      args.y[t * args.y_stride + r - args.panel_begin * kPanelRows] = output(args.w, r, x);
    }
  }
}

void quantise(const float* x, int64_t first_block, int64_t last_block, const QuantisedRows& out, int64_t row) {
  const Row to = row_of(out, row);
  for (int64_t b = first_block; b < last_block; ++b) {
    const float* from = x + b * kBlock;
    uint32_t largest_bits = 0;
    for (int64_t i = 0; i < kBlock; ++i) {
      largest_bits = std::max(largest_bits, std::bit_cast<uint32_t>(from[i]) & 0x7fffffffU);
    }
    const auto largest = std::bit_cast<float>(largest_bits);
    const bool finite = largest < std::numeric_limits<float>::infinity();
    const bool zero = !finite || largest < 1e-30F;
    const float factor = zero ? 0.0F : 127.0F / largest;
    int32_t sums[2] = {0, 0};
    for (int64_t i = 0; i < kBlock; ++i) {
      const auto q = zero ? int8_t{0} : static_cast<int8_t>(std::nearbyint(from[i] * factor));
      to.q[b * kBlock + i] = q;
      sums[i / 16] += q;
    }
    const int32_t sum = sums[0] + sums[1];
    to.scale[b] = !finite ? std::numeric_limits<float>::quiet_NaN() : zero ? 0.0F : largest / 127.0F;
    to.sum[b] = -128 * sum;
    to.half_sum[b] = -128 * sums[0];
    to.scaled_sum[b] = to.scale[b] * static_cast<float>(sum);
  }
}

}  // namespace lathe::internal
