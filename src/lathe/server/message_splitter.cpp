#include "lathe/server/message_splitter.h"

#include <utility>

namespace lathe::server {

void MessageParts::add(const MessagePart& part) {
  switch (part.kind) {
    case MessagePart::Kind::kReasoning:
      reasoning += part.text;
      break;
    case MessagePart::Kind::kContent:
      content += part.text;
      break;
    case MessagePart::Kind::kToolCall:
      tool_calls.push_back({.id = part.id, .name = part.name, .arguments = {}});
      break;
    case MessagePart::Kind::kArguments:
      if (!tool_calls.empty()) tool_calls.back().arguments += part.text;
      break;
  }
}

std::vector<MessagePart> MessageSplitter::push(const std::vector<SampledToken>& /*tokens*/, std::string text) {
  if (text.empty()) return {};
  return {{.kind = MessagePart::Kind::kContent, .text = std::move(text)}};
}

std::vector<MessagePart> MessageSplitter::finish() {
  return {};
}

}  // namespace lathe::server
