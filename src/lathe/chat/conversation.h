// A chat request's messages and tools in the form that the model's template can write.
#pragma once

#include <string>

#include "lathe/base/json.h"
#include "lathe/chat/chat_format.h"

namespace lathe {

// What DeepSeek's models are told about their tools: names, descriptions, schemas, and how to call them. `tools`: an
// array of {"function": {"name", "description", "parameters"}}. `format` is not kNone.
std::string describe_tools(ToolFormat format, const Json& tools);

// The variables of a chat template ({"messages": [...], "tools": [...], ...}), adapted to it:
// - tools that the template does not list are described in a system message behind the leading ones;
// - arguments of earlier calls, which arrive as text, become objects where the template writes JSON itself;
// - an assistant's content is null beside calls when it is empty, which is what templates look for.
// Without tool calls of a known format messages stay as they are.
Json adapt_conversation(const ChatFormat& format, const Json& variables);

}  // namespace lathe
