// What a request demands of its answers' form, as constraints on their tokens.
#pragma once

#include <optional>
#include <vector>

#include "lathe/runtime/engine.h"
#include "lathe/server/api_request.h"
#include "lathe/server/served_model.h"

namespace lathe::server {

// Gives each of `answers`, whose prompts are set, the constraint of `response_format`; none where it is text. A schema
// that is new is compiled here, which takes milliseconds. Fails for one that is not supported.
std::optional<ApiError> constrain_answers(const ServedModel& model,
                                          const GenerationRequest& request,
                                          std::vector<Request>& answers);

}  // namespace lathe::server
