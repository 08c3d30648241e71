// Linear layers over a thread pool. Work is split by output rows only, so results never depend on the thread count.
// Matrices multiply as they are stored: plain types with fp32 activations, packed block formats with int8 activations
// (QuantisedRows), which these functions make where a packed matrix asks for them.
#pragma once

#include <span>

#include "lathe/base/thread_pool.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/tensor/workspace.h"

namespace lathe {

// What a CPU operation computes with: borrowed, passed by reference, one per engine.
struct CpuContext {
  const KernelTable& kernels;
  ThreadPool& pool;
  Workspace& workspace;
};

// Workspace floats of quantised activations [rows, cols].
int64_t quantised_floats(int64_t rows, int64_t cols);
// Takes them from the workspace without writing them.
QuantisedRows take_quantised(Workspace& workspace, int64_t rows, int64_t cols);
// Quantises x[rows, cols] (rows dense) into the workspace; columns must be whole blocks.
QuantisedRows quantise_activations(const CpuContext& cpu, const float* x, int64_t rows, int64_t cols);
// Row `first` of rows as their row 0.
QuantisedRows rows_from(const QuantisedRows& rows, int64_t first);

// One product of a parallel region: y[t, 0..w.rows) = w x[t]. A packed w reads `quantised` (its row x_rows[t], or t
// where x_rows is null), any other w reads x, whose rows are dense.
struct LinearJob {
  WeightMatrix w;
  const float* x = nullptr;  // [tokens, w.cols]
  QuantisedRows quantised;
  const int32_t* x_rows = nullptr;
  int64_t tokens = 0;
  float* y = nullptr;  // rows y_stride floats apart
  int64_t y_stride = 0;
};

// Runs all products in one parallel region; their output rows are laid end to end and split evenly by cost. Outputs
// must not overlap.
void run_jobs(const CpuContext& cpu, std::span<const LinearJob> jobs);

// One of several products of the same input: rows of y are y_stride floats apart.
struct LinearOutput {
  WeightMatrix w;
  float* y = nullptr;
  int64_t y_stride = 0;
};

// run_jobs for products of one input x[tokens, cols], which is quantised once when a matrix needs it: the workspace
// must hold quantised_floats(tokens, cols). At most four outputs.
void run_linear(const CpuContext& cpu, const float* x, int64_t tokens, std::span<const LinearOutput> outputs);

// y[T, rows] = x[T, cols] W^T (+ bias), dense rows; workspace as run_linear.
void linear(const CpuContext& cpu, const WeightMatrix& w, const float* bias, const float* x, int64_t tokens, float* y);

// Adds bias[n] to every row of y[T, n]; does nothing when bias is null.
void add_bias(const CpuContext& cpu, const float* bias, float* y, int64_t tokens, int64_t n);

// One SwiGLU per job: out[t, gate.rows] = silu(gate x) * (up x), gate and up split together by rows so that one
// parallel region does all steps. Inputs as in LinearJob. With `out_quantised` the result is quantised too, for a
// packed product that follows.
struct GatedJob {
  WeightMatrix gate;
  WeightMatrix up;
  const float* x = nullptr;  // [tokens, gate.cols]
  QuantisedRows quantised;
  const int32_t* x_rows = nullptr;
  int64_t tokens = 0;
  float* out = nullptr;         // [tokens, gate.rows]
  float* up_scratch = nullptr;  // [tokens, gate.rows]
  QuantisedRows out_quantised;  // data null: not wanted
};

// Runs all jobs in one parallel region, as run_jobs does.
void run_gated(const CpuContext& cpu, std::span<const GatedJob> jobs);

}  // namespace lathe
