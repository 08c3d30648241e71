// Losses of a step out of those of its passes.
#pragma once

#include <cstdint>

#include "lathe/train/train_model.h"

namespace lathe::train {

// Each pass counts by its share of the targets.
class StepLosses {
 public:
  void add(const TrainLosses& losses, double share);

  const TrainLosses& sum() const { return sum_; }

  // Nats per target.
  double mean() const { return sum_.targets == 0 ? 0.0 : sum_.lm / static_cast<double>(sum_.targets); }

  // Fullest expert over the mean, of the worst layer; 0 without experts.
  double load_ratio() const;

  // Share of assignments to experts that were dropped.
  double dropped_share() const;

 private:
  TrainLosses sum_;
};

}  // namespace lathe::train
