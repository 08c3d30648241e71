#include "lathe/formats/hub_cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <system_error>
#include <utility>

#include "lathe/base/ascii.h"
#include "lathe/base/file.h"
#include "lathe/base/json.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/formats/hub_http.h"

namespace lathe {
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr uint64_t kMaxIndexBytes = uint64_t{256} << 20;
constexpr uint64_t kMaxRefBytes = 4096;

bool is_repo_part(std::string_view text) {
  const auto edge = [](char c) { return c == '-' || c == '.'; };
  return is_plain_file_name(text) && text.size() <= 96 && !edge(text.front()) && !edge(text.back()) &&
         text.find("--") == std::string_view::npos && text.find("..") == std::string_view::npos;
}

// What the extension says: the files that running a model reads, and the texts that tell its terms.
bool is_wanted(std::string_view base) {
  if (base == "tokenizer.model" || base.starts_with("LICENSE")) return base.find(".py") == std::string_view::npos;
  for (const std::string_view ending : {".json", ".safetensors", ".txt", ".jinja", ".md"}) {
    if (base.size() > ending.size() && base.ends_with(ending)) return true;
  }
  return false;
}

Status make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return hub_io_error(path, "create the folder", error.value());
  return {};
}

fs::path link_target(std::string_view file, std::string_view etag) {
  std::string target = "../../";
  for (const char c : file) {
    if (c == '/') target += "../";
  }
  return str(target, "blobs/", etag);
}

bool means_no_links(int error) {
  return error == EPERM || error == ENOSYS || error == EOPNOTSUPP;
}

}  // namespace

Error hub_io_error(const fs::path& path, std::string_view what, int error) {
  const Errc code = error == ENOSPC || error == EDQUOT ? Errc::kResourceExhausted : Errc::kIo;
  return Error{code, str(path, ": cannot ", what, ": ", std::generic_category().message(error))};
}

HubPaths::HubPaths(const fs::path& cache_folder, const HubModelName& name) : cache(cache_folder) {
  const std::string folder = str("models--", name.organisation, "--", name.name);
  repo = cache / folder;
  locks = cache / ".locks" / folder;
}

fs::path HubPaths::partial(std::string_view etag) const {
  return repo / "blobs" / str(etag, ".lathe-partial");
}

fs::path HubPaths::lock(std::string_view etag) const {
  return locks / str(etag, ".lock");
}

std::string hub_label(const HubModelName& name) {
  return name.revision == "main" ? str(name.organisation, "/", name.name)
                                 : str(name.organisation, "/", name.name, "@", name.revision);
}

Status check_hub_name(const HubModelName& name) {
  const auto refuse = [&](std::string_view what, std::string_view text, std::string_view rule) {
    return Error{Errc::kInvalidArgument,
                 str("model name ",
                     quoted(str(name.organisation, "/", name.name, "@", name.revision), 240),
                     ": ",
                     what,
                     ": expected ",
                     rule,
                     ", found ",
                     text.empty() ? std::string("nothing") : quoted(text))};
  };
  constexpr std::string_view kPartRule =
      "1 to 96 characters of [A-Za-z0-9._-] without \"--\" or \"..\", not beginning or ending with '-' or '.'";
  if (!is_repo_part(name.organisation)) return refuse("organisation", name.organisation, kPartRule);
  if (!is_repo_part(name.name)) return refuse("name", name.name, kPartRule);
  if (!is_plain_file_name(name.revision) || name.revision.front() == '-') {
    return refuse("revision",
                  name.revision,
                  "a branch, tag or commit of 1 to 255 characters of [A-Za-z0-9._-], not beginning with '-'");
  }
  return {};
}

bool is_lower_hex(std::string_view text, size_t digits) {
  return text.size() == digits &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_ascii_digit(c) || (c >= 'a' && c <= 'f'); });
}

HubFileRule hub_file_rule(std::string_view file) {
  constexpr size_t kMaxComponents = 16;
  constexpr size_t kMaxLength = 1024;
  if (file.empty() || file.size() > kMaxLength) return HubFileRule::kHostile;
  bool plain = true;
  size_t components = 0;
  std::string_view base;
  for (size_t begin = 0; begin <= file.size();) {
    const size_t end = std::min(file.find('/', begin), file.size());
    base = file.substr(begin, end - begin);
    const bool control =
        std::any_of(base.begin(), base.end(), [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; });
    if (base.empty() || base == "." || base == ".." || control || base.find('\\') != std::string_view::npos ||
        ++components > kMaxComponents) {
      return HubFileRule::kHostile;
    }
    plain = plain && is_plain_file_name(base);
    begin = end + 1;
  }
  if (!is_wanted(base)) return HubFileRule::kSkipped;
  return plain ? HubFileRule::kWanted : HubFileRule::kOdd;
}

Status prepare_hub_cache(const HubPaths& paths) {
  for (const fs::path& folder : {paths.repo / "blobs", paths.repo / "refs", paths.repo / "snapshots", paths.locks}) {
    LATHE_TRY(make_folder(folder));
  }
  const fs::path tag = paths.cache / "CACHEDIR.TAG";
  std::error_code ignored;
  if (fs::exists(tag, ignored)) return {};
  return write_file_atomically(tag,
                               "Signature: 8a477f597d28d172789f06886806bc55\n"
                               "# This file is a cache directory tag: backup programs may skip this folder.\n"
                               "# Models of the HuggingFace hub lie here. See https://bford.info/cachedir/\n");
}

