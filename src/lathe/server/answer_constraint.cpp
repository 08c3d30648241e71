#include "lathe/server/answer_constraint.h"

namespace lathe::server {

std::variant<std::shared_ptr<TokenConstraint>, ApiError> make_constraint(const GenerationRequest& request) {
  if (request.format != ResponseFormat::kText) {
    return invalid_field("response_format", "this server does not support it yet");
  }
  if (request.tool_choice == ToolChoice::kRequired || request.tool_choice == ToolChoice::kNamed) {
    return invalid_field("tool_choice", "expected none or auto: this server cannot force calls yet");
  }
  return nullptr;
}

}  // namespace lathe::server
