// Whether a run may go on with a recipe other than the one it began with.
#pragma once

#include "lathe/base/json.h"
#include "lathe/base/result.h"

namespace lathe::train {

// Both as recipe_json() writes them. Keys that change nothing that was computed may differ, and so may the plan of the
// learning rate, with a warning. kInvalidArgument names any other, what is expected and found.
Status check_same_recipe(const Json& before, const Json& after);

}  // namespace lathe::train
