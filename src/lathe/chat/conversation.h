// A chat request's messages and tools in the form that the model's template can write.
#pragma once

#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/chat/chat_format.h"
#include "lathe/tokenizer/chat_template.h"

namespace lathe {

struct ToolDescription {
  std::string text;
  // The bytes of `text` that show a call. They are what models write, so the markers in them are tokens.
  size_t pattern_begin = 0;
  size_t pattern_end = 0;
};

// What DeepSeek's models are told about their tools: names, descriptions, schemas, and how to call them. `tools`: an
// array of {"function": {"name", "description", "parameters"}}. `format` is not kNone.
ToolDescription describe_tools(ToolFormat format, const Json& tools);

struct Conversation {
  Json variables;                    // of a chat template: {"messages": [...], "tools": [...], ...}
  std::vector<TrustedText> trusted;  // of its messages
};

// The variables of a chat template, adapted to it:
// - tools that the template does not list are described in a system message behind the leading ones, of which the
//   pattern of a call is trusted and the words about the tools are not;
// - arguments of earlier calls, which arrive as text, become objects where the template writes JSON itself;
// - an assistant's content is null beside calls when it is empty, which is what templates look for.
// Without tool calls of a known format messages stay as they are.
Conversation adapt_conversation(const ChatFormat& format, const Json& variables);

}  // namespace lathe
