// hub_list and hub_remove: what lies in the cache, whoever put it there.
#include <sys/stat.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/formats/hub.h"
#include "lathe/formats/hub_cache.h"

namespace lathe {
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "models--";
constexpr uint64_t kMaxRefBytes = 4096;

using FileId = std::pair<uint64_t, uint64_t>;  // device, inode

struct Ref {
  std::string revision;
  std::string commit;
  fs::path path;
};

// Paths below a folder, links not followed. A folder that is absent has none.
Result<std::vector<fs::path>> walk(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code error;
  if (!fs::exists(folder, error)) return out;
  fs::recursive_directory_iterator it(folder, error);
  for (const fs::recursive_directory_iterator end; !error && it != end; it.increment(error)) out.push_back(it->path());
  if (error) return hub_io_error(folder, "read the folder", error.value());
  std::sort(out.begin(), out.end());
  return out;
}

Result<std::vector<fs::path>> folders_in(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code error;
  if (!fs::exists(folder, error)) return out;
  fs::directory_iterator it(folder, error);
  for (const fs::directory_iterator end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_directory(ignored)) out.push_back(it->path());
  }
  if (error) return hub_io_error(folder, "read the folder", error.value());
  std::sort(out.begin(), out.end());
  return out;
}

Result<std::vector<Ref>> refs_of(const fs::path& repo) {
  const fs::path folder = repo / "refs";
  LATHE_TRY(const std::vector<fs::path> paths, walk(folder));
  std::vector<Ref> refs;
  for (const fs::path& path : paths) {
    std::error_code ignored;
    if (!fs::is_regular_file(path, ignored)) continue;
    Result<std::string> text = read_file(path, kMaxRefBytes);
    if (!text) continue;
    while (!text->empty() && (text->back() == '\n' || text->back() == '\r')) text->pop_back();
    refs.push_back({.revision = path.lexically_relative(folder).string(), .commit = *std::move(text), .path = path});
  }
  return refs;
}

// models--ORG--NAME -> ORG/NAME; models--NAME (no organisation) -> NAME.
std::string name_of(const fs::path& repo) {
  const std::string folder = repo.filename().string();
  const std::string_view name = std::string_view(folder).substr(kPrefix.size());
  const size_t dashes = name.find("--");
  return dashes == std::string_view::npos ? std::string(name)
                                          : str(name.substr(0, dashes), "/", name.substr(dashes + 2));
}

Result<uint64_t> bytes_of_snapshot(const fs::path& snapshot) {
  LATHE_TRY(const std::vector<fs::path> paths, walk(snapshot));
  std::set<FileId> seen;
  uint64_t bytes = 0;
  for (const fs::path& path : paths) {
    struct stat info {};

    if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    if (seen.insert({info.st_dev, info.st_ino}).second) bytes += static_cast<uint64_t>(info.st_size);
  }
  return bytes;
}

// Bytes that removing everything below a folder gives back: files themselves, not what links point to.
Result<uint64_t> bytes_below(const fs::path& folder) {
  LATHE_TRY(const std::vector<fs::path> paths, walk(folder));
  uint64_t bytes = 0;
  for (const fs::path& path : paths) {
    struct stat info {};

    if (::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && info.st_nlink == 1) {
      bytes += static_cast<uint64_t>(info.st_size);
    }
  }
  return bytes;
}

Status remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return hub_io_error(path, "remove", error.value());
  return {};
}

Result<std::vector<HubCachedModel>> snapshots_of(const fs::path& repo) {
  LATHE_TRY(const std::vector<Ref> refs, refs_of(repo));
  LATHE_TRY(const std::vector<fs::path> folders, folders_in(repo / "snapshots"));
  std::vector<HubCachedModel> models;
  for (const fs::path& folder : folders) {
    HubCachedModel model;
    model.name = name_of(repo);
    model.commit = folder.filename().string();
    model.snapshot = folder;
    for (const Ref& ref : refs) {
      if (ref.commit == model.commit) model.revision += str(model.revision.empty() ? "" : ", ", ref.revision);
    }
    if (model.revision.empty()) model.revision = model.commit;
    LATHE_TRY(model.bytes, bytes_of_snapshot(folder));
    const Result<std::string> missing = missing_from_snapshot(folder);
    if (!missing) log_debug(missing.error().message);
    model.complete = missing && missing->empty();
    models.push_back(std::move(model));
  }
  return models;
}

