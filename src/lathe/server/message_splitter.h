// MessageSplitter: the tokens of a chat's answer to its parts, and how many of them were reasoning.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "lathe/chat/answer_parser.h"
#include "lathe/runtime/engine.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe::server {

// State of one answer.
class MessageSplitter {
 public:
  // `tokenizer` must outlive this.
  MessageSplitter(const Tokenizer& tokenizer, const AnswerOptions& options);

  // What became certain with these tokens and this text. The text may lag behind the tokens, and may be cut where they
  // are not (at a stop string).
  std::vector<AnswerEvent> push(const std::vector<SampledToken>& tokens, std::string_view text);

  // The rest at the end.
  std::vector<AnswerEvent> finish() { return parser_.finish(); }

  // Of the tokens so far, those from <think> to </think>, both included.
  int64_t reasoning_tokens() const { return reasoning_tokens_; }

 private:
  const Tokenizer* tokenizer_;
  AnswerParser parser_;
  std::optional<AnswerParser> counter_;  // reads token by token; until reasoning is over
  int64_t reasoning_tokens_ = 0;
};

}  // namespace lathe::server
