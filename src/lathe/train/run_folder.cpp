#include "lathe/train/run_folder.h"

#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "lathe/base/str.h"

namespace lathe::train {

namespace fs = std::filesystem;

namespace {

// What writers that were killed left in a run's own folder.
void remove_leftovers(const fs::path& output) {
  std::error_code ignored;
  std::vector<fs::path> found;
  for (auto entry = fs::recursive_directory_iterator(output, ignored); entry != fs::recursive_directory_iterator();
       entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(".lathe-") && name.ends_with(".tmp")) found.push_back(entry->path());
  }
  for (const fs::path& path : found) fs::remove(path, ignored);
}

}  // namespace

Result<FileLock> lock_run_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return Error{Errc::kIo, str("output: ", folder, ": cannot make the folder: ", error.message())};
  Result<std::optional<FileLock>> lock = FileLock::try_take(folder / ".lock");
  if (!lock) return lock.error().at("output");
  if (!*lock) {
    return Error{Errc::kIo, str("output: ", folder, ": expected a folder no other run uses, found one at work")};
  }
  remove_leftovers(folder);
  return **std::move(lock);
}

std::string run_name(const Recipe& recipe) {
  return recipe.title.empty() ? fs::path(recipe.output).filename().string() : recipe.title;
}

fs::path data_folder(const Recipe& recipe) {
  return recipe.data.cache.empty() ? fs::path(recipe.output) / "data" : fs::path(recipe.data.cache);
}

}  // namespace lathe::train
