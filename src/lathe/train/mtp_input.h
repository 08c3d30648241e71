// The input of a multi-token prediction layer, forward and backward: W^eh [RMSNorm(E[following token]); RMSNorm(h)].
#pragma once

#include <cstdint>
#include <span>

#include "lathe/train/trained_weights.h"

namespace lathe {

// One pass over R rows; `tokens` (its token_ids) and `rows` as MtpRows has them.
struct MtpInputPass {
  const TrainContext& c;
  const TrainedMtp& p;
  const Trained& embed_tokens;      // [V, d]
  std::span<const int32_t> tokens;  // [R]
  std::span<const int64_t> rows;    // [R]
  const float* h;                   // [T, d], final-normed
};

class MtpInput {
 public:
  MtpInput(int64_t hidden, double eps) : hidden_(hidden), eps_(eps) {}

  // Buffers for that many rows.
  void take(TrainArena& arena, int64_t tokens);

  // out [R, d]. What the backward pass reads stays in the buffers.
  void forward(const MtpInputPass& pass, float* out) const;
  // From dout [R, d]: dh [T, d] is added to at `rows`, as are the gradients of the parameters.
  void backward(const MtpInputPass& pass, const float* dout, float* dh) const;

 private:
  int64_t hidden_;
  double eps_;
  float* embedded_ = nullptr;  // [R, d]
  float* h_ = nullptr;         // [R, d]
  float* joined_ = nullptr;    // [R, 2 d]
  float* djoined_ = nullptr;   // [R, 2 d]
  float* dx_ = nullptr;        // [R, d]
  float* partials_ = nullptr;  // column_sum_floats(R, d)
};

}  // namespace lathe
