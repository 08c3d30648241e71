// AnswerFormat: what --json-schema and --json-object demand of the text of answers, as constraints on their tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "lathe/base/result.h"
#include "lathe/cli/options.h"
#include "lathe/constrain/constraint_cache.h"
#include "lathe/runtime/engine.h"

namespace lathe::cli {

class AnswerFormat {
 public:
  AnswerFormat() = default;  // any text

  // Reads and compiles what `flags` name; with neither given, any text will do. `engine` is borrowed by the result.
  static Result<AnswerFormat> open(const FormatFlags& flags, const Engine& engine);

  bool is_any_text() const { return masks_ == nullptr; }

  // The constraint of one answer; null: any text. In a chat whose prompt ends with <think> it begins behind </think>.
  Result<std::shared_ptr<TokenConstraint>> begin(std::span<const int32_t> prompt, bool chat) const;

 private:
  const char* option_ = "";  // the one that was given
  const Tokenizer* tokenizer_ = nullptr;
  std::unique_ptr<ConstraintCache> cache_;
  std::shared_ptr<GrammarMasks> masks_;
};

}  // namespace lathe::cli
