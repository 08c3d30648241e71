// hub_pull: the listing, what of it is missing, several files at once, and the snapshot at the end.
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>

#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/formats/hub.h"
#include "lathe/formats/hub_cache.h"
#include "lathe/formats/hub_download.h"
#include "lathe/formats/hub_http.h"

namespace lathe {
namespace fs = std::filesystem;

namespace {

constexpr int kMaxParallel = 16;
constexpr auto kReportEvery = std::chrono::milliseconds(50);

using Clock = std::chrono::steady_clock;

// Texts of the hub reach messages; one that repeats the token must not carry it further.
Error without_token(Error error, const std::string& token) {
  if (token.empty()) return error;
  for (size_t at = error.message.find(token); at != std::string::npos; at = error.message.find(token, at)) {
    error.message.replace(at, token.size(), "***");
    at += 3;
  }
  return error;
}

// Sums over files and hands reports on, one at a time.
class ProgressBook {
 public:
  ProgressBook(const std::function<void(const HubProgress&)>& report, uint64_t total, uint64_t done)
      : report_(report), total_(total), done_(done) {}

  void moved(const HubFile& file, uint64_t file_done) { note(file, file_done, false); }

  void finished(const HubFile& file) { note(file, file.size, true); }

 private:
  struct Entry {
    uint64_t done = 0;
    Clock::time_point reported{};
  };

  void note(const HubFile& file, uint64_t file_done, bool finished) {
    if (!report_) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    Entry& entry = entries_[file.etag];
    done_ = done_ - entry.done + file_done;  // less than before when a transfer starts again
    entry.done = file_done;
    const Clock::time_point now = Clock::now();
    if (!finished && now - entry.reported < kReportEvery) return;
    entry.reported = now;
    report_({.file = file.name,
             .file_done = file_done,
             .file_total = file.size,
             .done = done_,
             .total = total_,
             .file_finished = finished});
  }

  const std::function<void(const HubProgress&)>& report_;
  const uint64_t total_;
  std::mutex mutex_;
  uint64_t done_;
  std::unordered_map<std::string, Entry> entries_;
};

// What has to be fetched. Files with equal content share a blob and are fetched once.
struct Plan {
  std::vector<const HubFile*> missing;
  uint64_t total = 0;   // bytes of all blobs
  uint64_t there = 0;   // of those, in finished blobs
  uint64_t needed = 0;  // bytes that the disk has yet to take
};

uint64_t size_on_disk(const fs::path& path) {
  struct stat info {};

  return ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) ? static_cast<uint64_t>(info.st_size) : 0;
}

bool is_complete(const HubPaths& paths, const std::string& commit, const HubFile& file) {
  if (is_file_of_size(paths.blob(file.etag), file.size)) return true;
  std::error_code ignored;
  const fs::path placed = paths.snapshot(commit) / file.name;  // itself there, on file systems without links
  return !fs::is_symlink(placed, ignored) && is_file_of_size(placed, file.size);
}

Result<Plan> make_plan(const HubPaths& paths, const HubListing& listing, const std::string& label) {
  Plan plan;
  std::unordered_map<std::string, uint64_t> seen;
  for (const HubFile& file : listing.files) {
    const auto [known, is_new] = seen.emplace(file.etag, file.size);
    if (!is_new) {
      if (known->second == file.size) continue;
      return Error{Errc::kInvalidData, str(label, ": listing: two sizes for the content ", file.etag)};
    }
    if (__builtin_add_overflow(plan.total, file.size, &plan.total)) {
      return Error{Errc::kInvalidData, str(label, ": listing: the sizes of its files exceed 2^64 bytes")};
    }
    if (is_complete(paths, listing.commit, file)) {
      plan.there += file.size;
      continue;
    }
    plan.missing.push_back(&file);
    plan.needed += file.size - std::min(file.size, size_on_disk(paths.partial(file.etag)));
  }
  return plan;
}

Status check_space(const HubPaths& paths, const Plan& plan, const std::string& label) {
  if (plan.needed == 0) return {};
  LATHE_TRY(const uint64_t free, free_disk_bytes(paths.cache));
  if (plan.needed <= free) return {};
  return Error{Errc::kResourceExhausted,
               str(label,
                   ": not enough disk space at ",
                   paths.cache,
                   ": expected ",
                   plan.needed,
                   " free bytes (",
                   human_bytes(plan.needed),
                   "), found ",
                   free,
                   " (",
                   human_bytes(free),
                   ")")};
}

// The workers of one pull: each takes the next missing file; the first error stops all.
class Workers {
 public:
  Workers(const HubModelName& name,
          const HubPaths& paths,
          const HubSettings& settings,
          const HubListing& listing,
          const Plan& plan,
          HubStop& stop,
          ProgressBook& book)
      : name_(name), paths_(paths), settings_(settings), listing_(listing), plan_(plan), stop_(stop), book_(book) {}

