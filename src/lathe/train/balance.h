// Balance losses of the MoE layers (paper section 2.2.3, Eq. 23-31) and the sequence-wise one of V3, with their
// derivatives by the affinities. E experts in D groups of consecutive ones (devices), K chosen per token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lathe/moe/gate.h"

namespace lathe {

struct BalanceOptions {
  int64_t experts = 0;       // N_r
  int64_t chosen = 0;        // K_r
  int64_t devices = 1;       // D
  int64_t device_limit = 1;  // M
  ScoringFunc scoring_func = ScoringFunc::kSoftmax;
  double alpha1 = 0.0;       // Eq. 23
  double alpha2 = 0.0;       // Eq. 26
  double alpha3 = 0.0;       // Eq. 29
  double alpha_v3 = 0.0;     // sequence-wise loss of V3, of affinities divided by their sum
  bool per_sequence = true;  // seq_aux: a loss per sequence, averaged; else one over all tokens of the batch
};

// Means over T tokens. All but P are counts: constants of the derivative.
struct BalanceMeans {
  std::vector<double> f;         // [E] Eq. 24
  std::vector<double> P;         // [E] Eq. 25
  std::vector<double> f_device;  // [D] Eq. 27
  std::vector<double> P_device;  // [D] Eq. 28
  std::vector<double> f_comm;    // [D] Eq. 30; P of Eq. 31 is P_device
};

// scores [T, E]: softmax affinities, or for sigmoid gates s, which are divided by their sum here. experts [T, K].
BalanceMeans balance_means(const BalanceOptions& options,
                           std::span<const float> scores_TE,
                           std::span<const int32_t> experts_TK);

struct BalanceLosses {
  double expert = 0.0;         // Eq. 23
  double device = 0.0;         // Eq. 26
  double communication = 0.0;  // Eq. 29
  double sequence = 0.0;       // V3
  // [sequences, E]: d(sum of the losses) / d(P_i of the sequence) / T of the sequence, i.e. by one token's (divided)
  // affinity. One row when the losses are over the whole batch.
  std::vector<double> slope;
};

// Of one layer; sequences: first tokens of the training sequences, ascending from 0.
BalanceLosses balance_losses(const BalanceOptions& options,
                             std::span<const int64_t> sequences,
                             std::span<const float> scores_TE,
                             std::span<const int32_t> experts_TK);

// Token dropping (paper section 2.2.4): of the assignments that arrive at each device, those with the lowest affinity
// are dropped until the budget holds, first only of tokens that are not protected. When protected ones alone exceed the
// budget, it is exceeded. Ties: the later token goes first, then the higher expert id.
struct DropArgs {
  int64_t experts = 0;
  int64_t chosen = 0;
  int64_t devices = 1;
  int64_t budget = 0;  // assignments per device
  std::span<const float> scores_TE;
  std::span<const int32_t> experts_TK;
  std::span<const uint8_t> is_protected_T;
};

// kept [T, K] becomes 1 or 0; returns how many are dropped.
int64_t drop_assignments(const DropArgs& args, std::span<uint8_t> kept_TK);

// Average load times the capacity factor, rounded down: floor(capacity K T / D).
int64_t device_budget(int64_t tokens, int64_t chosen, int64_t devices, double capacity_factor);

// Whether a training sequence is never dropped: a hash of its identity, below `fraction`.
bool is_protected_sequence(uint64_t sequence_id, double fraction);

}  // namespace lathe
