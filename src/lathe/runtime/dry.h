// DRY ("don't repeat yourself"; P. E. Weidmann 2024, text-generation-webui pull request 5677): a token that would
// continue a sequence of tokens which stood there before loses
//   multiplier * base^(L - allowed_length)
// from its logit, where L is the length of the longest such sequence, if L is at least allowed_length. What repeats is
// held back the more the longer it is; single words that come again, names above all, are not touched, as they are by
// the repetition penalty. No sequence reaches over a breaker, and breakers themselves lose nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/model/generation_defaults.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

inline constexpr int64_t kMaxDryBreakers = 64;

struct DryParams {
  double multiplier = 0.0;     // [0, kMaxDryMultiplier]; 0: off
  double base = 1.75;          // [1, kMaxDryBase]
  int64_t allowed_length = 2;  // [1, kMaxDryLength] tokens
  int64_t last_n = -1;         // of prompt and output the last so many tokens are looked at; -1: all
  std::vector<std::string> breakers = {"\n", ":", "\"", "*"};
};

// Ranges of every field; the message names the field, its range and the value.
Status validate(const DryParams& params);

// By id: tokens whose bytes contain one of `texts`, none of which is empty. Without a tokenizer there are none.
std::vector<bool> tokens_with(const Tokenizer* tokenizer, std::span<const std::string> texts);

// A token that has followed a sequence which the end of a text repeats, and how long that sequence is.
struct Repetition {
  int32_t id = 0;
  int64_t length = 0;  // of the longest
};

// All of them whose length is at least `least` (>= 1), ascending by id. `breakers` by id; ids beyond it are none. Time
// is linear in the history, apart from sorting what is found.
std::vector<Repetition> repetitions(std::span<const int32_t> history, const std::vector<bool>& breakers, int64_t least);

// The penalty for one sequence.
class DryPenalty {
 public:
  // `breakers` may be null: none. Off when the multiplier is 0.
  DryPenalty(DryParams params, std::span<const int32_t> prompt, std::shared_ptr<const std::vector<bool>> breakers);

  // A token of the output.
  void add(int32_t id);

  // On the logits [V] of the next token.
  void apply(std::span<float> logits) const;

 private:
  DryParams params_;
  std::shared_ptr<const std::vector<bool>> breakers_;
  std::vector<int32_t> history_;  // empty while the penalty is off
};

}  // namespace lathe
