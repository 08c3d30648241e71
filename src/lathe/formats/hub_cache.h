// The folders of the hub cache: where things lie, locks, links, refs, and what is complete. No network here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "lathe/base/file_lock.h"
#include "lathe/base/result.h"
#include "lathe/formats/hub.h"

namespace lathe {

class HubStop;

// Paths of one model:
//   CACHE/models--ORG--NAME/{refs/REV, blobs/ETAG, snapshots/COMMIT/FILE}   CACHE/.locks/models--ORG--NAME/ETAG.lock
struct HubPaths {
  HubPaths(const std::filesystem::path& cache_folder, const HubModelName& name);

  std::filesystem::path cache;
  std::filesystem::path repo;
  std::filesystem::path locks;

  std::filesystem::path blob(std::string_view etag) const { return repo / "blobs" / etag; }

  // What a download writes to. One fixed name, so that the next run resumes; only the holder of the lock touches it.
  std::filesystem::path partial(std::string_view etag) const;
  std::filesystem::path lock(std::string_view etag) const;

  std::filesystem::path snapshot(std::string_view commit) const { return repo / "snapshots" / commit; }

  std::filesystem::path ref(std::string_view revision) const { return repo / "refs" / revision; }
};

// `path: cannot WHAT: REASON`; a full disk is kResourceExhausted, anything else kIo.
Error hub_io_error(const std::filesystem::path& path, std::string_view what, int error);

std::string hub_label(const HubModelName& name);  // ORG/NAME, or ORG/NAME@REV unless REV is main

// The rules of parse_hub_name for a name that was put together elsewhere.
Status check_hub_name(const HubModelName& name);

// Exactly that many digits of [0-9a-f].
bool is_lower_hex(std::string_view text, size_t digits);

// The full name of a git commit.
inline bool is_commit(std::string_view text) {
  return is_lower_hex(text, 40);
}

// A file name from a listing.
enum class HubFileRule {
  kWanted,   // to be downloaded
  kSkipped,  // not needed to run a model
  kOdd,      // would be wanted, but has characters outside [A-Za-z0-9._-/]
  kHostile,  // absolute, "..", empty components, control characters: nothing of such a listing is to be trusted
};
HubFileRule hub_file_rule(std::string_view file);

// Folders and CACHEDIR.TAG. Errors name the path.
Status prepare_hub_cache(const HubPaths& paths);

// The lock on `path`. Waits for other holders, in this process or another, and returns kCancelled when `stop` is raised
// meanwhile. Without `stop` it does not wait: kIo when somebody holds it.
Result<FileLock> hub_lock(const std::filesystem::path& path, const HubStop* stop);

// Makes snapshots/COMMIT/FILE stand for the blob: a relative link, or the blob itself, moved, without `symlinks` or
// where the file system has none. `file` has passed hub_file_rule.
Status place_in_snapshot(
    const HubPaths& paths, std::string_view commit, std::string_view file, std::string_view etag, bool symlinks);

// A regular file of that size at `path` (links followed).
bool is_file_of_size(const std::filesystem::path& path, uint64_t size);

// The commit that a revision stands for in this cache: refs/REV, or REV itself when it is a commit with a snapshot.
Result<std::string> cached_commit(const HubPaths& paths, const HubModelName& name);

// The first file that a snapshot lacks: config.json, or one that an index of weights names. Empty: complete.
Result<std::string> missing_from_snapshot(const std::filesystem::path& snapshot);

// The snapshot folder of a complete cached model; the error tells what is absent.
Result<std::filesystem::path> cached_snapshot(const HubModelName& name, const HubSettings& settings);

}  // namespace lathe
