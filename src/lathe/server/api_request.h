// Request bodies -> typed requests whose every field has been checked: type, range, and what fits together. Fields that
// are not known are ignored, as the usual clients expect; fields that ask for something this server cannot do are
// refused. Nothing here knows HTTP or the engine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/runtime/sampler.h"
#include "lathe/server/api_error.h"

namespace lathe::server {

// What the checks depend on.
struct RequestLimits {
  int64_t vocab_size = 0;
  GenerationDefaults defaults = {};  // of fields that a request leaves out
  int64_t max_choices = 128;         // prompts times n
};

inline constexpr int64_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopBytes = 1024;  // of one stop string
inline constexpr int64_t kMaxLogitBiases = 1024;
inline constexpr int64_t kMaxTopLogprobs = 20;
inline constexpr int64_t kMaxTools = 128;

// What the answer's text must be.
enum class ResponseFormat { kText, kJsonObject, kJsonSchema };

enum class ToolChoice { kNone, kAuto, kRequired, kNamed };

// Text, or token ids as they are.
using PromptInput = std::variant<std::string, std::vector<int32_t>>;

// /v1/chat/completions or /v1/completions.
struct GenerationRequest {
  bool chat = false;
  std::vector<PromptInput> prompts = {};  // completions: at least one
  // Chat: the variables of the chat template: messages with contents as text (parts joined, "developer" become
  // "system"), tools, add_generation_prompt, and what chat_template_kwargs adds.
  Json template_variables = {};
  SamplingParams sampling = {};       // its seed is not set: see `seed`
  std::optional<uint64_t> seed = {};  // nothing: a random one
  int64_t n = 1;                      // answers per prompt
  int64_t best_of = 1;                // answers made per prompt, of which the n likeliest are told; at least n
  int64_t max_tokens = -1;            // -1: until the context is full
  int64_t min_tokens = 0;             // at most max_tokens
  std::vector<std::string> stop = {};
  std::vector<int32_t> stop_token_ids = {};
  bool ignore_eos = false;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  // with include_usage: in every chunk
  bool return_progress = false;   // stream: tell how much of the prompt is read
  bool echo = false;              // completions: the prompt comes first
  std::string suffix = {};        // completions: what follows the answer; empty: nothing is known of it
  int64_t logprobs = -1;          // alternatives per token, -1: no log-probabilities
  int64_t prompt_logprobs = -1;   // the same for the prompt's tokens
  bool return_token_ids = false;
  bool split_reasoning = true;  // chat: thoughts apart from the answer
  ResponseFormat format = ResponseFormat::kText;
  Json schema = {};                              // with kJsonSchema
  const char* format_field = "response_format";  // that named it
  ToolChoice tool_choice = ToolChoice::kNone;
  std::string tool_name = {};  // with kNamed
  Json tools = {};             // array, or null without tools
  bool parallel_tool_calls = true;
};

// /tokenize: exactly one of `text` and `template_variables`.
struct TokenizeRequest {
  std::optional<std::string> text = {};
  Json template_variables = {};
  bool add_special_tokens = true;
  bool with_pieces = false;
};

// /detokenize.
struct DetokenizeRequest {
  std::vector<int32_t> tokens = {};
};

// /apply-template.
struct TemplateRequest {
  Json template_variables = {};
};

// Each parses `body` and fills `out`; an error leaves `out` in an unspecified state.
std::optional<ApiError> parse_chat_request(std::string_view body, const RequestLimits& limits, GenerationRequest& out);
std::optional<ApiError> parse_completion_request(std::string_view body,
                                                 const RequestLimits& limits,
                                                 GenerationRequest& out);
std::optional<ApiError> parse_tokenize_request(std::string_view body, TokenizeRequest& out);
std::optional<ApiError> parse_detokenize_request(std::string_view body,
                                                 const RequestLimits& limits,
                                                 DetokenizeRequest& out);
std::optional<ApiError> parse_template_request(std::string_view body, TemplateRequest& out);

}  // namespace lathe::server
