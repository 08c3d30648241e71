// What `lathe verify` looks at, in groups that need more and more of the checkpoint.
#pragma once

#include <optional>

#include "lathe/base/thread_pool.h"
#include "lathe/cli/verify_report.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/model/config.h"
#include "lathe/model/model_files.h"
#include "lathe/model/weights.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe::cli {

// Position embedding and softmax scale in force, with their constants; cache row.
void verify_formulas(const ModelConfig& config, VerifyReport& report);

// Every tensor in use holds finite values only; names the first offender.
void verify_finite(const ModelWeights& weights, ThreadPool& pool, VerifyReport& report);

// Vocabulary, special tokens, round trip, chat template. Returns the tokenizer when there is a usable one.
const Tokenizer* verify_tokenizer(const ModelFiles& files,
                                  const ModelConfig& config,
                                  std::optional<Tokenizer>& tokenizer,
                                  VerifyReport& report);

// absorbed = expanded = reference logits (or fast = reference for MHA, GQA, MQA) on a short prompt.
void verify_logits(const ModelWeights& weights, const Tokenizer* tokenizer, ThreadPool& pool, VerifyReport& report);

}  // namespace lathe::cli
