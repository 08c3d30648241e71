// What one forward pass has to read and to compute, by counting: the denominator of every share of a machine's
// bandwidth or peak that `lathe bench` prints.
#pragma once

#include <cstdint>

#include "lathe/model/backend.h"
#include "lathe/model/weights.h"

namespace lathe {

// One chunk of one sequence, as a step has it.
struct PassShape {
  int64_t tokens = 1;
  int64_t position = 0;        // of the first token: that many are in the cache
  int64_t expanded_until = 0;  // see canonical_expanded_until()
  int64_t logit_rows = 0;
};

struct PassCost {
  double bytes = 0.0;       // weights as stored and cache rows, each counted once
  double operations = 0.0;  // a multiply and an add are two

  PassCost& operator+=(const PassCost& other) {
    bytes += other.bytes;
    operations += other.operations;
    return *this;
  }
};

// Bytes that a matrix takes in memory, the scales of FP8 blocks included.
double stored_bytes(const WeightMatrix& matrix);

// Counts for uniform routing: T tokens touch N_r (1 - (1 - K / N_r)^T) experts of a layer. Rows of the embedding,
// norms and biases count as bytes; of the operations only products do (weights, attention, the expansion of latents).
PassCost pass_cost(const ModelWeights& weights, const CacheLayout& cache, const PassShape& pass);

}  // namespace lathe
