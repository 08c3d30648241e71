// The forms of models that come without a template, written as templates.
#pragma once

#include <string_view>

namespace lathe {

// Empty for an unknown name; the names are "v2" and "v3".
std::string_view builtin_template_source(std::string_view name);

}  // namespace lathe
