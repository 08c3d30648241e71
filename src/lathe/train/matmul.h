// Products of training over all threads: y = x W^T and its two derivatives, for one matrix and for the rows of many
// experts. Work is cut along rows and columns of the result, never along a sum, so threads change no bit.
#pragma once

#include <cstdint>
#include <span>

#include "lathe/train/train_context.h"

namespace lathe {

// x [rows, in], y [rows, out], all contiguous; W [out, in].
struct LinearSize {
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
};

enum class Sum { kStore, kAdd };

// y (+)= x W^T.
void linear_forward(const TrainContext& c, const LinearSize& size, const float* x, const float* w, float* y, Sum sum);
// dx (+)= dy W.
void linear_input_gradient(
    const TrainContext& c, const LinearSize& size, const float* dy, const float* w, float* dx, Sum sum);
// dW += dy^T x.
void linear_weight_gradient(const TrainContext& c, const LinearSize& size, const float* dy, const float* x, float* dw);

// y[t] += bias for every row, and db += sum of the rows of dy, in blocks of kColumnSumRows rows that are added in
// order.
inline constexpr int64_t kColumnSumRows = 64;
void add_bias(const TrainContext& c, const float* bias, int64_t rows, int64_t n, float* y);
// partials: column_sum_floats(rows, n).
void bias_gradient(const TrainContext& c, const float* dy, int64_t rows, int64_t n, float* partials, float* db);

// Floats of the block sums of rows of n values.
constexpr int64_t column_sum_floats(int64_t rows, int64_t n) {
  return (rows + kColumnSumRows - 1) / kColumnSumRows * n;
}

// Rows sorted by expert: those of expert e are [offsets[e], offsets[e + 1]). Each expert has its own matrix.
struct GroupedLinear {
  std::span<const int64_t> offsets;  // [experts + 1], from 0
  std::span<const Trained> weights;  // [experts], each [out, in]
  int64_t in = 0;
  int64_t out = 0;

  int64_t rows() const { return offsets.back(); }
};

// y = x W_e^T for the rows of each expert.
void grouped_forward(const TrainContext& c, const GroupedLinear& g, const float* x, float* y);
// dx = dy W_e.
void grouped_input_gradient(const TrainContext& c, const GroupedLinear& g, const float* dy, float* dx);
// dW_e += dy^T x over the expert's rows.
void grouped_weight_gradient(const TrainContext& c, const GroupedLinear& g, const float* dy, const float* x);

}  // namespace lathe
