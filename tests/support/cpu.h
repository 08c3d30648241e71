// CpuBench: thread pool and workspace, for tests that call operations of the CPU without an engine.
#pragma once

#include <memory>

#include "lathe/kernels/linear.h"

namespace lathe::testing {

class CpuBench {
 public:
  CpuBench(int threads, int64_t floats, const KernelTable& kernels = lathe::kernels())
      : kernels_(kernels), pool_(ThreadPool::create(threads).value()), workspace_(Workspace::create(floats).value()) {}

  // Borrows from this object.
  CpuContext context() { return {kernels_, *pool_, workspace_}; }

 private:
  const KernelTable& kernels_;
  std::unique_ptr<ThreadPool> pool_;
  Workspace workspace_;
};

// A dense fp32 matrix [rows, cols] over values that outlive it.
inline WeightMatrix matrix_of(const std::vector<float>& values, int64_t rows, int64_t cols) {
  return {.dtype = DType::kF32,
          .rows = rows,
          .cols = cols,
          .data = reinterpret_cast<const std::byte*>(values.data()),
          .stride = 0,
          .scales = nullptr};
}

}  // namespace lathe::testing