  Status run() {
    const size_t wanted = static_cast<size_t>(std::clamp(settings_.parallel_files, 1, kMaxParallel));
    const size_t count = std::min(wanted, plan_.missing.size());
    std::vector<std::thread> threads;
    for (size_t i = 1; i < count; ++i) {
      try {
        threads.emplace_back([this] { work(); });
      } catch (const std::system_error&) {
        break;  // no more threads to be had: fewer at a time
      }
    }
    work();
    for (std::thread& thread : threads) thread.join();
    if (first_error_) return *first_error_;
    return {};
  }

 private:
  void work() {
    Result<HubClient> client = HubClient::create(settings_, stop_);
    if (!client) return fail(client.error());
    for (size_t i = next_++; i < plan_.missing.size() && !stop_.requested(); i = next_++) {
      const HubFile& file = *plan_.missing[i];
      const HubDownload job{.name = name_,
                            .paths = paths_,
                            .file = file,
                            .settings = settings_,
                            .stop = stop_,
                            .url = hub_file_url(settings_, name_, listing_.commit, file.name),
                            .moved = [&](uint64_t done) { book_.moved(file, done); }};
      const Status status = download_blob(*client, job);
      if (!status) return fail(status.error());
      book_.finished(file);
    }
    if (stop_.cancelled()) fail(Error{Errc::kCancelled, str(hub_label(name_), ": stopped; the next pull resumes")});
  }

  void fail(const Error& error) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!first_error_) first_error_ = error;  // later ones are mostly "stopped"
    stop_.request();
  }

  const HubModelName& name_;
  const HubPaths& paths_;
  const HubSettings& settings_;
  const HubListing& listing_;
  const Plan& plan_;
  HubStop& stop_;
  ProgressBook& book_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::optional<Error> first_error_;
};

// Links every file, config.json last: a snapshot without it counts as incomplete. Then the ref.
Status make_snapshot(const HubModelName& name,
                     const HubPaths& paths,
                     const HubListing& listing,
                     const HubSettings& settings) {
  std::vector<const HubFile*> order;
  for (const HubFile& file : listing.files) order.push_back(&file);
  std::stable_partition(order.begin(), order.end(), [](const HubFile* file) { return file->name != "config.json"; });
  for (const HubFile* file : order) {
    LATHE_TRY(place_in_snapshot(paths, listing.commit, file->name, file->etag, settings.symlinks));
  }
  if (is_commit(name.revision)) return {};
  const fs::path ref = paths.ref(name.revision);
  const Result<std::string> former = read_file(ref, 64);
  if (former && *former == listing.commit) return {};
  return write_file_atomically(ref, listing.commit);
}

Result<fs::path> pull(const HubModelName& name,
                      const HubSettings& settings,
                      const std::function<void(const HubProgress&)>& progress) {
  const std::string label = hub_label(name);
  const HubPaths paths(settings.cache, name);
  HubStop stop(settings.cancel);
  LATHE_TRY(const HubOrigin endpoint, hub_origin(settings.endpoint));
  if (!settings.token.empty() && endpoint.scheme != "https" && !endpoint.is_this_machine()) {
    log_warning(endpoint.text(), ": plain http to another machine: the token is not sent");
  }
  LATHE_TRY(HubClient client, HubClient::create(settings, stop));
  LATHE_TRY(const HubListing listing, fetch_hub_listing(client, name, settings, stop));
  if (listing.files.empty()) {
    return Error{Errc::kNotFound, str(label, ": the hub lists no file that running a model needs")};
  }
  if (std::none_of(
          listing.files.begin(), listing.files.end(), [](const HubFile& f) { return f.name == "config.json"; })) {
    log_warning(label, ": the hub lists no config.json; Lathe cannot run this model from the cache");
  }
  LATHE_TRY(const Plan plan, make_plan(paths, listing, label));
  LATHE_TRY(check_space(paths, plan, label));
  LATHE_TRY(prepare_hub_cache(paths));
  ProgressBook book(progress, plan.total, plan.there);
  LATHE_TRY(Workers(name, paths, settings, listing, plan, stop, book).run());
  LATHE_TRY(make_snapshot(name, paths, listing, settings));
  return paths.snapshot(listing.commit);
}

}  // namespace

Result<fs::path> hub_pull(const HubModelName& name,
                          const HubSettings& settings,
                          const std::function<void(const HubProgress&)>& progress) {
  LATHE_TRY(check_hub_name(name));
  if (settings.offline) {
    Result<fs::path> snapshot = cached_snapshot(name, settings);
    if (!snapshot) return snapshot.error().at("offline mode (HF_HUB_OFFLINE)");
    return snapshot;
  }
  Result<fs::path> snapshot = pull(name, settings, progress);
  if (!snapshot) return without_token(snapshot.error(), settings.token);
  return snapshot;
}

}  // namespace lathe
