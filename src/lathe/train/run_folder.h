// The output folder of a recipe: who may work in it, and where its parts lie.
#pragma once

#include <filesystem>
#include <string>

#include "lathe/base/file_lock.h"
#include "lathe/base/result.h"
#include "lathe/train/recipe.h"

namespace lathe::train {

// Makes the folder where it is missing, and removes from it what writers that were killed left. kIo when another
// process holds its lock: only one works on an output folder.
Result<FileLock> lock_run_folder(const std::filesystem::path& folder);

// What the recipe's run is called: its title, or else its folder.
std::string run_name(const Recipe& recipe);

// Where the recipe's tokenizer and token files are.
std::filesystem::path data_folder(const Recipe& recipe);

}  // namespace lathe::train
