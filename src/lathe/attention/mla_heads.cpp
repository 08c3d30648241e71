#include "lathe/attention/mla_heads.h"

#include <algorithm>

#include "lathe/tensor/panels.h"

namespace lathe {

namespace {

constexpr int64_t kScratchTokens = 32;  // rows quantised at a time

// Rows [first, first + count) of a plain matrix times x.
void multiply(const KernelTable& kernels,
              const WeightMatrix& w,
              int64_t first,
              int64_t count,
              int64_t tokens,
              const float* x,
              int64_t x_stride,
              StridedRows out) {
  kernels.gemm({.w = w,
                .row_begin = first,
                .row_end = first + count,
                .x = x,
                .x_stride = x_stride,
                .tokens = tokens,
                .y = out.data,
                .y_stride = out.stride,
                .accumulate = false});
}

// The transpose of those rows times x[t, count].
void multiply_transposed(const KernelTable& kernels,
                         const WeightMatrix& w,
                         int64_t first,
                         int64_t count,
                         int64_t tokens,
                         const float* x,
                         int64_t x_stride,
                         StridedRows out) {
  kernels.gemm_transposed({.w = w,
                           .row_begin = first,
                           .row_end = first + count,
                           .x = x,
                           .x_stride = x_stride,
                           .tokens = tokens,
                           .y = out.data,
                           .y_stride = out.stride,
                           .accumulate = false});
}

// Rows [first, first + count), whole panels, of a packed matrix times quantised rows.
void multiply_packed(const KernelTable& kernels,
                     const WeightMatrix& w,
                     int64_t first,
                     int64_t count,
                     int64_t tokens,
                     const QuantisedRows& x,
                     StridedRows out) {
  kernels.panel_gemm({.w = w,
                      .panel_begin = first / kPanelRows,
                      .panel_end = (first + count) / kPanelRows,
                      .x = x,
                      .x_rows = nullptr,
                      .tokens = tokens,
                      .y = out.data,
                      .y_stride = out.stride});
}

// The same for fp32 rows, quantised a few at a time.
void quantise_and_multiply(const MlaHead& head,
                           const WeightMatrix& w,
                           int64_t first,
                           int64_t count,
                           int64_t tokens,
                           const float* x,
                           int64_t x_stride,
                           StridedRows out) {
  const QuantisedRows rows{reinterpret_cast<std::byte*>(head.scratch), w.cols};
  for (int64_t begin = 0; begin < tokens; begin += kScratchTokens) {
    const int64_t n = std::min(kScratchTokens, tokens - begin);
    for (int64_t t = 0; t < n; ++t) head.kernels.quantise(x + (begin + t) * x_stride, 0, w.cols / kBlock, rows, t);
    multiply_packed(head.kernels, w, first, count, n, rows, {out.data + begin * out.stride, out.stride});
  }
}

// Where W^UV of the head lies.
struct RowRange {
  const WeightMatrix& w;
  int64_t first;
};

RowRange value_rows(const MlaHead& head) {
  const MlaShape& s = head.shape;
  if (!head.weights.v_b_proj.empty()) return {head.weights.v_b_proj, head.index * s.v_head_dim};
  const int64_t head_rows = s.qk_nope_head_dim + s.v_head_dim;
  return {head.weights.kv_b_proj, head.index * head_rows + s.qk_nope_head_dim};
}

}  // namespace

int64_t head_scratch_floats(const MlaShape& s) {
  const int64_t most = std::max(s.kv_lora_rank, s.qk_nope_head_dim) + kBlock;
  return quantised_floats(kScratchTokens, most / kBlock * kBlock);
}

void absorb_query(const MlaHead& head, int64_t tokens, const float* q, int64_t q_stride, StridedRows out) {
  const MlaWeights& w = head.weights;
  const MlaShape& s = head.shape;
  if (!w.k_b_proj.empty()) {
    const int64_t first = head.index * s.kv_lora_rank;
    if (w.k_b_proj.packed) {
      quantise_and_multiply(head, w.k_b_proj, first, s.kv_lora_rank, tokens, q, q_stride, out);
    } else {
      multiply(head.kernels, w.k_b_proj, first, s.kv_lora_rank, tokens, q, q_stride, out);
    }
    return;
  }
  const int64_t per_head = w.kv_b_proj.packed ? s.qk_nope_head_dim : s.qk_nope_head_dim + s.v_head_dim;
  const WeightMatrix& rows = w.kv_b_proj.packed ? w.uk_rows : w.kv_b_proj;
  multiply_transposed(head.kernels, rows, head.index * per_head, s.qk_nope_head_dim, tokens, q, q_stride, out);
}

void project_value(const MlaHead& head, int64_t tokens, const float* z, int64_t z_stride, StridedRows out) {
  const RowRange rows = value_rows(head);
  if (rows.w.packed) {
    quantise_and_multiply(head, rows.w, rows.first, head.shape.v_head_dim, tokens, z, z_stride, out);
  } else {
    multiply(head.kernels, rows.w, rows.first, head.shape.v_head_dim, tokens, z, z_stride, out);
  }
}

bool reads_quantised_latents(const MlaWeights& weights) {
  return weights.kv_b_proj.packed || weights.v_b_proj.packed || weights.uk_rows.packed;
}

void expand_latents(
    const MlaHead& head, int64_t positions, const float* latents, const QuantisedRows& quantised, StridedRows kv) {
  const MlaWeights& w = head.weights;
  const MlaShape& s = head.shape;
  const int64_t stride = s.kv_lora_rank;
  if (w.k_b_proj.empty()) {
    // Rows of W^UK and W^UV are neighbours (trap T8), so this is one product.
    const int64_t head_rows = s.qk_nope_head_dim + s.v_head_dim;
    if (w.kv_b_proj.packed) {
      multiply_packed(head.kernels, w.kv_b_proj, head.index * head_rows, head_rows, positions, quantised, kv);
    } else {
      multiply(head.kernels, w.kv_b_proj, head.index * head_rows, head_rows, positions, latents, stride, kv);
    }
    return;
  }
  if (w.uk_rows.packed) {
    multiply_packed(
        head.kernels, w.uk_rows, head.index * s.qk_nope_head_dim, s.qk_nope_head_dim, positions, quantised, kv);
  } else {
    const WeightMatrix& transposed = w.k_b_proj.packed ? w.uk_rows : w.k_b_proj;
    multiply_transposed(
        head.kernels, transposed, head.index * s.kv_lora_rank, s.kv_lora_rank, positions, latents, stride, kv);
  }
  const RowRange values = value_rows(head);
  const StridedRows v{kv.data + s.qk_nope_head_dim, kv.stride};
  if (values.w.packed) {
    multiply_packed(head.kernels, values.w, values.first, s.v_head_dim, positions, quantised, v);
  } else {
    multiply(head.kernels, values.w, values.first, s.v_head_dim, positions, latents, stride, v);
  }
}

}  // namespace lathe
