#include "lathe/runtime/prompt.h"

#include "lathe/base/file.h"
#include "lathe/tokenizer/chat_template_encode.h"

namespace lathe {

std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view text, AddedTokens added_tokens) {
  std::vector<int32_t> ids;
  if (tokenizer.add_bos() && tokenizer.bos_id()) ids.push_back(*tokenizer.bos_id());
  const std::vector<int32_t> encoded = tokenizer.encode(text, added_tokens);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  return ids;
}

Result<ChatTemplate> open_chat_template(const Tokenizer& tokenizer,
                                        const std::optional<std::filesystem::path>& override_file) {
  if (override_file) {
    LATHE_TRY(const std::string source, read_file(*override_file, 1 << 20));
    Result<ChatTemplate> compiled = ChatTemplate::compile(source);
    if (!compiled) return compiled.error().at(override_file->string());
    return compiled;
  }
  if (!tokenizer.chat_template().empty()) {
    Result<ChatTemplate> compiled = ChatTemplate::compile(tokenizer.chat_template());
    if (!compiled) return compiled.error().at("chat_template");
    return compiled;
  }
  const bool has_turn_tokens =
      tokenizer.find("<｜User｜>").has_value() && tokenizer.find("<｜Assistant｜>").has_value();
  if (!has_turn_tokens) {
    return Error{Errc::kNotFound, "chat_template: expected one in tokenizer_config.json or turn tokens, found neither"};
  }
  return ChatTemplate::builtin(builtin_template_for(has_turn_tokens));
}

Result<Json> template_variables(const Tokenizer& tokenizer, const Json& request) {
  Json variables = Json::object();
  if (request.is_array()) {
    variables.set("messages", request);
  } else if (request.is_object()) {
    variables = request;
  } else {
    return Error{Errc::kInvalidData, str("messages: expected an object or an array, found ", request.kind_name())};
  }
  const Json* messages = variables.find("messages");
  if (messages == nullptr || !messages->is_array()) {
    return Error{
        Errc::kInvalidData,
        "messages: expected an array, found " + std::string(messages == nullptr ? "nothing" : messages->kind_name())};
  }
  for (const Json& message : messages->as_array()) {
    if (!message.is_object() || message.find("role") == nullptr || !message.find("role")->is_string()) {
      return Error{Errc::kInvalidData,
                   str("messages: expected objects with a \"role\", found ", quoted(message.dump()))};
    }
  }
  if (variables.find("add_generation_prompt") == nullptr) variables.set("add_generation_prompt", true);
  variables.set("bos_token", tokenizer.bos_text());
  variables.set("eos_token", tokenizer.eos_text());
  return variables;
}

namespace {

// What a template refuses or does wrong with given messages is wrong data, whatever its own code says.
Error template_error(const Error& error) {
  return Error{Errc::kInvalidData, error.message}.at("chat template");
}

}  // namespace

Result<std::string> render_chat(const ChatTemplate& chat_template, const Json& variables) {
  Result<std::string> text = chat_template.render(variables);
  if (!text) return template_error(text.error());
  return text;
}

Result<std::vector<int32_t>> encode_chat(const Tokenizer& tokenizer,
                                         const ChatTemplate& chat_template,
                                         const Json& variables,
                                         std::span<const TrustedText> trusted) {
  const Result<std::vector<RenderedPiece>> pieces = chat_template.render_pieces(variables, trusted);
  if (!pieces) return template_error(pieces.error());
  std::vector<int32_t> ids = encode_pieces(tokenizer, *pieces);
  // Templates write BOS themselves; the few that do not get one.
  const std::optional<int32_t> bos = tokenizer.bos_id();
  if (tokenizer.add_bos() && bos && (ids.empty() || ids.front() != *bos)) ids.insert(ids.begin(), *bos);
  return ids;
}

}  // namespace lathe
