// The head of training: logits, softmax cross entropy and both derivatives for a few rows at a time, so that the logits
// of a batch never exist at once; and the embedding's derivative.
#pragma once

#include <cstdint>
#include <span>

#include "lathe/train/matmul.h"

namespace lathe {

// Rows of logits that exist at a time: about 2^21 values, at least 32 and at most 512 rows. Part of the order of sums.
int64_t head_rows(int64_t vocab_size);

// One pass over the head; buffers are the caller's.
struct HeadArgs {
  int64_t hidden = 0;
  int64_t vocab = 0;
  Trained head;                      // [V, d]
  const float* x = nullptr;          // [T, d], final-normed
  std::span<const int32_t> targets;  // [T], negative: not counted
  std::span<const float> weights;    // [T], or empty
  double factor = 0.0;               // of each target's loss in the gradient
  float* dx = nullptr;               // [T, d], stored; null: no gradient
  std::span<float> token_losses;     // [T]: cross entropy of each target, without weight
  float* logits = nullptr;           // [head_rows, V]
  float* rows = nullptr;             // [head_rows, d]: inputs of the counted targets
  float* drows = nullptr;            // [head_rows, d]
};

// Sum of weight * cross entropy over the counted targets, in double, in order.
double head_cross_entropy(const TrainContext& c, const HeadArgs& args);

// dE[id] += dx of every token with that id, in order of the tokens.
void embedding_backward(
    const TrainContext& c, std::span<const int32_t> token_ids, const float* dx, int64_t hidden, float* gradient);

}  // namespace lathe
