// Steps that both attention blocks share: a projection with its optional bias and their gradients, and the rotation of
// heads by position.
#pragma once

#include <cstdint>

#include "lathe/train/attention_block.h"

namespace lathe {

// y = x W^T + bias.
void project_forward(
    const TrainContext& c, const LinearSize& size, const float* x, const Trained& w, const Trained& bias, float* y);

// dW += dy^T x, dbias += sum of dy, dx (+)= dy W.
struct ProjectBackward {
  LinearSize size;
  const float* x = nullptr;
  const float* dy = nullptr;
  float* dx = nullptr;
  Sum sum = Sum::kStore;
  float* partials = nullptr;
};

// See ProjectBackward.
void project_backward(const TrainContext& c, const ProjectBackward& args, const Trained& w, const Trained& bias);

// Rotates `heads` vectors of 2 pairs values per token: head i at x + t * row + i * head_step.
struct RotateArgs {
  float* x = nullptr;
  int64_t row = 0;
  int64_t heads = 1;
  int64_t head_step = 0;
  bool interleaved = true;
  bool back = false;  // by the negative angle: the derivative of the rotation
};

// Eq. 14, 15 (39, 43); see RotateArgs.
void rotate(const TrainContext& c, const AttentionBatch& batch, const RotateArgs& args);

}  // namespace lathe
