// How DeepSeek's models write tool calls, and which of the ways a model uses.
#pragma once

#include <string_view>

namespace lathe {

enum class ToolFormat {
  kNone,  // the template knows no tool calls: everything is content
  kV3,    // V3 and R1: type<sep>NAME, a newline, ```json, arguments, ```
  kV31,   // V3.1 and later: NAME<sep>arguments
};

// From the text of the chat template: what it writes between the markers of a call.
ToolFormat detect_tool_format(std::string_view chat_template);

// Whether the template knows <think>, so that answers begin with reasoning or may do so.
bool template_has_reasoning(std::string_view chat_template);

// Whether a rendered prompt ends inside <think>: the answer then begins with reasoning although no marker is in it.
bool prompt_opens_reasoning(std::string_view rendered_prompt);

// The markers, as the vocabularies have them.
inline constexpr std::string_view kThinkBegin = "<think>";
inline constexpr std::string_view kThinkEnd = "</think>";
inline constexpr std::string_view kToolCallsBegin = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kToolCallsEnd = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kToolCallBegin = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kToolCallEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kToolSep = "<｜tool▁sep｜>";

}  // namespace lathe
