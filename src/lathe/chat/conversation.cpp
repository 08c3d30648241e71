#include "lathe/chat/conversation.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "lathe/base/str.h"

namespace lathe {

namespace {

std::string call_pattern(ToolFormat format) {
  constexpr std::string_view kName = "tool_call_name";
  constexpr std::string_view kArguments = "tool_call_arguments";
  if (format == ToolFormat::kV3) {
    return str(kToolCallBegin, "function", kToolSep, kName, "\n```json\n", kArguments, "\n```", kToolCallEnd);
  }
  return str(kToolCallBegin, kName, kToolSep, kArguments, kToolCallEnd);
}

std::string_view text_of(const Json& object, std::string_view name) {
  const Json* member = object.find(name);
  return member != nullptr && member->is_string() ? std::string_view(member->as_string()) : std::string_view();
}

bool is_array(const Json* value) {
  return value != nullptr && value->is_array();
}

// Text that is no JSON object stays: the template shows what the model wrote.
void parse_arguments(Json& call) {
  const Json* function = call.find("function");
  if (function == nullptr) return;
  Result<Json> arguments = parse_json(text_of(*function, "arguments"));
  if (!arguments || !arguments->is_object()) return;
  Json changed = *function;
  changed.set("arguments", *std::move(arguments));
  call.set("function", std::move(changed));
}

Json adapt_message(const ChatFormat& format, const Json& message) {
  const Json* calls = message.find("tool_calls");
  if (!is_array(calls) || calls->as_array().empty()) return message;
  Json out = message;
  const Json* content = message.find("content");
  if (content != nullptr && content->is_string() && content->as_string().empty()) out.set("content", Json());
  if (format.arguments_as_objects) {
    Json changed = *calls;
    for (Json& call : changed.as_array()) parse_arguments(call);
    out.set("tool_calls", std::move(changed));
  }
  return out;
}

}  // namespace

ToolDescription describe_tools(ToolFormat format, const Json& tools) {
  std::string out = "## Tools\nYou have access to the following tools:\n";
  for (const Json& tool : tools.as_array()) {
    const Json* function = tool.find("function");
    if (function == nullptr) continue;
    out += str("\n### ", text_of(*function, "name"), "\n");
    if (const std::string_view text = text_of(*function, "description"); !text.empty()) {
      out += str("Description: ", text, "\n");
    }
    const Json* parameters = function->find("parameters");
    out += str("\nParameters: ", parameters != nullptr && parameters->is_object() ? parameters->dump() : "{}", "\n");
  }
  out += "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n";
  const size_t pattern_begin = out.size();
  out += str(kToolCallsBegin, call_pattern(format), "{additional_tool_calls}", kToolCallsEnd);
  const size_t pattern_end = out.size();
  out +=
      "\n\nWhere:\n- `tool_call_name` must be an exact match to one of the available tools\n"
      "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n"
      "- For multiple tool calls, chain them directly without separators or spaces";
  return {.text = std::move(out), .pattern_begin = pattern_begin, .pattern_end = pattern_end};
}

Conversation adapt_conversation(const ChatFormat& format, const Json& variables) {
  Conversation out{.variables = variables, .trusted = {}};
  const Json* messages = variables.find("messages");
  if (format.tools == ToolFormat::kNone || !is_array(messages)) return out;
  Json changed = Json::array();
  for (const Json& message : messages->as_array()) changed.push(adapt_message(format, message));
  const Json* tools = variables.find("tools");
  if (!format.lists_tools && is_array(tools) && !tools->as_array().empty()) {
    ToolDescription description = describe_tools(format.tools, *tools);
    Json system = Json::object();
    system.set("role", "system");
    system.set("content", std::move(description.text));
    Json::Array& all = changed.as_array();
    const auto place = std::ranges::find_if_not(all, [](const Json& m) { return text_of(m, "role") == "system"; });
    out.trusted.push_back({.message = static_cast<size_t>(place - all.begin()),
                           .begin = description.pattern_begin,
                           .end = description.pattern_end});
    all.insert(place, std::move(system));
  }
  out.variables.set("messages", std::move(changed));
  return out;
}

}  // namespace lathe