// Locks that nobody may hold while their files are removed.
Result<std::vector<FileLock>> hold_all_locks(const HubPaths& paths) {
  LATHE_TRY(const std::vector<fs::path> files, walk(paths.locks));
  std::vector<FileLock> locks;
  for (const fs::path& file : files) {
    if (file.extension() != ".lock") continue;
    LATHE_TRY(FileLock lock, hub_lock(file, nullptr));
    locks.push_back(std::move(lock));
  }
  return locks;
}

Result<uint64_t> remove_whole(const HubPaths& paths) {
  LATHE_TRY(const uint64_t bytes, bytes_below(paths.repo));
  // Refs first: what is half removed is then not found any more, rather than found broken.
  LATHE_TRY(remove_tree(paths.repo / "refs"));
  LATHE_TRY(remove_tree(paths.repo));
  LATHE_TRY(remove_tree(paths.locks));
  return bytes;
}

Result<uint64_t> remove_commit(const HubPaths& paths, const std::string& commit) {
  LATHE_TRY(const std::vector<Ref> refs, refs_of(paths.repo));
  for (const Ref& ref : refs) {
    if (ref.commit == commit) {
      LATHE_TRY(remove_tree(ref.path));
    }
  }
  LATHE_TRY(uint64_t freed, bytes_below(paths.snapshot(commit)));
  std::set<fs::path> gone;
  LATHE_TRY(const std::vector<fs::path> dropped, walk(paths.snapshot(commit)));
  std::error_code ignored;
  for (const fs::path& link : dropped) {
    if (fs::is_symlink(link, ignored)) gone.insert(fs::read_symlink(link, ignored).filename());
  }
  LATHE_TRY(remove_tree(paths.snapshot(commit)));
  LATHE_TRY(const std::vector<fs::path> kept, walk(paths.repo / "snapshots"));
  for (const fs::path& link : kept) {
    if (fs::is_symlink(link, ignored)) gone.erase(fs::read_symlink(link, ignored).filename());
  }
  for (const fs::path& name : gone) {
    // Only files of blobs/ itself, whatever a foreign link said.
    const fs::path blob = paths.repo / "blobs" / name;

    struct stat info {};

    if (name.empty() || name == ".." || name == "." || ::lstat(blob.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
      continue;
    }
    LATHE_TRY(remove_tree(blob));
    freed += static_cast<uint64_t>(info.st_size);
  }
  return freed;
}

}  // namespace

Result<std::vector<HubCachedModel>> hub_list(const HubSettings& settings) {
  LATHE_TRY(const std::vector<fs::path> folders, folders_in(settings.cache));
  std::vector<HubCachedModel> models;
  for (const fs::path& repo : folders) {
    if (!repo.filename().string().starts_with(kPrefix)) continue;
    LATHE_TRY(std::vector<HubCachedModel> found, snapshots_of(repo));
    std::move(found.begin(), found.end(), std::back_inserter(models));
  }
  std::sort(models.begin(), models.end(), [](const HubCachedModel& a, const HubCachedModel& b) {
    return std::tie(a.name, a.revision) < std::tie(b.name, b.revision);
  });
  return models;
}

Result<uint64_t> hub_remove(const HubModelName& name, bool all_revisions, const HubSettings& settings) {
  LATHE_TRY(check_hub_name(name));
  const HubPaths paths(settings.cache, name);
  std::error_code ignored;
  if (!fs::is_directory(paths.repo, ignored)) {
    return Error{Errc::kNotFound, str(name.organisation, "/", name.name, ": not in the hub cache ", settings.cache)};
  }
  LATHE_TRY(const std::vector<FileLock> locks, hold_all_locks(paths));
  LATHE_TRY(const std::vector<fs::path> snapshots, folders_in(paths.repo / "snapshots"));
  // Without a snapshot there are only remains of a download that was given up.
  if (all_revisions || snapshots.empty()) return remove_whole(paths);
  LATHE_TRY(const std::string commit, cached_commit(paths, name));
  if (snapshots.size() == 1 && snapshots.front().filename() == commit) return remove_whole(paths);
  return remove_commit(paths, commit);
}

}  // namespace lathe
