// MessageSplitter: the tokens of a chat's answer to its parts: reasoning, content, tool calls.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lathe/runtime/engine.h"

namespace lathe::server {

// A piece of a message, in the order of the answer.
struct MessagePart {
  enum class Kind {
    kReasoning,  // text
    kContent,    // text
    kToolCall,   // a call begins: index, id, name; its arguments follow
    kArguments,  // index, text: the next piece of the arguments' JSON text
  };

  Kind kind = Kind::kContent;
  std::string text = {};
  int32_t index = 0;
  std::string id = {};
  std::string name = {};
};

// A whole message.
struct MessageParts {
  struct ToolCall {
    std::string id;
    std::string name;
    std::string arguments;
  };

  std::string reasoning;
  std::string content;
  std::vector<ToolCall> tool_calls;

  // Appends a piece where it belongs.
  void add(const MessagePart& part);
};

// State of one answer.
class MessageSplitter {
 public:
  // What became certain with these tokens, whose text is `text`.
  std::vector<MessagePart> push(const std::vector<SampledToken>& tokens, std::string text);
  // The rest at the end.
  std::vector<MessagePart> finish();
};

}  // namespace lathe::server
