#include "lathe/server/message_splitter.h"

namespace lathe::server {

MessageSplitter::MessageSplitter(const Tokenizer& tokenizer, const AnswerOptions& options)
    : tokenizer_(&tokenizer), parser_(options) {
  if (options.reasoning) counter_.emplace(options);
}

std::vector<AnswerEvent> MessageSplitter::push(const std::vector<SampledToken>& tokens, std::string_view text) {
  for (const SampledToken& token : tokens) {
    if (!counter_) break;
    const bool before = counter_->in_reasoning();
    counter_->push(tokenizer_->token_bytes(token.id));
    if (before || counter_->in_reasoning()) ++reasoning_tokens_;
    if (counter_->past_reasoning()) counter_.reset();
  }
  return parser_.push(text);
}

}  // namespace lathe::server
