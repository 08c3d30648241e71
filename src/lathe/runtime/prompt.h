// From text or messages to prompt ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/tokenizer/chat_template.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

// BOS (when the tokenizer adds one) and the text. User text: special tokens in it stay text.
std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view text, AddedTokens added_tokens);

// The model's chat template: its own, the override file's, or the built-in form that fits its special tokens; nothing
// (kNotFound) for a base model with neither template nor chat tokens.
Result<ChatTemplate> open_chat_template(const Tokenizer& tokenizer,
                                        const std::optional<std::filesystem::path>& override_file);

// Template variables for messages: adds bos_token and eos_token, and add_generation_prompt unless `request` has it.
// `request` is {"messages": [...], ...} or a bare array of messages.
Result<Json> template_variables(const Tokenizer& tokenizer, const Json& request);

// The rendered prompt as text. Errors begin with "chat template: ".
Result<std::string> render_chat(const ChatTemplate& chat_template, const Json& variables);

// Renders and encodes: template text and what of the messages is `trusted` with special tokens recognised, the rest of
// the messages without, no second BOS.
Result<std::vector<int32_t>> encode_chat(const Tokenizer& tokenizer,
                                         const ChatTemplate& chat_template,
                                         const Json& variables,
                                         std::span<const TrustedText> trusted = {});

}  // namespace lathe
