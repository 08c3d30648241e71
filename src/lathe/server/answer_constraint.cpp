#include "lathe/server/answer_constraint.h"

namespace lathe::server {

std::optional<ApiError> constrain_answers(const ServedModel& /*model*/,
                                          const GenerationRequest& request,
                                          std::vector<Request>& /*answers*/) {
  if (request.tool_choice == ToolChoice::kRequired || request.tool_choice == ToolChoice::kNamed) {
    return invalid_field("tool_choice", "expected none or auto: this server cannot force calls yet");
  }
  if (request.format != ResponseFormat::kText) {
    return invalid_field("response_format", "this server does not support it yet");
  }
  return {};
}

}  // namespace lathe::server
