// Tokens -> tree. Unknown tags, filters and tests are errors here, naming them and their line.
#pragma once

#include <string_view>

#include "lathe/base/result.h"
#include "lathe/tokenizer/jinja_ast.h"

namespace lathe::jinja {

// `max_depth` bounds how deep brackets, operators and blocks nest. Errors: `line 3: unknown tag 'include'`.
Result<Template> parse_template(std::string_view source, int max_depth);

}  // namespace lathe::jinja
