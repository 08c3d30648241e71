// Muon (K. Jordan 2024) as Moonlight trains with it (Liu et al. 2025, arXiv 2502.16982, section 2.2): the step of a
// matrix [rows, columns] is its momentum with all singular values brought near 1, so that directions which gradients
// seldom take are learned as fast as the others:
//   m <- mu m + g,  u = g + mu m,
//   theta <- theta - lr (0.2 sqrt(max(rows, columns)) orthogonal(u) + decay theta).
// The factor makes an element's step as large as AdamW's, so that both take the same learning rates.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/base/thread_pool.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/tensor/workspace.h"
#include "lathe/train/parameters.h"

namespace lathe {

struct MuonOptions {
  double momentum = 0.95;  // mu
  double weight_decay = 0.1;
  int64_t iterations = 5;  // of Newton-Schulz
};

// Floats that orthogonalise() works in.
int64_t orthogonalise_floats(int64_t rows, int64_t columns);

// Replaces X = U S V^T by about U V^T: X / |X| and then `iterations` times X <- a X + (b G + c G^2) X, G = X X^T, which
// maps every singular value s to a s + b s^3 + c s^5. With 5 iterations those above 1/600 of |X| end between 0.68 and
// 1.21. X is contiguous; a zero matrix stays zero. `memory`: orthogonalise_floats(), aligned to a cache line.
void orthogonalise(
    const KernelTable& kernels, int64_t rows, int64_t columns, int64_t iterations, float* x, float* memory);

// Steps of the hidden matrices of a ParameterSet (Parameter::hidden); the others are AdamW's.
class Muon {
 public:
  // `pool` and `kernels` outlive it. kResourceExhausted without memory.
  static Result<Muon> create(const MuonOptions& options,
                             std::span<const Parameter> list,
                             ThreadPool& pool,
                             const KernelTable& kernels);

  // Floats that create() takes for matrices like these.
  static int64_t memory_floats(std::span<const Parameter> list, int threads);

  // One update from gradient_factor * gradients, which stay as they are. `momenta` is as long as the flat arrays;
  // everything that one step leaves to the next is in it. Each matrix is one thread's, so threads change no bit.
  void step(ParameterSet& parameters, std::span<float> momenta, double learning_rate, double gradient_factor = 1.0);

 private:
  // The step under way.
  struct Step {
    ParameterSet& parameters;
    std::span<float> momenta;
    double learning_rate = 0.0;
    double gradient_factor = 1.0;
  };

  void step_one(const Step& step, const Parameter& p, float* memory) const;

  MuonOptions options_;
  ThreadPool* pool_ = nullptr;
  const KernelTable* kernels_ = nullptr;
  Workspace memory_;
  float* scratch_ = nullptr;  // [threads][thread_floats_]
  int64_t thread_floats_ = 0;
  std::vector<int64_t> order_;  // positions of the hidden matrices in the list, the largest first
};

}  // namespace lathe
