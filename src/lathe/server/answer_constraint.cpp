#include "lathe/server/answer_constraint.h"

#include <algorithm>
#include <array>
#include <utility>

#include "lathe/chat/chat_format.h"

namespace lathe::server {

namespace {

constexpr int32_t kMaxForcedCalls = 16;

using Masks = Result<std::shared_ptr<GrammarMasks>>;

bool forces_calls(const GenerationRequest& request) {
  return request.tool_choice == ToolChoice::kRequired || request.tool_choice == ToolChoice::kNamed;
}

Masks masks_of_calls(const ServedModel& model, const GenerationRequest& request) {
  std::vector<CallableTool> tools;
  for (const Json& tool : request.tools.as_array()) {
    const Json& function = *tool.find("function");
    const std::string& name = function.find("name")->as_string();
    if (request.tool_choice == ToolChoice::kNamed && name != request.tool_name) continue;
    tools.push_back({.name = name, .parameters = function.find("parameters")});
  }
  ToolCallSyntax syntax = model.chat_format.tools == ToolFormat::kV3 ? v3_call_syntax() : v31_call_syntax();
  constexpr std::array kMarkers = {kToolCallsBegin, kToolCallsEnd, kToolCallBegin, kToolCallEnd, kToolSep};
  syntax.markers_are_tokens =
      std::ranges::all_of(kMarkers, [&](std::string_view marker) { return model.tokenizer->find(marker).has_value(); });
  // OpenAI: a named function is called once.
  const bool one = request.tool_choice == ToolChoice::kNamed || !request.parallel_tool_calls;
  return model.constraints->prepare_calls(tools, syntax, one ? 1 : kMaxForcedCalls);
}

Masks masks_of_format(const ServedModel& model, const GenerationRequest& request) {
  if (request.format == ResponseFormat::kJsonSchema) return model.constraints->prepare(request.schema);
  return model.constraints->prepare_object();
}

}  // namespace

std::optional<ApiError> constrain_answers(const ServedModel& model,
                                          const GenerationRequest& request,
                                          std::vector<Request>& answers) {
  const bool calls = forces_calls(request);
  if (!calls && request.format == ResponseFormat::kText) return {};
  if (calls && request.format != ResponseFormat::kText) {
    return invalid_field(request.format_field, "expected text beside a \"tool_choice\" that forces calls");
  }
  Masks masks = calls ? masks_of_calls(model, request) : masks_of_format(model, request);
  const char* field = calls ? "tools" : request.format_field;
  if (!masks) return invalid_field(field, masks.error().message);
  for (Request& answer : answers) {
    // Where the prompt leaves the model in its thoughts, the answer comes behind the token that ends them.
    std::optional<int32_t> marker;
    if (request.chat && model.opens_reasoning(answer.prompt)) {
      const Result<int32_t> end = end_of_thoughts(*model.tokenizer);
      if (!end) return invalid_field(field, end.error().message);
      marker = *end;
    }
    answer.constraint = model.constraints->begin(*masks, marker);
  }
  return {};
}

}  // namespace lathe::server
