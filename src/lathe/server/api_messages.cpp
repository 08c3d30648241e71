#include "lathe/server/api_messages.h"

#include <algorithm>
#include <array>

#include "lathe/base/str.h"
#include "lathe/constrain/tool_grammar.h"
#include "lathe/server/api_request.h"
#include "lathe/server/field_reader.h"

namespace lathe::server {

namespace {

constexpr size_t kMaxMessages = 1 << 14;
constexpr size_t kMaxToolCalls = 128;

// A string, or an array of text parts, as text.
std::optional<ApiError> read_content(const Json& content, const std::string& where, std::string& out) {
  if (content.is_string()) {
    out = content.as_string();
    return {};
  }
  if (!content.is_array()) {
    return invalid_field(where, str("expected a string or an array of text parts, found ", describe(content)));
  }
  for (const Json& part : content.as_array()) {
    const Json* type = part.find("type");
    const Json* text = part.find("text");
    if (type == nullptr || !type->is_string()) return invalid_field(where, "expected parts with a \"type\"");
    if (type->as_string() != "text") {
      return invalid_field(where, str("expected parts of type text, found ", describe(*type)));
    }
    if (text == nullptr || !text->is_string()) return invalid_field(where, "expected text parts with a \"text\"");
    out += text->as_string();
  }
  return {};
}

// {"id", "type": "function", "function": {"name", "arguments"}}; arguments stay the text they are.
std::optional<ApiError> read_tool_calls(const Json& calls, const std::string& where, Json& out) {
  if (!calls.is_array() || calls.as_array().size() > kMaxToolCalls) {
    return invalid_field(where, str("expected an array of at most ", kMaxToolCalls, " calls, found ", describe(calls)));
  }
  out = Json::array();
  for (const Json& call : calls.as_array()) {
    const Json* function = call.find("function");
    const Json* name = function != nullptr ? function->find("name") : nullptr;
    const Json* arguments = function != nullptr ? function->find("arguments") : nullptr;
    if (name == nullptr || !name->is_string()) return invalid_field(where, "expected calls with a function's \"name\"");
    if (arguments != nullptr && !arguments->is_string() && !arguments->is_object()) {
      return invalid_field(where, str("expected arguments as a string of JSON, found ", describe(*arguments)));
    }
    Json inner = Json::object();
    inner.set("name", *name);
    inner.set("arguments",
              arguments == nullptr ? Json("{}") : (arguments->is_string() ? *arguments : Json(arguments->dump())));
    Json one = Json::object();
    if (const Json* id = call.find("id"); id != nullptr && id->is_string()) one.set("id", *id);
    one.set("type", "function");
    one.set("function", std::move(inner));
    out.push(std::move(one));
  }
  return {};
}

std::optional<ApiError> read_message(const Json& message, const std::string& where, Json& out) {
  if (!message.is_object()) return invalid_field(where, str("expected an object, found ", describe(message)));
  constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};
  const Json* role = message.find("role");
  if (role == nullptr || !role->is_string() || std::ranges::find(kRoles, role->as_string()) == kRoles.end()) {
    return invalid_field(where + ".role",
                         str("expected system, developer, user, assistant or tool, found ",
                             role != nullptr ? describe(*role) : "nothing"));
  }
  const bool assistant = role->as_string() == "assistant";
  out = Json::object();
  out.set("role", role->as_string() == "developer" ? "system" : role->as_string());
  const Json* content = message.find("content");
  const Json* calls = message.find("tool_calls");
  const bool has_calls = assistant && calls != nullptr && !calls->is_null();
  if (content != nullptr && !content->is_null()) {
    std::string text;
    if (std::optional<ApiError> error = read_content(*content, where + ".content", text)) return error;
    out.set("content", std::move(text));
  } else if (has_calls) {
    out.set("content", Json());
  } else if (assistant && content != nullptr) {
    out.set("content", "");
  } else {
    return invalid_field(where + ".content", "expected a string or an array of text parts, found nothing");
  }
  if (has_calls) {
    Json checked;
    if (std::optional<ApiError> error = read_tool_calls(*calls, where + ".tool_calls", checked)) return error;
    if (!checked.as_array().empty()) out.set("tool_calls", std::move(checked));
  }
  for (const char* name : {"name", "tool_call_id", "reasoning_content"}) {
    const Json* member = message.find(name);
    if (member == nullptr || member->is_null()) continue;
    if (!member->is_string()) {
      return invalid_field(str(where, ".", name), str("expected a string, found ", describe(*member)));
    }
    out.set(name, *member);
  }
  return {};
}

}  // namespace

std::optional<ApiError> read_messages(const Json* messages, Json& out) {
  if (messages == nullptr || !messages->is_array() || messages->as_array().empty()) {
    return invalid_field("messages",
                         str("expected an array of at least one message, found ",
                             messages == nullptr ? "nothing" : describe(*messages)));
  }
  if (messages->as_array().size() > kMaxMessages) {
    return invalid_field("messages", str("expected at most ", kMaxMessages, ", found ", messages->as_array().size()));
  }
  out = Json::array();
  for (size_t i = 0; i < messages->as_array().size(); ++i) {
    Json message;
    if (std::optional<ApiError> error = read_message(messages->as_array()[i], str("messages[", i, "]"), message)) {
      return error;
    }
    out.push(std::move(message));
  }
  return {};
}

std::optional<ApiError> read_tools(const Json* tools, Json& out) {
  out = Json();
  if (tools == nullptr) return {};
  if (!tools->is_array() || std::ssize(tools->as_array()) > kMaxTools) {
    return invalid_field("tools", str("expected an array of at most ", kMaxTools, " tools, found ", describe(*tools)));
  }
  for (size_t i = 0; i < tools->as_array().size(); ++i) {
    const Json& tool = tools->as_array()[i];
    const std::string where = str("tools[", i, "]");
    const Json* type = tool.find("type");
    if (type == nullptr || !type->is_string() || type->as_string() != "function") {
      return invalid_field(where + ".type",
                           str("expected \"function\", found ", type != nullptr ? describe(*type) : "nothing"));
    }
    const Json* function = tool.find("function");
    const Json* name = function != nullptr ? function->find("name") : nullptr;
    if (name == nullptr || !name->is_string() || !is_tool_name(name->as_string())) {
      return invalid_field(where + ".function.name", "expected 1 to 64 letters, digits, '_', '-' or '.'");
    }
    if (has_tool(out, name->as_string())) {
      return invalid_field(where + ".function.name", str("expected each name once, found ", describe(*name), " again"));
    }
    const Json* parameters = function->find("parameters");
    if (parameters != nullptr && !parameters->is_null() && !parameters->is_object()) {
      return invalid_field(where + ".function.parameters",
                           str("expected a JSON schema object, found ", describe(*parameters)));
    }
    const Json* description = function->find("description");
    if (description != nullptr && !description->is_null() && !description->is_string()) {
      return invalid_field(where + ".function.description", str("expected a string, found ", describe(*description)));
    }
    out.push(tool);
  }
  return {};
}

bool has_tool(const Json& tools, std::string_view name) {
  if (!tools.is_array()) return false;
  return std::ranges::any_of(
      tools.as_array(), [name](const Json& tool) { return tool.find("function")->find("name")->as_string() == name; });
}

}  // namespace lathe::server
