#include "lathe/server/served_model.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <iterator>
#include <span>
#include <utility>

#include "lathe/base/str.h"
#include "lathe/runtime/prompt.h"
#include "lathe/server/answer_constraint.h"

namespace lathe::server {

namespace {

ApiError context_exceeded(int64_t context, std::string_view found) {
  ApiError error{.message = str("prompt: expected at most ", context, " tokens (the context size), found ", found),
                 .code = "context_length_exceeded"};
  return error;
}

// A base model has no turns: the texts one after the other.
std::string joined_contents(const Json& variables) {
  std::string out;
  for (const Json& message : variables.find("messages")->as_array()) {
    const Json* content = message.find("content");
    if (content == nullptr || !content->is_string()) continue;
    if (!out.empty()) out += '\n';
    out += content->as_string();
  }
  return out;
}

uint64_t text_bytes(const Json& value) {
  uint64_t total = 0;
  if (value.is_string()) return value.as_string().size();
  if (value.is_array()) {
    for (const Json& item : value.as_array()) total += text_bytes(item);
  } else if (value.is_object()) {
    for (const auto& [name, item] : value.as_object()) total += text_bytes(item);
  }
  return total;
}

// A vocabulary with both markers is that of a model that thinks, whatever its template shows.
bool has_think_tokens(const Tokenizer& tokenizer) {
  return tokenizer.find(kThinkBegin).has_value() && tokenizer.find(kThinkEnd).has_value();
}

std::vector<int32_t> find_special_markers(const Tokenizer& tokenizer) {
  constexpr std::array kMarkers = {
      kThinkBegin, kThinkEnd, kToolCallsBegin, kToolCallsEnd, kToolCallBegin, kToolCallEnd, kToolSep};
  std::vector<int32_t> out;
  for (const std::string_view marker : kMarkers) {
    const std::optional<int32_t> id = tokenizer.find(marker);
    if (id && tokenizer.is_special(*id)) out.push_back(*id);
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<const ServedModel>> ServedModel::open(
    const Engine& engine, std::string id, const std::optional<std::filesystem::path>& chat_template) {
  auto model = std::make_unique<ServedModel>();
  model->id = std::move(id);
  model->tokenizer = engine.tokenizer();
  if (model->tokenizer == nullptr) {
    return Error{Errc::kInvalidData, "model: expected a tokenizer to serve text, found none"};
  }
  Result<ChatTemplate> opened = open_chat_template(*model->tokenizer, chat_template);
  if (opened) {
    model->chat_template = *std::move(opened);
  } else if (opened.error().code != Errc::kNotFound || chat_template) {
    return std::move(opened).error();
  }
  if (model->chat_template) {
    model->chat_format = detect_chat_format(model->chat_template->source());
    model->chat_format.reasoning |= has_think_tokens(*model->tokenizer);
    model->special_markers = find_special_markers(*model->tokenizer);
  }
  model->context = engine.context_size();
  model->created =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  for (int32_t token = 0; token < model->tokenizer->vocabulary_size(); ++token) {
    model->longest_token = std::max(model->longest_token, std::ssize(model->tokenizer->token_bytes(token)));
  }
  model->constraints =
      std::make_unique<ConstraintCache>(*model->tokenizer, engine.config().vocab_size, engine.eos_ids());
  model->limits = {.vocab_size = engine.config().vocab_size, .defaults = engine.defaults()};
  return std::unique_ptr<const ServedModel>(std::move(model));
}

std::variant<std::string, ApiError> ServedModel::render(const Json& template_variables) const {
  if (!chat_template) return joined_contents(template_variables);
  const Result<Conversation> conversation = complete_variables(template_variables);
  if (!conversation) return from_error(conversation.error());
  Result<std::string> text = render_chat(*chat_template, conversation->variables);
  if (!text) return from_error(text.error());
  return *std::move(text);
}

bool ServedModel::opens_reasoning(std::span<const int32_t> prompt) const {
  return chat_format.reasoning && prompt_opens_reasoning(*tokenizer, prompt);
}

Result<Conversation> ServedModel::complete_variables(const Json& given) const {
  Conversation out = adapt_conversation(chat_format, given);
  LATHE_TRY(out.variables, template_variables(*tokenizer, out.variables));
  return out;
}

std::variant<std::vector<int32_t>, ApiError> ServedModel::encode_chat_prompt(const Json& template_variables) const {
  // Every token stands for at most longest_token bytes: what cannot fit is refused before the work.
  const uint64_t bytes = text_bytes(*template_variables.find("messages"));
  const auto room = static_cast<uint64_t>(context * longest_token);
  if (bytes > room) return context_exceeded(context, str(bytes, " bytes of text"));
  if (!chat_template) return encode_text(joined_contents(template_variables), /*add_bos=*/true);
  const Result<Conversation> conversation = complete_variables(template_variables);
  if (!conversation) return from_error(conversation.error());
  Result<std::vector<int32_t>> ids =
      encode_chat(*tokenizer, *chat_template, conversation->variables, conversation->trusted);
  if (!ids) {
    ApiError error = from_error(ids.error());
    if (error.status == 400) error.param = "messages";
    return error;
  }
  return *std::move(ids);
}

std::variant<std::vector<int32_t>, ApiError> ServedModel::encode_text(std::string_view text, bool add_bos) const {
  const auto room = static_cast<uint64_t>(context * longest_token);
  if (text.size() > room) return context_exceeded(context, str(text.size(), " bytes of text"));
  if (add_bos) return encode_prompt(*tokenizer, text, AddedTokens::kText);
  return tokenizer->encode(text, AddedTokens::kText);
}

namespace {

// Fill in the middle: the text before the answer, the place of the answer and the text behind it, between the markers
// that DeepSeek's vocabularies have for it.
std::variant<std::vector<int32_t>, ApiError> encode_infill(const ServedModel& model,
                                                           std::string_view prefix,
                                                           std::string_view suffix) {
  const Tokenizer& tokenizer = *model.tokenizer;
  const std::optional<int32_t> begin = tokenizer.find("<｜fim▁begin｜>");
  const std::optional<int32_t> hole = tokenizer.find("<｜fim▁hole｜>");
  const std::optional<int32_t> end = tokenizer.find("<｜fim▁end｜>");
  if (!begin || !hole || !end) {
    return invalid_field("suffix", "expected a model whose vocabulary has DeepSeek's FIM tokens, found another");
  }
  std::vector<int32_t> out;
  if (tokenizer.add_bos() && tokenizer.bos_id()) out.push_back(*tokenizer.bos_id());
  for (const auto& [marker, text] : {std::pair(*begin, prefix), std::pair(*hole, suffix)}) {
    std::variant<std::vector<int32_t>, ApiError> ids = model.encode_text(text, /*add_bos=*/false);
    if (auto* error = std::get_if<ApiError>(&ids)) return std::move(*error);
    out.push_back(marker);
    std::ranges::copy(std::get<std::vector<int32_t>>(ids), std::back_inserter(out));
  }
  out.push_back(*end);
  return out;
}

std::variant<std::vector<int32_t>, ApiError> encode_input(const ServedModel& model,
                                                          const PromptInput& input,
                                                          const std::string& suffix) {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&input)) return *ids;
  const auto& text = std::get<std::string>(input);
  if (!suffix.empty()) return encode_infill(model, text, suffix);
  return model.encode_text(text, /*add_bos=*/true);
}

std::optional<ApiError> check_prompt(const ServedModel& model, const std::vector<int32_t>& ids) {
  if (ids.empty()) return invalid_field("prompt", "expected at least one token, found none");
  // A prompt that fills the context leaves no room for an answer.
  if (std::ssize(ids) >= model.context) return context_exceeded(model.context - 1, str(ids.size()));
  return {};
}

AnswerOptions answer_options(const ServedModel& model,
                             const GenerationRequest& request,
                             std::span<const int32_t> prompt) {
  AnswerOptions out;
  if (request.tool_choice != ToolChoice::kNone) out.tools = model.chat_format.tools;
  out.reasoning = request.split_reasoning && model.chat_format.reasoning;
  out.reasoning_open = out.reasoning && model.opens_reasoning(prompt);
  return out;
}

Request make_request(const GenerationRequest& request, std::vector<int32_t> prompt, uint64_t seed) {
  Request out{.prompt = std::move(prompt),
              .sampling = request.sampling,
              .max_tokens = request.max_tokens,
              .min_tokens = request.min_tokens,
              .stop = request.stop,
              .stop_token_ids = request.stop_token_ids,
              .ignore_eos = request.ignore_eos,
              .on_token = {}};
  out.sampling.seed = seed;
  out.sampling.logprobs = request.best_of > request.n ? std::max<int64_t>(request.logprobs, 0) : request.logprobs;
  out.prompt_logprobs = request.prompt_logprobs;
  if (request.echo && request.logprobs >= 0) out.prompt_logprobs = std::max(out.prompt_logprobs, request.logprobs);
  return out;
}

}  // namespace

std::variant<PreparedRequest, ApiError> prepare(const ServedModel& model, const GenerationRequest& request) {
  if (request.tool_choice != ToolChoice::kNone && model.chat_format.tools == ToolFormat::kNone) {
    return invalid_field("tools", "expected a model whose chat template has DeepSeek's tool calls, found another");
  }
  PreparedRequest out;
  const auto add = [&](std::variant<std::vector<int32_t>, ApiError> encoded) -> std::optional<ApiError> {
    if (auto* error = std::get_if<ApiError>(&encoded)) return std::move(*error);
    auto& ids = std::get<std::vector<int32_t>>(encoded);
    if (std::optional<ApiError> error = check_prompt(model, ids)) return error;
    out.prompts.push_back(std::move(ids));
    return {};
  };
  if (request.chat) {
    if (auto error = add(model.encode_chat_prompt(request.template_variables))) return *std::move(error);
    out.answer = answer_options(model, request, out.prompts.front());
  }
  for (const PromptInput& input : request.prompts) {
    if (auto error = add(encode_input(model, input, request.suffix))) return *std::move(error);
  }
  const uint64_t seed = request.seed ? *request.seed : random_seed();
  for (const std::vector<int32_t>& prompt : out.prompts) {
    for (int64_t i = 0; i < request.best_of; ++i) {
      // Every prompt of a request gets the same seeds, so that an answer does not depend on its neighbours.
      Request one = make_request(request, prompt, seed + static_cast<uint64_t>(i));
      if (request.chat) one.visible_special = model.special_markers;
      // One call at most: what ends it ends the answer.
      if (out.answer.tools != ToolFormat::kNone && !request.parallel_tool_calls) one.stop.emplace_back(kToolCallEnd);
      out.requests.push_back(std::move(one));
    }
  }
  if (auto error = constrain_answers(model, request, out.requests)) return *std::move(error);
  return out;
}

}  // namespace lathe::server
