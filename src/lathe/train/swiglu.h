// SwiGLU of training: y = W_down (silu(W_gate x) * W_up x), with W_gate and W_up as one matrix [2 w, d].
#pragma once

#include <cstdint>

#include "lathe/train/matmul.h"

namespace lathe {

struct SwigluParameters {
  Trained gate_up;  // [2 w, d]
  Trained down;     // [d, w]
};

// x and y are [rows, hidden].
struct SwigluSize {
  int64_t rows = 0;
  int64_t hidden = 0;
  int64_t width = 0;
};

// gate_up [rows, 2 w] stays for the backward pass, act [rows, w] is scratch of both passes.
void swiglu_train_forward(const TrainContext& c,
                          const SwigluSize& size,
                          const SwigluParameters& p,
                          const float* x,
                          float* gate_up,
                          float* act,
                          float* y,
                          Sum sum);

// Operands of the backward pass.
struct SwigluBackward {
  const float* x = nullptr;
  const float* dy = nullptr;
  float* gate_up = nullptr;  // of the forward pass; becomes its gradient
  float* act = nullptr;      // scratch [rows, w]
  float* dact = nullptr;     // scratch [rows, w]
  float* dx = nullptr;
  Sum sum = Sum::kStore;
};

// Adds to the gradients of p.
void swiglu_train_backward(const TrainContext& c,
                           const SwigluSize& size,
                           const SwigluParameters& p,
                           const SwigluBackward& args);

// act = silu(gate) * up of every row of gate_up.
void activate(const TrainContext& c, int64_t rows, int64_t width, const float* gate_up, float* act);
// gate_up becomes the gradient of itself, given that of act.
void activate_backward(const TrainContext& c, int64_t rows, int64_t width, const float* dact, float* gate_up);

}  // namespace lathe
