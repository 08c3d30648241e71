// KernelTable: the arithmetic of one instruction set behind plain function pointers. Model code never mentions an
// instruction set; it takes a table. All tables compute with fp32 accumulation in one canonical order, so that the
// vector tables agree bit for bit with each other, and a result never depends on how many rows, tokens or threads share
// a call:
//   dot products: element k goes to lane k mod 16 by fused multiply-add in ascending k; the 16 lanes are summed as a
//   tree (i with i+8, then i+4, i+2, i+1); transposed products: rows are added in ascending order by fused
//   multiply-add.
// The `reference` table is plain scalar code with double accumulators: the oracle of the others, within a tolerance.
// Products with packed block formats are integer arithmetic with one defined order of fp32 operations (PanelGemmArgs);
// there the reference table and the vector tables agree bit for bit.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "lathe/kernels/lane_tile.h"
#include "lathe/kernels/training.h"
#include "lathe/tensor/matrix.h"

namespace lathe {

// y[t][r - row_begin] (+)= sum over k of W[r][k] * x[t][k], r in [row_begin, row_end).
struct GemmArgs {
  WeightMatrix w;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  const float* x = nullptr;  // [tokens, w.cols], rows x_stride floats apart
  int64_t x_stride = 0;
  int64_t tokens = 0;
  float* y = nullptr;  // [tokens, row_end - row_begin], rows y_stride floats apart; no overlap with x
  int64_t y_stride = 0;
  bool accumulate = false;  // add the finished dot product to y instead of storing it
};

// y[t][c] (+)= sum over r in [row_begin, row_end) of x[t][r - row_begin] * W[r][c], c in [0, w.cols).
// With accumulate the chain of fused multiply-adds starts from y, else from 0. Beside the plain types, rows of Q8_0
// (not packed) are read as d * q rounded to fp32.
struct GemmTransposedArgs {
  WeightMatrix w;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  const float* x = nullptr;  // [tokens, row_end - row_begin], rows x_stride floats apart
  int64_t x_stride = 0;
  int64_t tokens = 0;
  float* y = nullptr;  // [tokens, w.cols], rows y_stride floats apart
  int64_t y_stride = 0;
  bool accumulate = false;
};

// Activations as products with packed weights take them: signed bytes, 32 columns (a block) to a scale. A row is
//   q[cols] int8 | scale[blocks] fp32 | sum[blocks] int32 | half_sum[blocks] int32 | scaled_sum[blocks] fp32
// with x[k] ~ scale[k / 32] * q[k], |q| <= 127, sum = -128 * (sum of the block's q), half_sum = -128 * (sum of its
// first 16 q), scaled_sum = scale * (sum of the block's q). A row takes an odd number of cache lines, so that equal
// columns of many rows do not collide in the cache.
struct QuantisedRows {
  std::byte* data = nullptr;  // aligned to a cache line
  int64_t cols = 0;           // whole blocks

  // Bytes from row to row.
  static constexpr int64_t row_bytes(int64_t cols) { return ((cols + cols / 32 * 16 + 63) / 64 | 1) * 64; }
};

// y[t][r - 16 panel_begin] = W x for the rows r of panels [panel_begin, panel_end) of packed weights (tensor/panels.h),
// row x_rows[t] of x each (t itself when x_rows is null). For every output, blocks in ascending order from acc = 0:
//   i = sum over the block of (u - offset) * q  (exact)           xs = scale of the activation block
//   acc = fma(float(i), d * xs, acc)                                             Q8_0, Q5_0, Q4_0, Q5_1, Q4_1
//   acc = fma(float(i), (d * sc) * xs, acc)                                      Q4_K, Q5_K
//   acc = fma(float(sc_0 i_0 + sc_1 i_1), d * xs, acc), halves of 16 columns     Q6_K
//   then acc = fma(m, s, acc) (Q5_1, Q4_1) or fma(-(dmin * m), s, acc) (Q4_K, Q5_K) with s = xs * (sum of the block's
//   q)
// every product rounded to fp32. Outputs past the last row of W are not written.
struct PanelGemmArgs {
  WeightMatrix w;
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
  QuantisedRows x;
  const int32_t* x_rows = nullptr;  // [tokens]
  int64_t tokens = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

// One step of online softmax over `count` new scores of one query and head.
// In: raw dot products in scores[0, count). Out: scores[j] = exp(scale * scores[j] - new maximum), and scores[count,
// padded) set to 0. `maximum` (-infinity before the first step) and `sum` are updated; returns the factor exp(old
// maximum - new maximum) by which what was accumulated before must be multiplied. Scores are added to the sum in the
// canonical lane order. A score of -infinity becomes 0; while all scores so far are -infinity the maximum stays there,
// the sum stays 0 and the factor is 0. NaN is never taken as the maximum but makes its score and the sum NaN, as a
// score of +infinity does. count is at least 1, padded at least count.
struct SoftmaxState {
  float maximum;
  float sum;
};

// The functions of one instruction set. All are reentrant and allocate nothing on the vector tables; pointers are
// borrowed for the call. Sizes are trusted: callers have checked them.
struct KernelTable {
  std::string_view isa;  // "reference", "avx2", "avxvnni", "avx512", "avx512vnni", "amx", "neon"

