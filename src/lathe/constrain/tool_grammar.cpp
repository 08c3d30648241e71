#include "lathe/constrain/tool_grammar.h"

#include <algorithm>
#include <utility>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"
#include "lathe/constrain/automaton.h"
#include "lathe/constrain/schema_compiler.h"

namespace lathe {
namespace {

constexpr size_t kMaxName = 64;
constexpr int32_t kMaxCalls = 128;

int32_t add_marker(GrammarBuilder& builder, int32_t from, const std::string& marker, bool is_token) {
  if (!is_token) return builder.add_text(from, marker);
  const int32_t to = builder.new_state(builder.rule_of(from));
  builder.add_special(from, builder.new_special(marker), to);
  return to;
}

// A rule for one call of any of the tools, without the markers around it.
Result<int32_t> add_calls(GrammarBuilder& builder,
                          const std::vector<CallableTool>& tools,
                          const std::vector<Json>& schemas,
                          const ToolCallSyntax& syntax,
                          const SchemaLimits& limits) {
  CommonRules common(builder);
  const int32_t rule = builder.new_rule();
  const int32_t end = builder.new_state(rule);
  builder.accept(end);
  const bool tokens = syntax.markers_are_tokens;
  int32_t begin = add_marker(builder, builder.start_of(rule), syntax.call_begin, tokens);
  if (!syntax.type.empty()) {
    begin = add_marker(builder, builder.add_text(begin, syntax.type), syntax.separator, tokens);
  }
  const int32_t behind = builder.new_state(rule);
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string where = str("tool ", quoted(tools[i].name));
    Result<int32_t> arguments = SchemaCompiler(builder, common, schemas[i], limits).compile();
    if (!arguments) return arguments.error().at(where);
    int32_t at = builder.add_text(begin, tools[i].name);
    if (syntax.type.empty()) at = add_marker(builder, at, syntax.separator, tokens);
    builder.add_call(builder.add_text(at, syntax.before_arguments), *arguments, behind);
  }
  const int32_t done = builder.add_text(behind, syntax.after_arguments);
  builder.add_empty(add_marker(builder, done, syntax.call_end, tokens), end);
  return rule;
}

}  // namespace

bool is_tool_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName && std::all_of(name.begin(), name.end(), [](char c) {
    return is_ascii_alnum(c) || c == '_' || c == '-' || c == '.';
  });
}

ToolCallSyntax v3_call_syntax() {
  return {.calls_begin = "<｜tool▁calls▁begin｜>",
          .call_begin = "<｜tool▁call▁begin｜>",
          .type = "function",
          .separator = "<｜tool▁sep｜>",
          .before_arguments = "\n```json\n",
          .after_arguments = "\n```",
          .call_end = "<｜tool▁call▁end｜>",
          .between_calls = "\n",
          .calls_end = "<｜tool▁calls▁end｜>"};
}

ToolCallSyntax v31_call_syntax() {
  ToolCallSyntax syntax = v3_call_syntax();
  syntax.type.clear();
  syntax.before_arguments.clear();
  syntax.after_arguments.clear();
  syntax.between_calls.clear();
  return syntax;
}

Result<std::shared_ptr<const Grammar>> compile_tool_calls(const std::vector<CallableTool>& tools,
                                                          const ToolCallSyntax& syntax,
                                                          int32_t max_calls,
                                                          const SchemaLimits& limits) {
  if (tools.empty() || max_calls < 1 || max_calls > kMaxCalls) {
    return Error{
        Errc::kInvalidArgument,
        str("tool calls: expected tools and 1 to ", kMaxCalls, " calls, found ", tools.size(), " and ", max_calls)};
  }
  std::vector<Json> schemas;  // of an object in any case
  for (const CallableTool& tool : tools) {
    if (!is_tool_name(tool.name)) {
      return Error{
          Errc::kInvalidArgument,
          str("tool ", quoted(tool.name), ": expected a name of up to ", kMaxName, " characters a-z A-Z 0-9 _ - .")};
    }
    Json schema = tool.parameters != nullptr ? *tool.parameters : Json::object();
    if (schema.is_object() && schema.find("type") == nullptr) schema.set("type", "object");
    schemas.push_back(std::move(schema));
  }
  GrammarBuilder builder(limits.max_states, limits.max_output_depth);
  const bool tokens = syntax.markers_are_tokens;
  LATHE_TRY(const int32_t call, add_calls(builder, tools, schemas, syntax, limits));
  const int32_t root = builder.new_rule();
  const int32_t bounds = builder.new_bounds({0, max_calls - 1});
  const int32_t begin = add_marker(builder, builder.start_of(root), syntax.calls_begin, tokens);
  const int32_t loop = builder.new_state(root, bounds), end = builder.new_state(root);
  builder.accept(end);
  builder.add_call(begin, call, loop);
  if (syntax.between_calls.empty()) {
    builder.add_call(loop, call, loop, EdgeOp::kBelowMax | EdgeOp::kCount);
  } else {
    const int32_t ready = builder.new_state(root, bounds), next = builder.new_state(root, bounds);
    builder.add_byte(loop, syntax.between_calls[0], ready, EdgeOp::kBelowMax | EdgeOp::kCount);
    builder.add_empty(builder.add_text(ready, std::string_view(syntax.between_calls).substr(1)), next);
    builder.add_call(next, call, loop);
  }
  builder.add_empty(add_marker(builder, loop, syntax.calls_end, tokens), end);
  auto grammar = std::make_shared<Grammar>();
  LATHE_TRY(const bool possible, builder.finish(root, *grammar));
  if (!possible) return Error{Errc::kInvalidArgument, "tool calls: no arguments satisfy any tool's schema"};
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

}  // namespace lathe
