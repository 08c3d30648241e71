// The body of a request, as every endpoint reads it: what is refused is refused cleanly, what is accepted is in bounds.
#include <algorithm>
#include <optional>

#include "fuzz.h"
#include "lathe/base/json.h"
#include "lathe/server/api_error.h"
#include "lathe/server/api_request.h"

using lathe::fuzz::require;
using namespace lathe::server;  // NOLINT(google-build-using-namespace)

namespace {

const RequestLimits kLimits = {.vocab_size = 300, .defaults = {}, .max_choices = 128};

bool is_id(int32_t id) {
  return id >= 0 && id < kLimits.vocab_size;
}

// True when the body was refused.
bool refused(const std::optional<ApiError>& error) {
  if (!error) return false;
  lathe::fuzz::require_clean_message(error->message);
  require(error->status == 400, "a refused body has another status than 400");
  require(error->type == "invalid_request_error", "a refused body has another type");
  require(error->param.size() < 200, "name of a field without bound");
  const lathe::Result<lathe::Json> told = lathe::parse_json(to_json(*error).dump());
  require(told && told->find("error") != nullptr, "an error that is not JSON");
  return true;
}

void check_variables(const lathe::Json& variables) {
  require(variables.is_object(), "variables of a template that are no object");
  const lathe::Json* messages = variables.find("messages");
  require(messages != nullptr && messages->is_array() && !messages->as_array().empty(), "a chat without messages");
  for (const lathe::Json& message : messages->as_array()) {
    const lathe::Json* role = message.find("role");
    require(role != nullptr && role->is_string() && !role->as_string().empty(), "a message without a role");
    const lathe::Json* content = message.find("content");
    require(content == nullptr || content->is_string() || content->is_null(), "a content that is not text");
  }
  require(lathe::parse_json(variables.dump()).has_value(), "variables of a template that are not JSON");
}

void check_sampling(const GenerationRequest& request) {
  const lathe::SamplingParams& s = request.sampling;
  require(s.temperature >= 0 && s.temperature <= 2, "temperature out of range");
  require(s.top_p > 0 && s.top_p <= 1, "top_p out of range");
  require(s.top_k >= 0, "top_k out of range");
  require(s.min_p >= 0 && s.min_p <= 1, "min_p out of range");
  require(s.repetition_penalty > 0 && s.repetition_penalty <= 100, "repetition penalty out of range");
  require(s.presence_penalty >= -2 && s.presence_penalty <= 2, "presence penalty out of range");
  require(s.frequency_penalty >= -2 && s.frequency_penalty <= 2, "frequency penalty out of range");
  require(lathe::validate(s.dry).has_value(), "DRY penalty out of range");
  require(std::ssize(s.logit_bias) <= kMaxLogitBiases, "too many biases");
  for (const auto& [id, bias] : s.logit_bias) {
    require(is_id(id) && bias >= -100 && bias <= 100, "bias out of range");
  }
}

void check_generation(const GenerationRequest& request) {
  check_sampling(request);
  require(request.n >= 1 && request.n <= kLimits.max_choices, "n out of range");
  require(request.max_tokens >= -1 && request.max_tokens <= INT32_MAX, "max_tokens out of range");
  require(request.logprobs >= -1 && request.logprobs <= kMaxTopLogprobs, "logprobs out of range");
  require(request.prompt_logprobs >= -1 && request.prompt_logprobs <= kMaxTopLogprobs, "prompt_logprobs out of range");
  require(std::ssize(request.stop) <= kMaxStopStrings, "too many stop strings");
  for (const std::string& stop : request.stop) {
    require(!stop.empty() && stop.size() <= kMaxStopBytes, "length of a stop string");
  }
  require(std::ranges::all_of(request.stop_token_ids, is_id), "stop token out of range");
  require(request.tools.is_null() || request.tools.is_array(), "tools that are no array");
  if (request.tool_choice == ToolChoice::kNamed) require(!request.tool_name.empty(), "a chosen tool without a name");
}

void check_prompts(const GenerationRequest& request) {
  require(!request.prompts.empty(), "no prompt");
  require(std::ssize(request.prompts) * request.n <= kLimits.max_choices, "too many answers");
  for (const PromptInput& prompt : request.prompts) {
    const auto* ids = std::get_if<std::vector<int32_t>>(&prompt);
    require(ids == nullptr || std::ranges::all_of(*ids, is_id), "token of a prompt out of range");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  GenerationRequest chat;
  if (!refused(parse_chat_request(body, kLimits, chat))) {
    require(chat.chat && chat.prompts.empty(), "a chat that is a completion");
    check_generation(chat);
    check_variables(chat.template_variables);
  }
  GenerationRequest completion;
  if (!refused(parse_completion_request(body, kLimits, completion))) {
    require(!completion.chat, "a completion that is a chat");
    check_generation(completion);
    check_prompts(completion);
  }
  TokenizeRequest tokenize;
  if (!refused(parse_tokenize_request(body, tokenize))) {
    require(tokenize.text.has_value() == tokenize.template_variables.is_null(), "not exactly one thing to tokenize");
    if (!tokenize.text) check_variables(tokenize.template_variables);
  }
  DetokenizeRequest detokenize;
  if (!refused(parse_detokenize_request(body, kLimits, detokenize))) {
    require(std::ranges::all_of(detokenize.tokens, is_id), "token out of range");
  }
  TemplateRequest rendered;
  if (!refused(parse_template_request(body, rendered))) check_variables(rendered.template_variables);
  return 0;
}
