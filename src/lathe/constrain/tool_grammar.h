// Grammars of forced tool calls: `tool_choice` "required" or a named function.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/constrain/grammar.h"

namespace lathe {

// Whether a tool may have this name: 1 to 64 of the characters a-z A-Z 0-9 _ - . and no others.
bool is_tool_name(std::string_view name);

// One tool that may be called.
struct CallableTool {
  std::string name;                  // is_tool_name
  const Json* parameters = nullptr;  // schema of the arguments, which are an object; borrowed; null: any object
};

// How calls are written around name and arguments.
struct ToolCallSyntax {
  std::string calls_begin;
  std::string call_begin;
  std::string type;       // with a separator behind it; empty: neither
  std::string separator;  // behind the type, or behind the name where there is no type
  std::string before_arguments;
  std::string after_arguments;
  std::string call_end;
  std::string between_calls;
  std::string calls_end;
  // The markers (calls_begin, call_begin, separator, call_end, calls_end) are special or added tokens of the
  // vocabulary, each one token; otherwise they are written as text.
  bool markers_are_tokens = true;
};

// DeepSeek's two ways; see ToolFormat in chat/tool_format.h.
ToolCallSyntax v3_call_syntax();
ToolCallSyntax v31_call_syntax();

// One to `max_calls` calls of the tools, each with arguments that satisfy the tool's schema, and nothing else. Errors
// are those of compile_json_schema with `tool "NAME": ` in front.
Result<std::shared_ptr<const Grammar>> compile_tool_calls(const std::vector<CallableTool>& tools,
                                                          const ToolCallSyntax& syntax,
                                                          int32_t max_calls,
                                                          const SchemaLimits& limits = {});

}  // namespace lathe
