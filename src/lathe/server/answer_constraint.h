// What a request demands of its answers' form, as a constraint on their tokens.
#pragma once

#include <memory>
#include <variant>

#include "lathe/server/api_request.h"
#include "lathe/tokenizer/token_constraint.h"

namespace lathe::server {

// A constraint for one answer, or null where any text will do. `response_format` other than text and `tool_choice`
// "required" or with a name need grammars, which this server has none of: they are refused.
std::variant<std::shared_ptr<TokenConstraint>, ApiError> make_constraint(const GenerationRequest& request);

}  // namespace lathe::server
