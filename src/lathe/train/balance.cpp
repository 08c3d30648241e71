#include "lathe/train/balance.h"

#include <algorithm>
#include <cmath>

#include "lathe/base/rng.h"

namespace lathe {
namespace {

constexpr uint64_t kProtectionSeed = 0x6c61746865;  // of the hash of sequence ids

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// What one sequence (or the whole batch) adds, with weight `share`.
void add_losses(const BalanceOptions& o, const BalanceMeans& means, double share, BalanceLosses& losses) {
  losses.expert += share * o.alpha1 * dot(means.f, means.P);                     // Eq. 23
  losses.device += share * o.alpha2 * dot(means.f_device, means.P_device);       // Eq. 26
  losses.communication += share * o.alpha3 * dot(means.f_comm, means.P_device);  // Eq. 29
  losses.sequence += share * o.alpha_v3 * dot(means.f, means.P);
}

}  // namespace

BalanceMeans balance_means(const BalanceOptions& o,
                           std::span<const float> scores_TE,
                           std::span<const int32_t> experts_TK) {
  const auto E = static_cast<size_t>(o.experts);
  const auto K = static_cast<size_t>(o.chosen);
  const auto D = static_cast<size_t>(o.devices);
  const size_t T = scores_TE.size() / E;
  const size_t per_device = E / D;
  BalanceMeans means{std::vector<double>(E),
                     std::vector<double>(E),
                     std::vector<double>(D),
                     std::vector<double>(D),
                     std::vector<double>(D)};
  for (size_t t = 0; t < T; ++t) {
    const float* s = scores_TE.data() + t * E;
    double sum = 1.0;
    if (o.scoring_func == ScoringFunc::kSigmoid) {
      sum = 0.0;
      for (size_t i = 0; i < E; ++i) sum += s[i];
    }
    for (size_t i = 0; i < E; ++i) means.P[i] += s[i] / sum;
    size_t last = D;  // ids ascend, so a device's experts are neighbours
    for (size_t k = 0; k < K; ++k) {
      const auto i = static_cast<size_t>(experts_TK[t * K + k]);
      means.f[i] += 1.0;
      if (i / per_device != last) means.f_comm[i / per_device] += 1.0;
      last = i / per_device;
    }
  }
  const auto tokens = static_cast<double>(T);
  for (size_t i = 0; i < E; ++i) {
    means.f[i] *= static_cast<double>(E) / (static_cast<double>(K) * tokens);
    means.P[i] /= tokens;
    means.f_device[i / per_device] += means.f[i] / static_cast<double>(per_device);
    means.P_device[i / per_device] += means.P[i];
  }
  for (double& f : means.f_comm) f *= static_cast<double>(D) / (static_cast<double>(o.device_limit) * tokens);
  return means;
}

BalanceLosses balance_losses(const BalanceOptions& o,
                             std::span<const int64_t> sequences,
                             std::span<const float> scores_TE,
                             std::span<const int32_t> experts_TK) {
  const auto E = static_cast<size_t>(o.experts);
  const auto K = static_cast<size_t>(o.chosen);
  const size_t per_device = E / static_cast<size_t>(o.devices);
  const size_t T = scores_TE.size() / E;
  const int64_t whole[] = {0};
  const std::span<const int64_t> starts = o.per_sequence ? sequences : std::span<const int64_t>(whole);
  BalanceLosses losses;
  losses.slope.resize(starts.size() * E);
  const double share = 1.0 / static_cast<double>(starts.size());
  for (size_t b = 0; b < starts.size(); ++b) {
    const auto first = static_cast<size_t>(starts[b]);
    const size_t count = (b + 1 < starts.size() ? static_cast<size_t>(starts[b + 1]) : T) - first;
    const BalanceMeans means =
        balance_means(o, scores_TE.subspan(first * E, count * E), experts_TK.subspan(first * K, count * K));
    add_losses(o, means, share, losses);
    for (size_t i = 0; i < E; ++i) {
      const size_t d = i / per_device;
      const double g = (o.alpha1 + o.alpha_v3) * means.f[i] + o.alpha2 * means.f_device[d] + o.alpha3 * means.f_comm[d];
      losses.slope[b * E + i] = share * g / static_cast<double>(count);
    }
  }
  return losses;
}

int64_t drop_assignments(const DropArgs& a, std::span<uint8_t> kept_TK) {
  std::ranges::fill(kept_TK, uint8_t{1});
  const auto E = static_cast<size_t>(a.experts);
  const auto K = static_cast<size_t>(a.chosen);
  const int64_t per_device = a.experts / a.devices;
  const auto score = [&](size_t assignment) {
    return a.scores_TE[assignment / K * E + static_cast<size_t>(a.experts_TK[assignment])];
  };
  int64_t dropped = 0;
  std::vector<size_t> candidates;
  for (int64_t device = 0; device < a.devices; ++device) {
    int64_t load = 0;
    candidates.clear();
    for (size_t i = 0; i < kept_TK.size(); ++i) {
      if (a.experts_TK[i] / per_device != device) continue;
      ++load;
      if (a.is_protected_T[i / K] == 0) candidates.push_back(i);
    }
    const int64_t excess = std::min(std::max<int64_t>(load - a.budget, 0), static_cast<int64_t>(candidates.size()));
    if (excess == 0) continue;
    std::ranges::sort(candidates, [&](size_t x, size_t y) {
      const float sx = score(x);
      const float sy = score(y);
      return sx != sy ? sx < sy : x > y;
    });
    for (int64_t i = 0; i < excess; ++i) kept_TK[candidates[static_cast<size_t>(i)]] = 0;
    dropped += excess;
  }
  return dropped;
}

int64_t device_budget(int64_t tokens, int64_t chosen, int64_t devices, double capacity_factor) {
  const double average = static_cast<double>(chosen * tokens) / static_cast<double>(devices);
  return static_cast<int64_t>(std::floor(capacity_factor * average));
}

bool is_protected_sequence(uint64_t sequence_id, double fraction) {
  return uniform(kProtectionSeed, sequence_id, 0) < fraction;
}

}  // namespace lathe
