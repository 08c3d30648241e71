#include "lathe/chat/chat_format.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"

namespace lathe {

namespace {

bool is_word(char c) {
  return is_ascii_alnum(c) || c == '_';
}

// Whether the code of a template (what stands in {{ }} and {% %}, outside of strings) has the name `wanted`.
bool code_has_name(std::string_view source, std::string_view wanted) {
  bool code = false;
  char quote = 0;
  for (size_t i = 0; i < source.size(); ++i) {
    const std::string_view rest = source.substr(i);
    const char c = source[i];
    if (!code) {
      code = rest.starts_with("{{") || rest.starts_with("{%");
    } else if (quote != 0) {
      if (c == '\\') {
        ++i;
      } else if (c == quote) {
        quote = 0;
      }
    } else if (c == '\'' || c == '"') {
      quote = c;
    } else if (rest.starts_with("}}") || rest.starts_with("%}")) {
      code = false;
    } else if (rest.starts_with(wanted) && !is_word(source[i - 1]) && source[i - 1] != '.' &&
               (rest.size() == wanted.size() || !is_word(rest[wanted.size()]))) {
      return true;
    }
  }
  return false;
}

// Whether a template pipes the member `arguments` of something to tojson.
bool pipes_arguments_to_json(std::string_view source) {
  constexpr std::array<std::string_view, 3> kMembers = {"['arguments']", "[\"arguments\"]", ".arguments"};
  return std::ranges::any_of(kMembers, [source](std::string_view member) {
    for (size_t at = source.find(member); at != std::string_view::npos; at = source.find(member, at + 1)) {
      std::string_view rest = without_leading_space(source.substr(at + member.size()));
      if (!rest.starts_with('|')) continue;
      rest = without_leading_space(rest.substr(1));
      if (rest.starts_with("tojson")) return true;
    }
    return false;
  });
}

}  // namespace

std::string_view without_leading_space(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(kChatSpace), text.size()));
}

std::string_view without_trailing_space(std::string_view text) {
  return text.substr(0, text.find_last_not_of(kChatSpace) + 1);
}

ChatFormat detect_chat_format(std::string_view chat_template) {
  const auto has = [chat_template](std::string_view text) {
    return chat_template.find(text) != std::string_view::npos;
  };
  ChatFormat out;
  if (has(kToolCallBegin) && has(kToolSep)) out.tools = has("```json") ? ToolFormat::kV3 : ToolFormat::kV31;
  out.reasoning = has(kThinkBegin) || has(kThinkEnd);
  out.lists_tools = code_has_name(chat_template, "tools");
  out.arguments_as_objects = pipes_arguments_to_json(chat_template);
  return out;
}

bool prompt_opens_reasoning(std::string_view prompt) {
  return without_trailing_space(prompt).ends_with(kThinkBegin);
}

bool prompt_opens_reasoning(const Tokenizer& tokenizer, std::span<const int32_t> prompt) {
  constexpr size_t kTokens = 16;  // can hold the marker, whatever it is made of, and white space
  return prompt_opens_reasoning(
      tokenizer.decode(prompt.last(std::min(prompt.size(), kTokens)), /*skip_special=*/false));
}

Result<int32_t> end_of_thoughts(const Tokenizer& tokenizer) {
  if (const std::optional<int32_t> marker = tokenizer.find(kThinkEnd)) return *marker;
  return Error{
      Errc::kInvalidArgument,
      str("expected a vocabulary with ", kThinkEnd, " where the prompt ends in ", kThinkBegin, ", found none")};
}

}  // namespace lathe