  void (*gemm)(const GemmArgs& args);
  void (*gemm_transposed)(const GemmTransposedArgs& args);
  void (*panel_gemm)(const PanelGemmArgs& args);
  // Quantises columns [32 first, 32 last) of one row x (given from column 0) into row `row` of `out`: scale = largest
  // |x| / 127, q = x * (127 / largest |x|) rounded to nearest even. A block whose largest |x| is below 1e-30 becomes
  // zero; one that is not finite gets a NaN scale and zero integers, so that results show it.
  void (*quantise)(const float* x, int64_t first_block, int64_t last_block, const QuantisedRows& out, int64_t row);
  // y_j = w_j * x_j / sqrt(mean(x^2) + eps); x and y may be the same.
  void (*rms_norm)(const float* x, const float* weight, float* y, int64_t n, float eps);
  // out = silu(gate) * up; out may be gate or up.
  void (*silu_mul)(const float* gate, const float* up, float* out, int64_t n);
  float (*softmax_step)(float* scores, int64_t count, int64_t padded, float scale, SoftmaxState& state);
  void (*scale)(float* y, float factor, int64_t n);                 // y *= factor
  void (*axpy)(float* y, float factor, const float* x, int64_t n);  // y = fma(factor, x, y)
  void (*add)(float* y, const float* x, int64_t n);                 // y += x
  // Rotates pairs by (cos, sin), each [pairs]: interleaved pairs (2i, 2i+1), or half-split pairs (i, i + pairs).
  void (*rope_interleaved)(float* x, const float* cos, const float* sin, int64_t pairs);
  void (*rope_half_split)(float* x, const float* cos, const float* sin, int64_t pairs);
  // n elements of F32, BF16 or F16 (to_float: also F8_E4M3, without scale, and whole blocks of block formats) to and
  // from fp32, round to nearest even.
  void (*to_float)(DType dtype, const void* source, float* out, int64_t n);
  void (*from_float)(DType dtype, const float* source, void* out, int64_t n);

  // attention (lane_tile.h)
  void (*load_strip)(const StripSource& source, float* strip);  // [64, 64], zeros past the source's rows and columns
  void (*lane_scores)(const LaneScoresArgs& args);
  void (*lane_quantise)(const LaneQuantiseArgs& args);
  void (*lane_scores_q8)(const LaneScoresQ8Args& args);
  void (*lane_softmax)(const LaneSoftmaxArgs& args);
  void (*lane_values)(const LaneValuesArgs& args);
  void (*lane_values_q8)(const LaneValuesQ8Args& args);
  // Elements [first, first + n) of a cache row of `elements` to fp32.
  void (*cache_to_float)(
      CacheFormat format, const std::byte* row, int64_t elements, int64_t first, int64_t n, float* out);
  // As encode_cache_row for q8.
  void (*encode_q8)(const float* x, int64_t elements, std::byte* row);
  // lanes[k][i] = rows[i][k] for k < n, and back; 16 rows, those that are null give 0 or are not written.
  void (*rows_to_lanes)(const float* const* rows, int64_t n, float* lanes);
  void (*lanes_to_rows)(const float* lanes, int64_t n, float* const* rows);

  // training (training.h)
  void (*sgemm)(const SgemmArgs& args);
  void (*sgemm_pack)(const SgemmPackArgs& args);
  void (*rms_norm_backward)(const RmsNormBackwardArgs& args);
  void (*silu_mul_backward)(const SiluMulBackwardArgs& args);
  void (*softmax_backward)(const SoftmaxBackwardArgs& args);
  void (*adamw)(const AdamwArgs& args);
};

// The best table for this machine, or the one that LATHE_ISA names (chosen once, at the first call). When LATHE_ISA
// names a table that does not exist or cannot run here, isa_error() says so in one line and the best table is used;
// programs check isa_error() at start and end with exit code 2.
const KernelTable& kernels();
std::string_view isa_error();

// Every table this machine can execute, `reference` first: what tests iterate.
std::span<const KernelTable* const> all_kernels();

}  // namespace lathe
