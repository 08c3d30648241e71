#include "lathe/train/step_losses.h"

#include <algorithm>
#include <numeric>

namespace lathe::train {

void StepLosses::add(const TrainLosses& losses, double share) {
  sum_.lm += losses.lm;
  sum_.targets += losses.targets;
  sum_.expert_balance += share * losses.expert_balance;
  sum_.device_balance += share * losses.device_balance;
  sum_.communication_balance += share * losses.communication_balance;
  sum_.sequence_balance += share * losses.sequence_balance;
  sum_.mtp += share * losses.mtp;
  sum_.dropped_assignments += losses.dropped_assignments;
  if (sum_.expert_load.empty()) sum_.expert_load.resize(losses.expert_load.size());
  for (size_t layer = 0; layer < losses.expert_load.size(); ++layer) {
    sum_.expert_load[layer].resize(losses.expert_load[layer].size());
    for (size_t expert = 0; expert < losses.expert_load[layer].size(); ++expert) {
      sum_.expert_load[layer][expert] += losses.expert_load[layer][expert];
    }
  }
}

double StepLosses::load_ratio() const {
  double worst = 0.0;
  for (const std::vector<int64_t>& layer : sum_.expert_load) {
    const int64_t sum = std::accumulate(layer.begin(), layer.end(), int64_t{0});
    if (sum == 0) continue;
    const int64_t most = std::ranges::max(layer);
    worst = std::max(worst, static_cast<double>(most) * static_cast<double>(layer.size()) / static_cast<double>(sum));
  }
  return worst;
}

double StepLosses::dropped_share() const {
  int64_t assignments = 0;
  for (const std::vector<int64_t>& layer : sum_.expert_load) {
    assignments = std::accumulate(layer.begin(), layer.end(), assignments);
  }
  return assignments == 0 ? 0.0 : static_cast<double>(sum_.dropped_assignments) / static_cast<double>(assignments);
}

}  // namespace lathe::train
