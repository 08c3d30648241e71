// RMSNorm of rows and its backward pass: y = w x / sqrt(mean(x^2) + eps).
#pragma once

#include <cstdint>

#include "lathe/train/matmul.h"
#include "lathe/train/train_context.h"

namespace lathe {

// Rows of n values; strides are in floats.
struct NormRows {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t rows = 0;
  int64_t n = 0;
  double eps = 0.0;
};

// y: rows y_stride floats apart.
void norm_forward(const TrainContext& c, const NormRows& rows, const float* weight, float* y, int64_t y_stride);

// dx (+)= d(loss)/dx for dy, with rows dx_stride apart, and dweight += its sum over rows: blocks of kColumnSumRows rows
// into `partials` (column_sum_floats(rows, n)), added in order.
struct NormBackward {
  NormRows rows;
  Trained weight;
  const float* dy = nullptr;
  int64_t dy_stride = 0;
  float* dx = nullptr;
  int64_t dx_stride = 0;
  Sum sum = Sum::kStore;
  float* partials = nullptr;
};

// See NormBackward.
void norm_backward(const TrainContext& c, const NormBackward& args);

}  // namespace lathe
