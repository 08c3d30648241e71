// Sampling: from the logits of one position to the next token. A choice depends on the logits, the request's
// parameters, its seed, its constraint, what was written before and the position alone. Order: repetition, presence and
// frequency penalties, DRY, logit bias, ids without a token (trap T14), ids that the constraint does not allow and ids
// held back masked, temperature, top-k, top-p, min-p, draw. Temperature 0 is greedy, ties to the lowest id.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/model/generation_defaults.h"
#include "lathe/runtime/dry.h"
#include "lathe/tokenizer/token_constraint.h"

namespace lathe {

struct SamplingParams {
  double temperature = 1.0;                                 // 0: greedy
  int64_t top_k = 0;                                        // 0: off
  double top_p = 1.0;                                       // (0, 1]
  double min_p = 0.0;                                       // [0, 1]; relative to the most likely token
  double repetition_penalty = 1.0;                          // > 0; over prompt and output
  double presence_penalty = 0.0;                            // [-2, 2]; over the output
  double frequency_penalty = 0.0;                           // [-2, 2]; over the output
  DryParams dry = {};                                       // over prompt and output
  std::vector<std::pair<int32_t, double>> logit_bias = {};  // [-100, 100] each
  uint64_t seed = 0;
  int64_t logprobs = -1;  // top alternatives per token to report, -1: none
};

// What the model's authors recommend: generation_config.json's values when it says do_sample, else greedy; a
// `temperature` goes over theirs. Greedy answers have no DRY penalty, so that they are the model's likeliest tokens.
// The seed is 0.
SamplingParams default_sampling(const GenerationDefaults& defaults, std::optional<double> temperature = {});

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
  // `usable` (may be null: all) tells which ids have a token, `constraint` (may be null) which may be chosen next. Both
  // are borrowed. `breakers`: the ids that params.dry.breakers stand for (tokens_with()); null: none.
  Sampler(SamplingParams params,
          std::span<const int32_t> prompt,
          const std::vector<bool>* usable,
          TokenConstraint* constraint = nullptr,
          std::shared_ptr<const std::vector<bool>> breakers = nullptr);

  // Before output index `until` none of `ids` is chosen, as long as there is anything else to choose.
  void hold_back(std::vector<int32_t> ids, int64_t until);

  // Chooses the token for output index `index` (0 for the first) and tells the constraint. `logits` [V] is overwritten.
  // Fails when a logit is NaN or +infinity, which means that the model or its weights are broken, and when the
  // constraint leaves no token to choose.
  Result<SampledToken> sample(std::span<float> logits, int64_t index);

 private:
  void penalise(std::span<float> logits) const;
  void mask(std::span<float> logits);
  void mask_held_back(std::span<float> logits) const;
  void count(int32_t id);
  int32_t draw(std::span<const float> logits, int64_t index);

  SamplingParams params_;
  const std::vector<bool>* usable_;
  TokenConstraint* constraint_;
  DryPenalty dry_;
  std::vector<int32_t> held_back_;                          // sorted
  int64_t held_until_ = 0;                                  // output index
  std::vector<uint64_t> allowed_;                           // what the constraint said last
  std::vector<std::pair<int32_t, int32_t>> output_counts_;  // id -> times in the output, sorted by id
  std::vector<int32_t> seen_;                               // distinct ids of prompt and output, sorted
  std::vector<std::pair<float, int32_t>> candidates_;       // scratch of draw()
};

// What the model gave `id` and its `top` most likely tokens, under unchanged logits [V].
SampledToken describe_token(std::span<const float> logits, int32_t id, int64_t top);

// Fails when a logit is NaN or +infinity; `where` names the row: "output 3".
Status check_logits(std::span<const float> logits, std::string_view where);

// Position of the largest value, the lowest on ties; -infinity never wins unless all are.
int32_t argmax(std::span<const float> values);

// log sum exp of the values, in double.
double log_sum_exp(std::span<const float> values);

}  // namespace lathe
