// Notices steps that would harm a model: a loss or gradient that is not finite, or a loss far above its running mean.
#pragma once

#include <cstdint>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/train/recipe.h"

namespace lathe::train {

class SpikeGuard {
 public:
  explicit SpikeGuard(const GuardRecipe& recipe) : recipe_(recipe) {}

  // Judges a step before its update. A good one enters the running mean; a bad one does not.
  bool is_bad(double loss, double gradient_norm);

  // Bad steps one after the other.
  int64_t in_a_row() const { return in_a_row_; }

  int64_t bad_steps() const { return bad_steps_; }

  double mean() const { return mean_; }

  // For checkpoints: doubles come back bit for bit.
  Json state() const;
  Status restore(const Json& state);

 private:
  GuardRecipe recipe_;
  int64_t count_ = 0;
  double mean_ = 0.0;
  double variance_ = 0.0;
  int64_t in_a_row_ = 0;
  int64_t bad_steps_ = 0;
};

}  // namespace lathe::train
