// Grammars of forced tool calls: `tool_choice` "required" or a named function.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/constrain/grammar.h"

namespace lathe {

// One tool that may be called.
struct CallableTool {
  std::string name;                  // [a-zA-Z0-9_-]{1,64}
  const Json* parameters = nullptr;  // JSON schema of the arguments, an object's; borrowed; null: any object
};

// How calls are written. The texts named marker_* are single tokens of the vocabulary where it has them as special or
// added tokens
// (`markers_are_tokens`), and plain text otherwise.
struct ToolCallSyntax {
  std::string calls_begin;
  std::string call_begin;  // V3: with no type in it
  std::string type;        // V3: "function"; empty: no type and no separator after it
  std::string separator;
  std::string before_arguments;  // V3: "\n```json\n"
  std::string after_arguments;   // V3: "\n```"
  std::string call_end;
  std::string between_calls;  // V3: "\n"
  std::string calls_end;
  bool markers_are_tokens = true;  // calls_begin, call_begin, separator, call_end, calls_end
};

// One call of one of the tools, or up to `max_calls` of them, with arguments that satisfy the tool's schema. Errors are
// those of compile_json_schema, with `tool "NAME": ` in front.
Result<std::shared_ptr<const Grammar>> compile_tool_calls(const std::vector<CallableTool>& tools,
                                                          const ToolCallSyntax& syntax,
                                                          int32_t max_calls,
                                                          const SchemaLimits& limits = {});

}  // namespace lathe
