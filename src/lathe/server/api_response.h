// Typed results -> the JSON of OpenAI's API and the events of a stream.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/runtime/engine.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe::server {

// What all parts of one answer carry.
struct AnswerIdentity {
  std::string id;       // "chatcmpl-..." or "cmpl-..."
  int64_t created = 0;  // seconds since 1970
  std::string model;
};

// A new identity; ids differ from call to call.
AnswerIdentity new_identity(bool chat, std::string model);

// Tokens of a request.
struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;     // of the prompt, not computed anew
  int64_t reasoning_tokens = 0;  // of the completion
};

// Where the time of a request went. Of several answers the longest counts.
struct Timings {
  int64_t prompt_tokens = 0;  // computed
  int64_t cached_tokens = 0;
  int64_t predicted_tokens = 0;
  double queue_s = 0.0;
  double prompt_s = 0.0;     // submission to first token, without the queue
  double predicted_s = 0.0;  // first to last token
  int64_t draft_tokens = 0;
  int64_t accepted_draft_tokens = 0;
  DrafterKind drafter = DrafterKind::kText;
};

// OpenAI's names.
Json to_json(const Usage& usage);
// The names that llama-server uses.
Json to_json(const Timings& timings);
Json to_json(const PromptEvent& event);

// Chat: {"content": [{"token", "logprob", "bytes", "top_logprobs"}], "refusal": null}.
Json chat_logprobs(const Tokenizer& tokenizer, std::span<const SampledToken> tokens);

// Completions: {"tokens", "token_logprobs", "top_logprobs", "text_offset"}, offsets in characters from `offset`, which
// moves on; special tokens take none, as they are not in the answer's text. The first of `tokens` has no
// log-probability when `first_is_unknown` (the first token of a prompt).
Json completion_logprobs(const Tokenizer& tokenizer,
                         std::span<const SampledToken> tokens,
                         bool first_is_unknown,
                         int64_t& offset);

// vLLM's prompt_logprobs: null for the first token, then {"id": {"logprob", "rank", "decoded_token"}} each.
Json prompt_logprobs(const Tokenizer& tokenizer, std::span<const SampledToken> tokens);

// An object with id, object, created and model.
Json envelope(const AnswerIdentity& identity, std::string_view object);

// "data: ...\n\n".
std::string stream_event(const Json& json);
inline constexpr std::string_view kStreamEnd = "data: [DONE]\n\n";
// A comment, which clients skip: keeps connections through proxies open.
inline constexpr std::string_view kStreamPing = ": ping\n\n";

}  // namespace lathe::server
