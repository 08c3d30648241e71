#include "lathe/server/api_request.h"

#include <algorithm>
#include <array>

#include "lathe/base/str.h"
#include "lathe/server/api_messages.h"
#include "lathe/server/field_reader.h"

namespace lathe::server {

namespace {

constexpr int64_t kMaxTokens = INT32_MAX;
constexpr size_t kMaxPromptIds = size_t{1} << 24;

std::optional<ApiError> parse_object(std::string_view body, Json& out) {
  Result<Json> json = parse_json(body, {.max_depth = 64, .max_bytes = uint64_t{1} << 30});
  if (!json) return ApiError{.message = str("body: not valid JSON: ", json.error().message), .code = "invalid_json"};
  if (!json->is_object()) {
    return ApiError{.message = str("body: expected a JSON object, found ", describe(*json)), .code = "invalid_json"};
  }
  out = *std::move(json);
  return {};
}

struct TextLimits {
  int64_t count = 0;
  size_t bytes = 0;  // of one
};

// A string or an array of them, none of them empty; absent: none.
std::vector<std::string> read_texts(FieldReader& reader, const char* name, TextLimits limits) {
  std::vector<std::string> out;
  const Json* member = reader.find(name);
  if (member == nullptr || reader.failed()) return out;
  Json::Array one;
  if (member->is_string()) one.push_back(*member);
  if (!member->is_string() && !member->is_array()) {
    reader.fail(name, str("expected a string or an array of strings, found ", describe(*member)));
    return out;
  }
  const Json::Array& all = member->is_array() ? member->as_array() : one;
  if (std::ssize(all) > limits.count) {
    reader.fail(name, str("expected at most ", limits.count, " strings, found ", all.size()));
    return out;
  }
  for (const Json& item : all) {
    if (!item.is_string() || item.as_string().empty() || item.as_string().size() > limits.bytes) {
      reader.fail(name, str("expected strings of 1 to ", limits.bytes, " bytes, found ", describe(item)));
      return out;
    }
    out.push_back(item.as_string());
  }
  return out;
}

void read_dry(FieldReader& reader, DryParams& dry) {
  reader.real("dry_multiplier", 0, kMaxDryMultiplier, dry.multiplier);
  reader.real("dry_base", 1, kMaxDryBase, dry.base);
  reader.whole("dry_allowed_length", 1, kMaxDryLength, dry.allowed_length);
  reader.whole("dry_penalty_last_n", -1, kMaxTokens, dry.last_n);
  if (reader.find("dry_sequence_breakers") == nullptr) return;
  dry.breakers = read_texts(reader, "dry_sequence_breakers", {.count = kMaxDryBreakers, .bytes = kMaxStopBytes});
}

void read_sampling(FieldReader& reader, const RequestLimits& limits, GenerationRequest& out) {
  double temperature = 0.0;
  const bool has_temperature = reader.real("temperature", 0, 2, temperature);
  SamplingParams& s = out.sampling;
  s = default_sampling(limits.defaults, has_temperature ? std::optional(temperature) : std::nullopt);
  reader.real("top_p", 0, 1, s.top_p);
  if (!reader.failed() && s.top_p == 0.0) reader.fail("top_p", "expected a number above 0, found 0");
  int64_t top_k = s.top_k;
  if (reader.whole("top_k", -1, kMaxTokens, top_k)) s.top_k = std::max<int64_t>(top_k, 0);
  reader.real("min_p", 0, 1, s.min_p);
  reader.real("repeat_penalty", 0.01, 100, s.repetition_penalty);
  reader.real("repetition_penalty", 0.01, 100, s.repetition_penalty);
  reader.real("presence_penalty", -2, 2, s.presence_penalty);
  reader.real("frequency_penalty", -2, 2, s.frequency_penalty);
  read_dry(reader, s.dry);
  int64_t seed = 0;
  if (reader.whole("seed", INT64_MIN, INT64_MAX, seed)) out.seed = static_cast<uint64_t>(seed);
}

void read_logit_bias(FieldReader& reader, const RequestLimits& limits, GenerationRequest& out) {
  const Json* member = reader.find("logit_bias");
  if (member == nullptr || reader.failed()) return;
  if (!member->is_object()) {
    return reader.fail("logit_bias", str("expected an object of token ids, found ", describe(*member)));
  }
  if (std::ssize(member->as_object()) > kMaxLogitBiases) {
    return reader.fail("logit_bias",
                       str("expected at most ", kMaxLogitBiases, " tokens, found ", member->as_object().size()));
  }
  for (const auto& [name, value] : member->as_object()) {
    int64_t id = 0;
    if (!parse_int(name, id) || id < 0 || id >= limits.vocab_size) {
      return reader.fail("logit_bias",
                         str("expected token ids from 0 to ", limits.vocab_size - 1, ", found ", quoted(name, 40)));
    }
    if (!value.is_number() || !(value.as_double() >= -100 && value.as_double() <= 100)) {
      return reader.fail("logit_bias", str("expected numbers from -100 to 100, found ", describe(value)));
    }
    out.sampling.logit_bias.emplace_back(static_cast<int32_t>(id), value.as_double());
  }
}

void read_stop(FieldReader& reader, const RequestLimits& limits, GenerationRequest& out) {
  reader.token_ids("stop_token_ids", limits.vocab_size, 64, out.stop_token_ids);
  out.stop = read_texts(reader, "stop", {.count = kMaxStopStrings, .bytes = kMaxStopBytes});
}

void read_stream(FieldReader& reader, GenerationRequest& out) {
  reader.boolean("stream", out.stream);
  reader.boolean("return_progress", out.return_progress);
  const Json* options = reader.find("stream_options");
  if (options == nullptr || reader.failed()) return;
  if (!options->is_object()) {
    return reader.fail("stream_options", str("expected an object, found ", describe(*options)));
  }
  if (!out.stream) return reader.fail("stream_options", "expected it only with \"stream\": true");
  FieldReader inner(*options);
  inner.boolean("include_usage", out.include_usage);
  inner.boolean("continuous_usage_stats", out.continuous_usage);
  if (std::optional<ApiError> error = inner.take_error()) {
    error->message = "stream_options." + error->message;
    error->param = "stream_options." + error->param;
    reader.fail(*std::move(error));
  }
}

void read_response_format(FieldReader& reader, GenerationRequest& out) {
  const Json* format = reader.find("response_format");
  if (format == nullptr || reader.failed()) return;
  const Json* type = format->find("type");
  if (type == nullptr || !type->is_string()) {
    return reader.fail("response_format", "expected an object with a \"type\" of text, json_object or json_schema");
  }
  if (type->as_string() == "text") return;
  if (type->as_string() == "json_object") {
    out.format = ResponseFormat::kJsonObject;
    return;
  }
  if (type->as_string() != "json_schema") {
    return reader.fail("response_format.type",
                       str("expected text, json_object or json_schema, found ", describe(*type)));
  }
  const Json* named = format->find("json_schema");
  const Json* schema = named != nullptr ? named->find("schema") : nullptr;
  if (schema == nullptr || (!schema->is_object() && !schema->is_bool())) {
    return reader.fail("response_format.json_schema", "expected an object with a \"schema\"");
  }
  out.format = ResponseFormat::kJsonSchema;
  out.schema = *schema;
}

// A schema under one of vLLM's names: an object, or its text.
void take_schema(FieldReader& reader, const char* name, const Json& given, GenerationRequest& out) {
  Json schema = given;
  if (given.is_string()) {
    Result<Json> parsed = parse_json(given.as_string(), {.max_depth = 64});
    if (!parsed) return reader.fail(name, str("not valid JSON: ", parsed.error().message));
    schema = *std::move(parsed);
  }
  if (!schema.is_object()) return reader.fail(name, str("expected a JSON schema, found ", describe(schema)));
  if (out.format != ResponseFormat::kText) return reader.fail(name, "expected one schema or \"response_format\"");
  out.format = ResponseFormat::kJsonSchema;
  out.schema = std::move(schema);
  out.format_field = name;
}

// vLLM's own ways to ask for JSON: "guided_json", and "json" of "structured_outputs".
void read_vllm_formats(FieldReader& reader, GenerationRequest& out) {
  const Json* guided = reader.find("guided_json");
  if (guided != nullptr && !reader.failed()) take_schema(reader, "guided_json", *guided, out);
  const Json* outputs = reader.find("structured_outputs");
  if (outputs == nullptr || reader.failed()) return;
  if (!outputs->is_object()) {
    return reader.fail("structured_outputs", str("expected an object, found ", describe(*outputs)));
  }
  for (const auto& [name, value] : outputs->as_object()) {
    if (name == "json" && !value.is_null()) {
      take_schema(reader, "structured_outputs", value, out);
    } else if (!value.is_null()) {
      reader.fail("structured_outputs", str("expected \"json\" alone, found ", quoted(name, 40)));
    }
  }
}

// After the limit of tokens is known.
void read_min_tokens(FieldReader& reader, GenerationRequest& out) {
  if (!reader.whole("min_tokens", 0, kMaxTokens, out.min_tokens)) return;
  if (out.max_tokens < 0 || out.min_tokens <= out.max_tokens) return;
  reader.fail("min_tokens", str("expected at most max_tokens, ", out.max_tokens, ", found ", out.min_tokens));
}

// What other servers have and this one has not: better a clear refusal than half of an answer.
void refuse_unsupported(FieldReader& reader) {
  for (const char* name : {"functions",
                           "function_call",
                           "audio",
                           "include_stop_str_in_output",
                           "use_beam_search",
                           "length_penalty",
                           "grammar",
                           "guided_regex",
                           "guided_choice",
                           "guided_grammar",
                           "thinking_token_budget",
                           "continue_final_message",
                           "chat_template",
                           "typical_p",
                           "mirostat",
                           "xtc_probability",
                           "truncate_prompt_tokens",
                           "lora"}) {
    reader.refuse(name);
  }
  bool skip_special = true;
  if (reader.boolean("skip_special_tokens", skip_special) && !skip_special) {
    reader.fail("skip_special_tokens", "this server always leaves special tokens out");
  }
}

void read_common(FieldReader& reader, const RequestLimits& limits, GenerationRequest& out) {
  std::string ignored;
  reader.text("model", 1024, ignored);
  reader.text("user", 1 << 16, ignored);
  refuse_unsupported(reader);
  read_sampling(reader, limits, out);
  read_logit_bias(reader, limits, out);
  read_stop(reader, limits, out);
  read_stream(reader, out);
  reader.whole("n", 1, limits.max_choices, out.n);
  reader.boolean("ignore_eos", out.ignore_eos);
  reader.boolean("return_token_ids", out.return_token_ids);
  reader.whole("prompt_logprobs", 0, kMaxTopLogprobs, out.prompt_logprobs);
  if (!reader.failed() && out.prompt_logprobs >= 0 && out.stream) {
    reader.fail("prompt_logprobs", "expected it only without \"stream\": true");
  }
  read_response_format(reader, out);
  read_vllm_formats(reader, out);
}

void read_chat_logprobs(FieldReader& reader, GenerationRequest& out) {
  bool wanted = false;
  reader.boolean("logprobs", wanted);
  int64_t top = 0;
  const bool has_top = reader.whole("top_logprobs", 0, kMaxTopLogprobs, top);
  if (has_top && top > 0 && !wanted) {
    return reader.fail("top_logprobs", "expected it only with \"logprobs\": true");
  }
  if (wanted) out.logprobs = top;
}

void read_tool_fields(FieldReader& reader, GenerationRequest& out) {
  if (std::optional<ApiError> error = read_tools(reader.find("tools"), out.tools))
    return reader.fail(*std::move(error));
  reader.boolean("parallel_tool_calls", out.parallel_tool_calls);
  out.tool_choice = out.tools.is_null() ? ToolChoice::kNone : ToolChoice::kAuto;
  const Json* choice = reader.find("tool_choice");
  if (choice == nullptr || reader.failed()) return;
  if (choice->is_object()) {
    const Json* function = choice->find("function");
    const Json* name = function != nullptr ? function->find("name") : nullptr;
    if (name == nullptr || !name->is_string() || !has_tool(out.tools, name->as_string())) {
      return reader.fail("tool_choice", "expected the name of a function among \"tools\"");
    }
    out.tool_choice = ToolChoice::kNamed;
    out.tool_name = name->as_string();
    return;
  }
  size_t which = 0;
  if (!reader.one_of("tool_choice", {"none", "auto", "required"}, which)) return;
  if (which == 2 && out.tools.is_null()) return reader.fail("tool_choice", "expected \"tools\" with \"required\"");
  constexpr std::array kChoices = {ToolChoice::kNone, ToolChoice::kAuto, ToolChoice::kRequired};
  if (!out.tools.is_null()) out.tool_choice = kChoices[which];
}

// The variables of the template besides the messages.
void read_template_arguments(FieldReader& reader, Json& variables) {
  bool add_generation_prompt = true;
  reader.boolean("add_generation_prompt", add_generation_prompt);
  variables.set("add_generation_prompt", add_generation_prompt);
  size_t effort = 0;
  if (reader.one_of("reasoning_effort", {"none", "minimal", "low", "medium", "high", "xhigh"}, effort)) {
    variables.set("thinking", effort > 0);
    variables.set("enable_thinking", effort > 0);
    variables.set("reasoning_effort", *reader.find("reasoning_effort"));
  }
  const Json* arguments = reader.find("chat_template_kwargs");
  if (arguments == nullptr || reader.failed()) return;
  if (!arguments->is_object()) {
    return reader.fail("chat_template_kwargs", str("expected an object, found ", describe(*arguments)));
  }
  for (const auto& [name, value] : arguments->as_object()) {
    // Variables with such names are trusted with special tokens (tokenizer/chat_template.h).
    if (name == "messages" || name == "tools" || name.ends_with("_token")) {
      return reader.fail("chat_template_kwargs", str("expected other names than ", quoted(name, 40)));
    }
    variables.set(name, value);
  }
}

// messages and what belongs to them -> the variables of the chat template.
void read_conversation(FieldReader& reader, const Json& tools, Json& variables) {
  variables = Json::object();
  Json messages;
  if (std::optional<ApiError> error = read_messages(reader.find("messages"), messages)) {
    return reader.fail(*std::move(error));
  }
  variables.set("messages", std::move(messages));
  if (!tools.is_null()) variables.set("tools", tools);
  read_template_arguments(reader, variables);
}

// "prompt": a string, strings, token ids, or lists of token ids.
void read_prompts(FieldReader& reader, const RequestLimits& limits, std::vector<PromptInput>& out) {
  const Json* prompt = reader.find("prompt");
  if (reader.failed()) return;
  if (prompt == nullptr) return reader.fail("prompt", "expected a string, strings or token ids, found nothing");
  if (prompt->is_string()) {
    out.emplace_back(prompt->as_string());
    return;
  }
  if (!prompt->is_array() || prompt->as_array().empty()) {
    return reader.fail("prompt", str("expected a string, strings or token ids, found ", describe(*prompt)));
  }
  const Json::Array& items = prompt->as_array();
  const auto read_list = [&](const Json& list) {
    std::vector<int32_t> ids;
    if (const std::optional<std::string> wrong = read_ids(list, limits.vocab_size, kMaxPromptIds, ids)) {
      reader.fail("prompt", *wrong);
    }
    out.emplace_back(std::move(ids));
  };
  if (items.front().is_number()) return read_list(*prompt);
  if (std::ssize(items) > limits.max_choices) {
    return reader.fail("prompt", str("expected at most ", limits.max_choices, " prompts, found ", items.size()));
  }
  for (const Json& item : items) {
    if (item.is_string() && items.front().is_string()) {
      out.emplace_back(item.as_string());
    } else if (item.is_array() && items.front().is_array()) {
      read_list(item);
      if (reader.failed()) return;
    } else {
      return reader.fail("prompt", str("expected only strings or only lists of token ids, found ", describe(item)));
    }
  }
}

// After n and stream. 0 and 1 are what clients send that want nothing of it.
void read_best_of(FieldReader& reader, const RequestLimits& limits, GenerationRequest& out) {
  int64_t best_of = 0;
  reader.whole("best_of", 0, limits.max_choices, best_of);
  if (reader.failed()) return;
  out.best_of = best_of > 1 ? best_of : out.n;
  if (out.best_of < out.n) reader.fail("best_of", str("expected at least n, ", out.n, ", found ", best_of));
  if (out.best_of > out.n && out.stream) reader.fail("best_of", "expected more than n only without \"stream\": true");
}

// After the prompts.
void read_suffix(FieldReader& reader, GenerationRequest& out) {
  reader.text("suffix", size_t{1} << 30, out.suffix);
  if (reader.failed() || out.suffix.empty()) return;
  if (out.echo) return reader.fail("suffix", "expected it only without \"echo\": true");
  if (!std::holds_alternative<std::string>(out.prompts.front())) {
    reader.fail("suffix", "expected it only with text as the prompt");
  }
}

}  // namespace

std::optional<ApiError> parse_chat_request(std::string_view body, const RequestLimits& limits, GenerationRequest& out) {
  Json json;
  if (std::optional<ApiError> error = parse_object(body, json)) return error;
  out = {};
  out.chat = true;
  FieldReader reader(json);
  read_common(reader, limits, out);
  out.best_of = out.n;
  reader.refuse("suffix");
  reader.whole("max_tokens", 1, kMaxTokens, out.max_tokens);
  reader.whole("max_completion_tokens", 1, kMaxTokens, out.max_tokens);
  read_min_tokens(reader, out);
  read_chat_logprobs(reader, out);
  read_tool_fields(reader, out);
  reader.boolean("separate_reasoning", out.split_reasoning);
  read_conversation(reader, out.tool_choice == ToolChoice::kNone ? Json() : out.tools, out.template_variables);
  return reader.take_error();
}

std::optional<ApiError> parse_completion_request(std::string_view body,
                                                 const RequestLimits& limits,
                                                 GenerationRequest& out) {
  Json json;
  if (std::optional<ApiError> error = parse_object(body, json)) return error;
  out = {};
  FieldReader reader(json);
  read_common(reader, limits, out);
  out.max_tokens = 16;
  reader.whole("max_tokens", 0, kMaxTokens, out.max_tokens);
  read_min_tokens(reader, out);
  reader.boolean("echo", out.echo);
  reader.whole("logprobs", 0, kMaxTopLogprobs, out.logprobs);
  read_best_of(reader, limits, out);
  read_prompts(reader, limits, out.prompts);
  read_suffix(reader, out);
  const int64_t choices = std::ssize(out.prompts) * out.best_of;
  if (!reader.failed() && choices > limits.max_choices) {
    reader.fail("n", str("expected at most ", limits.max_choices, " answers in all, found ", choices));
  }
  return reader.take_error();
}

std::optional<ApiError> parse_tokenize_request(std::string_view body, TokenizeRequest& out) {
  Json json;
  if (std::optional<ApiError> error = parse_object(body, json)) return error;
  out = {};
  FieldReader reader(json);
  reader.boolean("add_special_tokens", out.add_special_tokens);
  reader.boolean("add_special", out.add_special_tokens);
  reader.boolean("return_token_strs", out.with_pieces);
  reader.boolean("with_pieces", out.with_pieces);
  std::string text;
  const char* name = reader.find("content") != nullptr ? "content" : "prompt";
  const bool has_text = reader.text(name, size_t{1} << 30, text);
  const bool has_messages = reader.find("messages") != nullptr;
  if (!reader.failed() && has_text == has_messages) {
    reader.fail("prompt", str("expected it or \"messages\", found ", has_text ? "both" : "neither"));
  }
  if (has_text) out.text = std::move(text);
  if (has_messages) {
    Json tools;
    if (std::optional<ApiError> error = read_tools(reader.find("tools"), tools)) reader.fail(*std::move(error));
    read_conversation(reader, tools, out.template_variables);
  }
  return reader.take_error();
}

std::optional<ApiError> parse_detokenize_request(std::string_view body,
                                                 const RequestLimits& limits,
                                                 DetokenizeRequest& out) {
  Json json;
  if (std::optional<ApiError> error = parse_object(body, json)) return error;
  out = {};
  FieldReader reader(json);
  if (!reader.token_ids("tokens", limits.vocab_size, kMaxPromptIds, out.tokens) && !reader.failed()) {
    reader.fail("tokens", "expected an array of token ids, found nothing");
  }
  return reader.take_error();
}

std::optional<ApiError> parse_template_request(std::string_view body, TemplateRequest& out) {
  Json json;
  if (std::optional<ApiError> error = parse_object(body, json)) return error;
  out = {};
  FieldReader reader(json);
  Json tools;
  if (std::optional<ApiError> error = read_tools(reader.find("tools"), tools)) reader.fail(*std::move(error));
  read_conversation(reader, tools, out.template_variables);
  return reader.take_error();
}

}  // namespace lathe::server
