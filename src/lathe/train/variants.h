// Several runs of one recipe: ablations and stages that build on each other.
#pragma once

#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/train/recipe.h"

namespace lathe::train {

// The recipe of each variant: its keys set in `document`, the table the whole recipe was parsed from; its name as
// title, its own folder as output, the data in that of all. `@NAME` in model.from stays as it is. Errors name the
// variant.
Result<std::vector<Recipe>> variant_recipes(const Recipe& recipe, const Json& document);

// Of the report that compares them.
std::string comparison_title(const Recipe& recipe);

}  // namespace lathe::train
