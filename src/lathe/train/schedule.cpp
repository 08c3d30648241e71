#include "lathe/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lathe::train {

Schedule::Schedule(const Recipe& recipe) : schedule_(recipe.schedule), train_(recipe.train) {
  int64_t step = 0;
  // During the ramp step by step, after it all at once.
  for (; step < train_.max_steps && total_tokens_ < train_.batch_ramp_tokens; ++step) {
    total_tokens_ += rows(total_tokens_) * train_.sequence_length;
  }
  total_tokens_ += (train_.max_steps - step) * train_.batch_sequences * train_.sequence_length;
}

int64_t Schedule::rows(int64_t tokens) const {
  if (train_.batch_sequences_start == 0 || tokens >= train_.batch_ramp_tokens) return train_.batch_sequences;
  const double share = static_cast<double>(tokens) / static_cast<double>(train_.batch_ramp_tokens);
  const auto grown = static_cast<double>(train_.batch_sequences - train_.batch_sequences_start);
  return train_.batch_sequences_start + static_cast<int64_t>(std::floor(share * grown));
}

double Schedule::learning_rate(int64_t step, int64_t tokens) const {
  const double warmup =
      step < schedule_.warmup_steps ? static_cast<double>(step + 1) / static_cast<double>(schedule_.warmup_steps) : 1.0;
  const double done = static_cast<double>(tokens) / static_cast<double>(total_tokens_);
  double decay = 1.0;
  if (schedule_.kind == ScheduleKind::kStep) {
    for (const double at : schedule_.steps) decay *= done >= at ? schedule_.step_factor : 1.0;
  }
  if (schedule_.kind == ScheduleKind::kCosine && done > schedule_.decay_start) {
    const double share = std::min(1.0, (done - schedule_.decay_start) / (1.0 - schedule_.decay_start));
    const double wave = 0.5 * (1.0 + std::cos(std::numbers::pi * share));
    decay = schedule_.final_ratio + (1.0 - schedule_.final_ratio) * wave;
  }
  return schedule_.learning_rate * warmup * decay;
}

}  // namespace lathe::train
