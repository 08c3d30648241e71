// What the operations of a training step share: kernels, threads, scratch of products, and the arena their buffers come
// from.
#pragma once

#include <cstdint>

#include "lathe/base/thread_pool.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/tensor/workspace.h"

namespace lathe {

struct TrainContext {
  const KernelTable& kernels;
  ThreadPool& pool;
  float* products = nullptr;  // [threads][kSgemmScratchFloats]

  // Scratch of a product that this thread runs alone.
  float* scratch(int thread) const { return products + thread * kSgemmScratchFloats; }
};

// Hands out one allocation piece by piece, or counts what the pieces need when there is none yet: the same code plans
// the memory and divides it.
class TrainArena {
 public:
  explicit TrainArena(float* memory = nullptr) : memory_(memory) {}

  // Aligned to a cache line; null while counting.
  float* take(int64_t count) {
    float* out = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += Workspace::padded(count);
    return out;
  }

  int32_t* take_integers(int64_t count) { return reinterpret_cast<int32_t*>(take(count)); }

  int64_t used() const { return used_; }  // floats

 private:
  float* memory_;
  int64_t used_ = 0;
};

// A trained tensor: its place in the values and in the gradients.
struct Trained {
  float* value = nullptr;
  float* gradient = nullptr;

  bool empty() const { return value == nullptr; }
};

// <a, b> in eight sums, by index mod 8, that are added in order.
inline float dot(const float* a, const float* b, int64_t n) {
  constexpr int64_t kSums = 8;
  float sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (int64_t j = 0; j < kSums; ++j) sums[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) sums[i % kSums] += a[i] * b[i];
  float sum = 0.0F;
  for (const float part : sums) sum += part;
  return sum;
}

// Rows from which on another thread pays in elementwise work on rows of n floats.
constexpr int64_t row_grain(int64_t n) {
  return n >= 16384 ? 1 : 16384 / (n > 0 ? n : 1);
}

}  // namespace lathe
