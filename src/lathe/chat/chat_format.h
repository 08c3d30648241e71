// How a model's chat template, and therefore its answers, write reasoning and tool calls.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "lathe/base/result.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

// DeepSeek's two ways to write tool calls.
enum class ToolFormat {
  kNone,  // the template knows no tool calls, or writes them in another way
  kV3,    // V2.5, V3, R1: begin "function" sep NAME, a newline, ```json, ARGUMENTS, ```, end
  kV31,   // V3.1: begin NAME sep ARGUMENTS end
};

// What the text of a chat template tells.
struct ChatFormat {
  ToolFormat tools = ToolFormat::kNone;
  bool reasoning = false;    // it knows <think>: answers may begin with reasoning
  bool lists_tools = false;  // it reads the variable `tools`; otherwise nothing would tell the model of them
  bool arguments_as_objects =
      false;  // it writes the arguments of earlier calls as JSON itself, so they must not be text
};

// Any text is fine; what is no template has none of it.
ChatFormat detect_chat_format(std::string_view chat_template);

// Whether a prompt ends with <think> (and white space): the answer then begins with reasoning although no marker is in
// it. Text behind the marker is the answer's beginning, not an open thought.
bool prompt_opens_reasoning(std::string_view prompt);
// The same of its ids.
bool prompt_opens_reasoning(const Tokenizer& tokenizer, std::span<const int32_t> prompt);

// The token </think>, behind which the answer to such a prompt comes. Fails where the vocabulary has none.
Result<int32_t> end_of_thoughts(const Tokenizer& tokenizer);

// The markers, as the vocabularies have them.
inline constexpr std::string_view kThinkBegin = "<think>";
inline constexpr std::string_view kThinkEnd = "</think>";
inline constexpr std::string_view kToolCallsBegin = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kToolCallsEnd = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kToolCallBegin = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kToolCallEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kToolSep = "<｜tool▁sep｜>";

// What JSON and the formats take as white space.
inline constexpr std::string_view kChatSpace = " \t\r\n";

// `text` without it at the beginning, or at the end.
std::string_view without_leading_space(std::string_view text);
std::string_view without_trailing_space(std::string_view text);

}  // namespace lathe
