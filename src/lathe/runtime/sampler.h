// Sampling: from the logits of one position to the next token. A choice depends on the logits, the request's
// parameters, its seed and the position alone. Order: repetition, presence and frequency penalties, logit bias, ids
// without a token masked (trap T14), temperature, top-k, top-p, min-p, draw. Temperature 0 is greedy, ties to the
// lowest id.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "lathe/base/result.h"

namespace lathe {

struct SamplingParams {
  double temperature = 1.0;                                 // 0: greedy
  int64_t top_k = 0;                                        // 0: off
  double top_p = 1.0;                                       // (0, 1]
  double min_p = 0.0;                                       // [0, 1]; relative to the most likely token
  double repetition_penalty = 1.0;                          // > 0; over prompt and output
  double presence_penalty = 0.0;                            // [-2, 2]; over the output
  double frequency_penalty = 0.0;                           // [-2, 2]; over the output
  std::vector<std::pair<int32_t, double>> logit_bias = {};  // [-100, 100] each
  uint64_t seed = 0;
  int64_t logprobs = -1;  // top alternatives per token to report, -1: none
};

// Ranges of every field; the message names the field, its range and the value.
Status validate(const SamplingParams& params, int64_t vocab_size);

struct TokenLogprob {
  int32_t id = 0;
  double logprob = 0.0;  // natural log under the model's own distribution (before penalties and temperature)
};

struct SampledToken {
  int32_t id = 0;
  double logprob = 0.0;           // filled when logprobs >= 0
  std::vector<TokenLogprob> top;  // `logprobs` most likely tokens, best first
};

// Sampling state of one sequence.
class Sampler {
 public:
  // `usable` (may be empty: all) tells which ids may be chosen; borrowed.
  Sampler(SamplingParams params, std::span<const int32_t> prompt, const std::vector<bool>* usable);

  // Chooses the token for output index `index` (0 for the first). `logits` [V] is overwritten. Fails when a logit is
  // NaN or +infinity, which means that the model or its weights are broken.
  Result<SampledToken> sample(std::span<float> logits, int64_t index);

 private:
  void penalise(std::span<float> logits) const;
  int32_t draw(std::span<const float> logits, int64_t index);

  SamplingParams params_;
  const std::vector<bool>* usable_;
  std::vector<std::pair<int32_t, int32_t>> output_counts_;  // id -> times in the output, sorted by id
  std::vector<int32_t> seen_;                               // distinct ids of prompt and output, sorted
  std::vector<std::pair<float, int32_t>> candidates_;       // scratch of draw()
};

// Position of the largest value, the lowest on ties; -infinity never wins unless all are.
int32_t argmax(std::span<const float> values);

// log sum exp of the values, in double.
double log_sum_exp(std::span<const float> values);

}  // namespace lathe
