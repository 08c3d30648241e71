// What changes over a run: learning rate and batch size, as functions of the step.
#pragma once

#include <cstdint>

#include "lathe/train/recipe.h"

namespace lathe::train {

// Sizes of all steps, known in advance, since the learning rate goes by the share of all tokens that is done.
class Schedule {
 public:
  explicit Schedule(const Recipe& recipe);

  // Rows of step `step` (from 0) when `tokens` were trained on before it: linear in tokens over the ramp.
  int64_t rows(int64_t tokens) const;

  // Rate of step `step` (from 0): linear warm-up over steps, times the decay by the share of tokens done before it.
  double learning_rate(int64_t step, int64_t tokens) const;

  int64_t total_tokens() const { return total_tokens_; }

 private:
  ScheduleRecipe schedule_;
  TrainRecipe train_;
  int64_t total_tokens_ = 0;
};

}  // namespace lathe::train
