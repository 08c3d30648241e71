#include "lathe/server/answer.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "lathe/base/str.h"

namespace lathe::server {

namespace {

Json tool_call_json(const AnswerMessage::ToolCall& call) {
  Json function = Json::object();
  function.set("name", call.name);
  function.set("arguments", call.arguments);
  Json out = Json::object();
  out.set("id", call.id);
  out.set("type", "function");
  out.set("function", std::move(function));
  return out;
}

// The delta of one part of a message.
Json delta_of(const AnswerEvent& part) {
  Json delta = Json::object();
  switch (part.kind) {
    case AnswerEvent::Kind::kContent:
      delta.set("content", part.text);
      return delta;
    case AnswerEvent::Kind::kReasoning:
      delta.set("reasoning_content", part.text);
      return delta;
    default:
      break;
  }
  Json call = Json::object();
  Json function = Json::object();
  call.set("index", static_cast<int64_t>(part.index));
  if (part.kind == AnswerEvent::Kind::kToolCall) {
    call.set("id", part.id);
    call.set("type", "function");
    function.set("name", part.name);
  }
  function.set("arguments", part.text);
  call.set("function", std::move(function));
  Json calls = Json::array();
  calls.push(std::move(call));
  delta.set("tool_calls", std::move(calls));
  return delta;
}

Json ids_of(const std::vector<SampledToken>& tokens) {
  Json out = Json::array();
  for (const SampledToken& token : tokens) out.push(static_cast<int64_t>(token.id));
  return out;
}

}  // namespace

Answer::Answer(const ServedModel& model,
               const GenerationRequest& request,
               const std::vector<std::vector<int32_t>>& prompts,
               const AnswerOptions& options)
    : model_(model),
      chat_(request.chat),
      stream_(request.stream),
      include_usage_(request.include_usage),
      continuous_usage_(request.continuous_usage),
      progress_(request.return_progress),
      logprobs_(request.logprobs >= 0),
      prompt_logprobs_(request.prompt_logprobs >= 0),
      token_ids_(request.return_token_ids),
      echo_(request.echo),
      n_(static_cast<size_t>(request.n)),
      best_of_(static_cast<size_t>(request.best_of)),
      identity_(new_identity(request.chat, model.id)) {
  for (size_t i = 0; i < prompts.size(); ++i) {
    usage_.prompt_tokens += std::ssize(prompts[i]);
    if (token_ids_) prompt_ids_.push_back(prompts[i]);
    if (!echo_) continue;
    const auto* text = std::get_if<std::string>(&request.prompts[i]);
    prompt_texts_.push_back(text != nullptr ? *text : model.tokenizer->decode(prompts[i], /*skip_special=*/true));
  }
  for (size_t i = 0; i < prompts.size() * best_of_; ++i) {
    AnswerOptions own = options;
    own.id_seed = str(identity_.id.substr(identity_.id.find('-') + 1), "_", i);
    choices_.push_back({.splitter = MessageSplitter(*model.tokenizer, own)});
  }
}

std::string Answer::take(std::vector<Update> updates) {
  std::string events;
  for (Update& update : updates) {
    if (!error_) take_one(std::move(update), events);
  }
  return events;
}

void Answer::take_one(Update update, std::string& events) {
  Choice& choice = choices_[update.choice];
  const size_t index = update.choice;
  if (update.finished && !*update.finished) {
    error_ = from_error(update.finished->error());
    return;
  }
  if (update.prompt && update.tokens.empty() && update.text.empty() && !update.finished) {
    if (stream_ && progress_) events += stream_event(progress_chunk(index, *update.prompt));
    return;
  }
  usage_.completion_tokens += std::ssize(update.tokens);
  choice.made += std::ssize(update.tokens);
  for (const SampledToken& token : update.tokens) choice.logprob += token.logprob;
  if (chat_) {
    add_chat_events(choice, index, update, events);
  } else {
    add_completion_events(choice, index, update, events);
  }
  if (!stream_ && (logprobs_ || token_ids_)) std::ranges::move(update.tokens, std::back_inserter(choice.tokens));
  if (!update.finished) return;
  finish(choice, index, **update.finished);
  if (!stream_) return;
  Json payload = chat_ ? Json::object() : Json("");
  events += stream_event(chunk(index, std::move(payload), Json(), choice.finish_reason));
}

void Answer::finish(Choice& choice, size_t index, const Completion& completion) {
  ++finished_;
  choice.finish_reason = completion.finish_reason == FinishReason::kLength ? "length" : "stop";
  usage_.reasoning_tokens += choice.splitter.reasoning_tokens();
  // The tokens of the text came in updates; the one that ended the answer counts, too.
  usage_.completion_tokens += completion.completion_tokens - std::ssize(completion.tokens);
  if (!choice.message.tool_calls.empty() && choice.finish_reason == "stop") choice.finish_reason = "tool_calls";
  if (!stream_) choice.prompt_tokens = completion.prompt_logprobs;
  // A prompt counts once, however many answers it has.
  if (index % best_of_ == 0) {
    usage_.cached_tokens += completion.cached_prompt_tokens;
    timings_.cached_tokens += completion.cached_prompt_tokens;
    timings_.prompt_tokens += completion.prompt_tokens - completion.cached_prompt_tokens;
  }
  timings_.predicted_tokens += completion.completion_tokens;
  timings_.queue_s = std::max(timings_.queue_s, completion.queued_s);
  timings_.prompt_s = std::max(timings_.prompt_s, completion.prefill_s - completion.queued_s);
  timings_.predicted_s = std::max(timings_.predicted_s, completion.decode_s);
  timings_.draft_tokens += completion.draft_tokens;
  timings_.accepted_draft_tokens += completion.accepted_draft_tokens;
  timings_.drafter = completion.drafter;
}

void Answer::add_chat_events(Choice& choice, size_t index, const Update& update, std::string& events) {
  std::vector<AnswerEvent> parts = choice.splitter.push(update.tokens, update.text);
  if (update.finished) std::ranges::move(choice.splitter.finish(), std::back_inserter(parts));
  for (const AnswerEvent& part : parts) {
    if (part.kind == AnswerEvent::Kind::kToolCall || !stream_) choice.message.add(part);
  }
  if (!stream_) return;
  if (!choice.begun) {
    choice.begun = true;
    Json delta = Json::object();
    delta.set("role", "assistant");
    delta.set("content", "");
    events += stream_event(chunk(index, std::move(delta), Json(), {}));
  }
  Json logprobs = logprobs_ && !update.tokens.empty() ? chat_logprobs(*model_.tokenizer, update.tokens) : Json();
  // Log-probabilities and ids go with the first part; they have a chunk of their own when no text is certain yet.
  const bool has_ids = token_ids_ && !update.tokens.empty();
  if (parts.empty() && (has_ids || !logprobs.is_null())) parts.push_back({.kind = AnswerEvent::Kind::kContent});
  for (size_t i = 0; i < parts.size(); ++i) {
    Json event = chunk(index, delta_of(parts[i]), i == 0 ? std::exchange(logprobs, Json()) : Json(), {});
    if (i == 0) add_token_ids(event, update);
    events += stream_event(event);
  }
}

void Answer::add_completion_events(Choice& choice, size_t index, const Update& update, std::string& events) {
  if (!stream_) {
    choice.text += update.text;
    return;
  }
  std::string text = update.text;
  std::vector<SampledToken> tokens;
  const bool with_prompt = !choice.begun && echo_;
  if (with_prompt) {
    text.insert(0, prompt_texts_[index / best_of_]);
    // An answer without tokens has them in its end only.
    tokens = update.tokens.empty() && update.finished ? (*update.finished)->prompt_logprobs : update.prompt_logprobs;
  }
  choice.begun = true;
  tokens.insert(tokens.end(), update.tokens.begin(), update.tokens.end());
  Json logprobs;
  if (logprobs_ && !tokens.empty()) {
    logprobs = completion_logprobs(*model_.tokenizer, tokens, /*first_is_unknown=*/with_prompt, choice.text_offset);
  }
  const bool has_ids = token_ids_ && !update.tokens.empty();
  if (text.empty() && !has_ids && logprobs.is_null()) return;
  Json event = chunk(index, std::move(text), std::move(logprobs), {});
  add_token_ids(event, update);
  events += stream_event(event);
}

// One chunk of a stream. `payload`: the delta of a chat, the text of a completion.
Json Answer::chunk(size_t index, Json payload, Json logprobs, const std::string& finish_reason) const {
  Json choice = Json::object();
  choice.set("index", static_cast<int64_t>(index));
  choice.set(chat_ ? "delta" : "text", std::move(payload));
  choice.set("logprobs", std::move(logprobs));
  choice.set("finish_reason", finish_reason.empty() ? Json() : Json(finish_reason));
  Json choices = Json::array();
  choices.push(std::move(choice));
  Json out = envelope(identity_, chat_ ? "chat.completion.chunk" : "text_completion");
  out.set("choices", std::move(choices));
  if (include_usage_) out.set("usage", continuous_usage_ ? to_json(usage_) : Json());
  if (!finish_reason.empty() && finished_ == choices_.size()) out.set("timings", to_json(timings_));
  return out;
}

// Nothing of the answer, only how much of its prompt is read.
Json Answer::progress_chunk(size_t index, const PromptEvent& event) const {
  Json out = chunk(index, chat_ ? Json::object() : Json(""), Json(), {});
  out.set("prompt_progress", to_json(event));
  return out;
}

void Answer::add_token_ids(Json& event, const Update& update) const {
  if (!token_ids_) return;
  for (auto& [name, value] : event.as_object()) {
    if (name == "choices") value.as_array().front().set("token_ids", ids_of(update.tokens));
  }
}

std::string Answer::end_of_stream() const {
  std::string out;
  if (include_usage_) {
    Json last = envelope(identity_, chat_ ? "chat.completion.chunk" : "text_completion");
    last.set("choices", Json::array());
    last.set("usage", to_json(usage_));
    out += stream_event(last);
  }
  out += kStreamEnd;
  return out;
}

void Answer::add_extras(Json& out, const Choice& choice, size_t index) const {
  if (token_ids_) {
    out.set("token_ids", ids_of(choice.tokens));
    out.set("prompt_token_ids", Json::list(prompt_ids_[index / best_of_]));
  }
  if (prompt_logprobs_) out.set("prompt_logprobs", prompt_logprobs(*model_.tokenizer, choice.prompt_tokens));
}

Json Answer::chat_choice(const Choice& choice, size_t index, int64_t told) const {
  Json message = Json::object();
  message.set("role", "assistant");
  const bool calls = !choice.message.tool_calls.empty();
  message.set("content", calls && choice.message.content.empty() ? Json() : Json(choice.message.content));
  message.set("refusal", Json());
  if (!choice.message.reasoning.empty()) message.set("reasoning_content", choice.message.reasoning);
  if (calls) {
    Json list = Json::array();
    for (const AnswerMessage::ToolCall& call : choice.message.tool_calls) list.push(tool_call_json(call));
    message.set("tool_calls", std::move(list));
  }
  Json out = Json::object();
  out.set("index", told);
  out.set("message", std::move(message));
  out.set("logprobs", logprobs_ ? chat_logprobs(*model_.tokenizer, choice.tokens) : Json());
  out.set("finish_reason", choice.finish_reason);
  add_extras(out, choice, index);
  return out;
}

Json Answer::completion_choice(const Choice& choice, size_t index, int64_t told) const {
  Json out = Json::object();
  out.set("index", told);
  out.set("text", echo_ ? prompt_texts_[index / best_of_] + choice.text : choice.text);
  Json logprobs;
  if (logprobs_) {
    std::vector<SampledToken> tokens;
    if (echo_) tokens = choice.prompt_tokens;
    tokens.insert(tokens.end(), choice.tokens.begin(), choice.tokens.end());
    int64_t offset = 0;
    logprobs = completion_logprobs(*model_.tokenizer, tokens, /*first_is_unknown=*/echo_, offset);
  }
  out.set("logprobs", std::move(logprobs));
  out.set("finish_reason", choice.finish_reason);
  add_extras(out, choice, index);
  return out;
}

// Of each prompt's answers the n of the highest log-probability per token, empty ones last, the earlier one among
// equals.
std::vector<size_t> Answer::best_choices() const {
  const auto score = [this](size_t i) {
    const Choice& choice = choices_[i];
    return choice.made > 0 ? choice.logprob / static_cast<double>(choice.made)
                           : -std::numeric_limits<double>::infinity();
  };
  std::vector<size_t> out;
  for (size_t first = 0; first < choices_.size(); first += best_of_) {
    std::vector<size_t> made(best_of_);
    std::iota(made.begin(), made.end(), first);
    if (best_of_ > n_) std::ranges::stable_sort(made, std::ranges::greater(), score);
    out.insert(out.end(), made.begin(), made.begin() + static_cast<ptrdiff_t>(n_));
  }
  return out;
}

Json Answer::document() const {
  Json choices = Json::array();
  for (const size_t i : best_choices()) {
    const int64_t told = std::ssize(choices.as_array());
    choices.push(chat_ ? chat_choice(choices_[i], i, told) : completion_choice(choices_[i], i, told));
  }
  Json out = envelope(identity_, chat_ ? "chat.completion" : "text_completion");
  out.set("choices", std::move(choices));
  out.set("usage", to_json(usage_));
  out.set("timings", to_json(timings_));
  return out;
}

std::vector<std::string> Answer::finish_reasons() const {
  std::vector<std::string> out;
  for (const Choice& choice : choices_) {
    if (!choice.finish_reason.empty()) out.push_back(choice.finish_reason);
  }
  return out;
}

}  // namespace lathe::server
