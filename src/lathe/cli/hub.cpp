// lathe pull, list and rm: models in the hub cache.
#include "lathe/formats/hub.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "lathe/base/clock.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/cli/common.h"
#include "lathe/cli/progress.h"
#include "lathe/cli/terminal.h"

namespace lathe::cli {
namespace fs = std::filesystem;

namespace {

// A download in a thread of its own, so that this one draws and looks for signals however the network stands.
class Pull {
 public:
  Pull(const HubModelName& name, HubSettings settings, bool show)
      : name_(name),
        settings_(std::move(settings)),
        show_(show),
        progress_(now_seconds()),
        display_(STDERR_FILENO, can_redraw(STDERR_FILENO)) {
    settings_.cancel = &cancel_;
  }

  Result<fs::path> run();

 private:
  void work();

  const HubModelName& name_;
  HubSettings settings_;
  const bool show_;
  DownloadProgress progress_;
  ProgressDisplay display_;
  std::atomic<bool> cancel_{false};
  std::mutex mutex_;  // guards progress_ and outcome_
  std::condition_variable changed_;
  std::optional<Result<fs::path>> outcome_;
};

void Pull::work() {
  Result<fs::path> snapshot = hub_pull(name_, settings_, [this](const HubProgress& report) {
    const std::lock_guard<std::mutex> lock(mutex_);
    progress_.note(report, now_seconds());
  });
  const std::lock_guard<std::mutex> lock(mutex_);
  outcome_.emplace(std::move(snapshot));
  changed_.notify_one();
}

Result<fs::path> Pull::run() {
  constexpr auto kTick = std::chrono::milliseconds(100);
  std::thread worker;
  try {
    worker = std::thread([this] { work(); });
  } catch (const std::system_error&) {
    return Error{Errc::kResourceExhausted, "pull: the system refuses another thread"};
  }
  {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!outcome_) {
      changed_.wait_for(lock, kTick);
      if (SignalScope::caught() != 0) cancel_ = true;
      if (show_ && !outcome_) display_.update(progress_, now_seconds());
    }
    if (show_) display_.finish(progress_, now_seconds());
  }
  worker.join();
  return *std::move(outcome_);
}

struct SnapshotFile {
  std::string name;
  uint64_t bytes = 0;
};

// The files of a snapshot, links followed, sorted by name.
Result<std::vector<SnapshotFile>> files_of(const fs::path& snapshot) {
  std::vector<SnapshotFile> files;
  std::error_code error;
  fs::recursive_directory_iterator entry(snapshot, error);
  for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    if (!entry->is_regular_file(ignored)) continue;
    const uint64_t bytes = entry->file_size(ignored);
    files.push_back({entry->path().lexically_relative(snapshot).string(), ignored ? 0 : bytes});
  }
  if (error) return Error{Errc::kIo, str(snapshot, ": cannot read the folder: ", error.message())};
  std::ranges::sort(files, {}, &SnapshotFile::name);
  return files;
}

Result<Json> describe_snapshot(const std::string& model, const fs::path& snapshot) {
  LATHE_TRY(const std::vector<SnapshotFile> files, files_of(snapshot));
  Json list = Json::array();
  uint64_t bytes = 0;
  for (const SnapshotFile& file : files) {
    bytes += file.bytes;
    Json entry = Json::object();
    entry.set("name", file.name);
    entry.set("bytes", file.bytes);
    list.push(std::move(entry));
  }
  Json out = Json::object();
  out.set("model", model);
  out.set("snapshot", snapshot.string());
  out.set("bytes", bytes);
  out.set("files", std::move(list));
  return out;
}

Status pull(const PullOptions& options) {
  LATHE_TRY(const HubModelName name, parse_hub_name(options.name));
  LATHE_TRY(HubSettings settings, hub_settings_from_environment());
  LATHE_TRY(const fs::path snapshot, Pull(name, std::move(settings), !options.quiet).run());
  if (!options.json) return write_stdout(snapshot.string() + "\n");
  LATHE_TRY(const Json document, describe_snapshot(str(name.organisation, "/", name.name), snapshot));
  return write_json(document);
}

Json describe_cached(const HubCachedModel& model) {
  Json out = Json::object();
  out.set("name", model.name);
  out.set("revision", model.revision);
  out.set("commit", model.commit);
  out.set("snapshot", model.snapshot.string());
  out.set("bytes", model.bytes);
  out.set("complete", model.complete);
  return out;
}

// Columns as wide as their widest cell; the last one is not padded.
std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      out += row[i];
      if (i + 1 < row.size()) out.append(widths[i] - row[i].size() + 2, ' ');
    }
    out += '\n';
  }
  return out;
}

Status list(const ListOptions& options) {
  LATHE_TRY(const HubSettings settings, hub_settings_from_environment());
  LATHE_TRY(const std::vector<HubCachedModel> models, hub_list(settings));
  if (options.json) {
    Json out = Json::array();
    for (const HubCachedModel& model : models) out.push(describe_cached(model));
    return write_json(out);
  }
  if (models.empty()) {
    log_info("no models in ", settings.cache, "; `lathe pull ORG/NAME` loads one");
    return {};
  }
  std::vector<std::vector<std::string>> rows{{"NAME", "REVISION", "SIZE", "STATE"}};
  for (const HubCachedModel& model : models) {
    // Folder names may be anything that somebody wrote into the cache.
    rows.push_back({neutralised(model.name),
                    neutralised(model.revision == model.commit ? model.commit.substr(0, 12) : model.revision),
                    human_bytes(model.bytes),
                    model.complete ? "complete" : "incomplete"});
  }
  return write_stdout(table(rows));
}

Status remove(const RmOptions& options) {
  LATHE_TRY(const HubModelName name, parse_hub_name(options.name));
  LATHE_TRY(const HubSettings settings, hub_settings_from_environment());
  const bool all_revisions = options.name.find('@') == std::string::npos;
  LATHE_TRY(const uint64_t freed, hub_remove(name, all_revisions, settings));
  if (!options.json) return write_stdout(str("removed ", options.name, ", ", human_bytes(freed), " freed\n"));
  Json out = Json::object();
  out.set("name", options.name);
  out.set("freed_bytes", freed);
  return write_json(out);
}

}  // namespace

int run_pull(const PullOptions& options) {
  const SignalScope signals;
  const Status status = pull(options);
  if (status) return kExitOk;
  if (status.error().code == Errc::kCancelled && SignalScope::caught() != 0) {
    log_warning("pull of ", options.name, " stopped; the next `lathe pull ", options.name, "` resumes");
    return SignalScope::exit_code();
  }
  return report(status.error());
}

int run_list(const ListOptions& options) {
  const Status status = list(options);
  return status ? kExitOk : report(status.error());
}

int run_rm(const RmOptions& options) {
  const Status status = remove(options);
  return status ? kExitOk : report(status.error());
}

}  // namespace lathe::cli