Result<FileLock> hub_lock(const fs::path& path, const HubStop* stop) {
  bool told = false;
  while (true) {
    LATHE_TRY(std::optional<FileLock> lock, FileLock::try_take(path));
    if (lock) return *std::move(lock);
    if (stop == nullptr) return Error{Errc::kIo, str(path, ": held by another process that is downloading")};
    if (!told) log_info(path, ": waiting for another download of the same file");
    told = true;
    if (!stop->sleep(0.1)) return Error{Errc::kCancelled, str(path, ": stopped while waiting for the lock")};
  }
}

bool is_file_of_size(const fs::path& path, uint64_t size) {
  struct stat info {};

  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && static_cast<uint64_t>(info.st_size) == size;
}

Status place_in_snapshot(
    const HubPaths& paths, std::string_view commit, std::string_view file, std::string_view etag, bool symlinks) {
  const fs::path pointer = paths.snapshot(commit) / file;
  const fs::path blob = paths.blob(etag);
  LATHE_TRY(make_folder(pointer.parent_path()));
  const fs::path target = link_target(file, etag);
  std::error_code error;
  if (fs::read_symlink(pointer, error) == target && !error) return {};
  if (!fs::exists(blob, error)) {  // moved there by an earlier run

    struct stat info {};

    if (::lstat(pointer.c_str(), &info) == 0 && S_ISREG(info.st_mode)) return {};
    return Error{Errc::kIo, str(blob, ": disappeared while the snapshot was put together")};
  }
  if (symlinks) {
    // Under a name of this process first, then renamed: replaces whatever lies there, and never leaves nothing.
    const fs::path fresh = pointer.parent_path() / str(".", etag.substr(0, 12), ".", static_cast<int64_t>(::getpid()));
    ::unlink(fresh.c_str());
    if (::symlink(target.c_str(), fresh.c_str()) == 0) {
      if (::rename(fresh.c_str(), pointer.c_str()) == 0) return {};
      const int failed = errno;
      ::unlink(fresh.c_str());
      return hub_io_error(pointer, "create the link", failed);
    }
    if (!means_no_links(errno)) return hub_io_error(pointer, "create the link", errno);
  }
  if (::rename(blob.c_str(), pointer.c_str()) != 0) return hub_io_error(pointer, "move the file into place", errno);
  return {};
}

Result<std::string> cached_commit(const HubPaths& paths, const HubModelName& name) {
  std::error_code ignored;
  const fs::path ref = paths.ref(name.revision);
  if (fs::is_regular_file(ref, ignored)) {
    LATHE_TRY(std::string text, read_file(ref, kMaxRefBytes));
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
    if (!is_commit(text)) {
      return Error{Errc::kInvalidData, str(ref, ": expected a commit of 40 hex digits, found ", quoted(text))};
    }
    return text;
  }
  if (is_commit(name.revision) && fs::is_directory(paths.snapshot(name.revision), ignored)) return name.revision;
  return Error{Errc::kNotFound, str(hub_label(name), ": not in the hub cache ", paths.cache)};
}

Result<std::string> missing_from_snapshot(const fs::path& snapshot) {
  std::error_code ignored;
  if (!fs::is_regular_file(snapshot / "config.json", ignored)) return std::string("config.json");
  const fs::path index_path = snapshot / kIndexName;
  if (!fs::is_regular_file(index_path, ignored)) {
    // A link without its blob: the index belongs here but was not loaded.
    return fs::is_symlink(index_path, ignored) ? std::string(kIndexName) : std::string();
  }
  LATHE_TRY(const Json index, read_json(index_path, {.max_bytes = kMaxIndexBytes}));
  const Json* map = index.find("weight_map");
  if (map == nullptr || !map->is_object()) {
    return Error{Errc::kInvalidData, str(index_path, ": weight_map: expected an object, found none")};
  }
  std::vector<std::string> shards;
  for (const auto& [tensor, file] : map->as_object()) {
    if (!file.is_string() || !is_plain_file_name(file.as_string())) {
      return Error{Errc::kInvalidData,
                   str(index_path, ": weight_map: ", quoted(tensor), ": expected the name of a file beside the index")};
    }
    if (shards.empty() || shards.back() != file.as_string()) shards.push_back(file.as_string());
  }
  std::sort(shards.begin(), shards.end());
  shards.erase(std::unique(shards.begin(), shards.end()), shards.end());
  for (const std::string& shard : shards) {
    if (!fs::is_regular_file(snapshot / shard, ignored)) return shard;
  }
  return std::string();
}

Result<fs::path> cached_snapshot(const HubModelName& name, const HubSettings& settings) {
  const HubPaths paths(settings.cache, name);
  const std::string label = hub_label(name);
  Result<std::string> commit = cached_commit(paths, name);
  if (!commit && commit.error().code != Errc::kNotFound) return commit.error();
  if (!commit) {
    std::error_code ignored;
    const bool begun = fs::is_directory(paths.repo, ignored);
    return Error{Errc::kNotFound,
                 str(label,
                     begun ? ": this revision is not complete in the hub cache " : ": not in the hub cache ",
                     settings.cache,
                     "; `lathe pull ",
                     label,
                     begun ? "` completes it" : "` downloads it")};
  }
  const fs::path snapshot = paths.snapshot(*commit);
  LATHE_TRY(const std::string missing, missing_from_snapshot(snapshot));
  if (!missing.empty()) {
    return Error{Errc::kNotFound,
                 str(snapshot, ": ", missing, " is missing; `lathe pull ", label, "` completes the download")};
  }
  return snapshot;
}

}  // namespace lathe
