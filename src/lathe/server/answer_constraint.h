// What a request demands of its answers' form, as constraints on their tokens.
#pragma once

#include <optional>
#include <vector>

#include "lathe/runtime/engine.h"
#include "lathe/server/api_request.h"
#include "lathe/server/served_model.h"

namespace lathe::server {

// Gives each of `answers`, whose prompts are set, the constraint of `response_format`, or of a `tool_choice` that
// forces calls; none where any text will do. What is new is compiled here, which takes milliseconds. Fails for schemas
// that are not supported.
std::optional<ApiError> constrain_answers(const ServedModel& model,
                                          const GenerationRequest& request,
                                          std::vector<Request>& answers);

}  // namespace lathe::server
