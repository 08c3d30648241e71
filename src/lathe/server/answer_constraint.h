// What a request demands of its answers' form, as constraints on their tokens.
#pragma once

#include <optional>
#include <vector>

#include "lathe/runtime/engine.h"
#include "lathe/server/api_request.h"
#include "lathe/server/served_model.h"

namespace lathe::server {

// Gives each of `answers`, whose prompts are set, the constraint that the request asks for; none where any text will
// do. Refused, since they need grammars: `response_format` other than text, `tool_choice` "required" or with a name.
std::optional<ApiError> constrain_answers(const ServedModel& model,
                                          const GenerationRequest& request,
                                          std::vector<Request>& answers);

}  // namespace lathe::server
