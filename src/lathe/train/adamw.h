// AdamW with decoupled weight decay (spec: m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2,
// theta <- theta - lr (m^ / (sqrt(v^) + eps) + decay theta), bias-corrected), over the flat arrays of a ParameterSet.
#pragma once

#include <cstdint>
#include <span>

#include "lathe/base/result.h"
#include "lathe/base/thread_pool.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/train/parameters.h"

namespace lathe {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;    // of parameters with `decay`
  bool hidden_matrices = true;  // false: leaves them alone, values and moments (muon.h)
};

class AdamW {
 public:
  // Moments are zero and no step was made. `pool` and `kernels` outlive the optimizer.
  static Result<AdamW> create(const AdamWOptions& options,
                              int64_t size,  // ParameterSet::size()
                              ThreadPool& pool,
                              const KernelTable& kernels);

  // One update of the values from gradient_factor * gradients; the gradients stay as they are.
  void step(ParameterSet& parameters, double learning_rate, double gradient_factor = 1.0);

  // L2 norm of all gradients: double sums over fixed blocks, added in order; the same for any number of threads.
  double global_norm(const ParameterSet& parameters) const;

  // The factor that brings gradients of this norm to at most max_norm; 1 without a limit (max_norm <= 0).
  static double clip_factor(double norm, double max_norm);

  // State for checkpoints: restoring steps and both moments makes the next step bit-equal.
  int64_t steps() const { return steps_; }

  void set_steps(int64_t steps) { steps_ = steps; }

  std::span<float> first_moments() { return {first_, static_cast<size_t>(size_)}; }

  std::span<float> second_moments() { return {second_, static_cast<size_t>(size_)}; }

 private:
  AdamWOptions options_;
  ThreadPool* pool_ = nullptr;
  const KernelTable* kernels_ = nullptr;
  Workspace memory_;
  float* first_ = nullptr;
  float* second_ = nullptr;
  int64_t size_ = 0;
  int64_t steps_ = 0;
};

}  // namespace lathe
