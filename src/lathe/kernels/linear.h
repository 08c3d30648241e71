// Linear layers over a thread pool. Work is split by output rows only, so results never depend on the thread count.
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

// Runs all products in one parallel region; their output rows are laid end to end and split evenly by cost. Outputs
// must not overlap. y of each job points to the output of row_begin.
void run_gemms(const CpuContext& cpu, std::span<const GemmArgs> jobs);

// The product with all rows of w: y[t, 0..w.rows) for x[tokens, w.cols] with dense rows; rows of y are y_stride apart.
GemmArgs whole_product(const WeightMatrix& w, const float* x, int64_t tokens, float* y, int64_t y_stride);

// y[T, rows] = x[T, cols] W^T (+ bias), dense rows.
void linear(const CpuContext& cpu, const WeightMatrix& w, const float* bias, const float* x, int64_t tokens, float* y);

// Adds bias[n] to every row of y[T, n]; does nothing when bias is null.
void add_bias(const CpuContext& cpu, const float* bias, float* y, int64_t tokens, int64_t n);

// One SwiGLU per job: out[t, row_end - row_begin] = silu(gate x) * (up x), gate and up split together by rows so that
// one parallel region does all three steps. `out` has rows out_stride apart.
struct GatedJob {
  WeightMatrix gate;
  WeightMatrix up;
  const float* x = nullptr;  // [tokens, gate.cols]
  int64_t tokens = 0;
  float* out = nullptr;         // [tokens, gate.rows]
  float* up_scratch = nullptr;  // [tokens, gate.rows]
};

// Runs all jobs in one parallel region, as run_gemms does.
void run_gated(const CpuContext& cpu, std::span<const GatedJob> jobs);

}  // namespace lathe
