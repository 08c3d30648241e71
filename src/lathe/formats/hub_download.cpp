#include "lathe/formats/hub_download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <optional>
#include <utility>

#include "lathe/base/log.h"
#include "lathe/base/str.h"

namespace lathe {
namespace fs = std::filesystem;

namespace {

constexpr double kLongestBackoff = 60.0;
constexpr double kLongestWantedWait = 300.0;
// Wrong content is not a weak connection: two more tries tell a damaged transfer from a damaged source.
constexpr int kContentRetries = 2;
constexpr uint64_t kProgressThatCounts = uint64_t{1} << 20;

// The partial file and the hash of what it holds. Its folder's lock is held by the caller.
class PartialBlob {
 public:
  static Result<PartialBlob> open(const fs::path& path, const HubFile& file, const HubStop& stop) {
    PartialBlob blob(path, file);
    blob.fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (blob.fd_ < 0) return hub_io_error(path, "open", errno);

    struct stat info {};

    if (::fstat(blob.fd_, &info) != 0) return hub_io_error(path, "read the size", errno);
    if (!S_ISREG(info.st_mode)) return Error{Errc::kIo, str(path, ": expected a regular file")};
    const auto size = static_cast<uint64_t>(info.st_size);
    if (size > file.size) {
      LATHE_TRY(blob.clear());
    } else {
      LATHE_TRY(blob.read_back(size, stop));
    }
    return blob;
  }

  PartialBlob(PartialBlob&& other) noexcept
      : path_(std::move(other.path_)),
        file_(other.file_),
        hasher_(std::move(other.hasher_)),
        position_(other.position_),
        fd_(std::exchange(other.fd_, -1)) {}

  PartialBlob& operator=(PartialBlob&&) = delete;
  PartialBlob(const PartialBlob&) = delete;
  PartialBlob& operator=(const PartialBlob&) = delete;

  ~PartialBlob() {
    if (fd_ >= 0) ::close(fd_);
  }

  uint64_t position() const { return position_; }

  uint64_t left() const { return file_->size - position_; }

  Status clear() {
    if (::ftruncate(fd_, 0) != 0) return hub_io_error(path_, "truncate", errno);
    position_ = 0;
    hasher_ = fresh_hasher(*file_);
    return {};
  }

  Status append(std::string_view bytes) {
    hasher_.update(bytes);
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(position_));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return hub_io_error(path_, "write", errno);
      position_ += static_cast<uint64_t>(written);
      bytes.remove_prefix(static_cast<size_t>(written));
    }
    return {};
  }

  // Once, when everything is there.
  std::string digest() { return hasher_.hex_digest(); }

  Status commit(const fs::path& final_name) {
    if (::fsync(fd_) != 0) return hub_io_error(path_, "flush", errno);
    if (::rename(path_.c_str(), final_name.c_str()) != 0) return hub_io_error(final_name, "rename into place", errno);
    const int folder = ::open(final_name.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
      ::fsync(folder);  // some file systems refuse this on folders; the file itself is safe
      ::close(folder);
    }
    return {};
  }

  void remove() { ::unlink(path_.c_str()); }

 private:
  PartialBlob(fs::path path, const HubFile& file) : path_(std::move(path)), file_(&file), hasher_(fresh_hasher(file)) {}

  static Hasher fresh_hasher(const HubFile& file) {
    Hasher hasher(file.hash());
    if (file.hash() == Hasher::Kind::kSha1) {  // git hashes a header with the content
      hasher.update(str("blob ", file.size));
      hasher.update(std::string_view("\0", 1));
    }
    return hasher;
  }

  Status read_back(uint64_t size, const HubStop& stop) {
    std::string buffer(size_t{1} << 20, '\0');
    while (position_ < size) {
      if (stop.requested()) return Error{Errc::kCancelled, str(path_, ": stopped")};
      const ssize_t got = ::pread(fd_, buffer.data(), buffer.size(), static_cast<off_t>(position_));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return hub_io_error(path_, "read", errno);
      if (got == 0) break;
      hasher_.update(std::string_view(buffer.data(), static_cast<size_t>(got)));
      position_ += static_cast<uint64_t>(got);
    }
    return {};
  }

  fs::path path_;
  const HubFile* file_;
  Hasher hasher_;
  uint64_t position_ = 0;
  int fd_ = -1;
};

// "bytes 100-199/200" starts at `begin` and tells `size`.
bool range_matches(std::string_view text, uint64_t begin, uint64_t size) {
  return text == str("bytes ", begin, "-", size - 1, "/", size) || text == str("bytes ", begin, "-", size - 1, "/*");
}

// Writes an answer into the partial file, never past the size that the listing promised.
class BlobSink final : public HubSink {
 public:
  BlobSink(PartialBlob& blob, const HubDownload& job) : blob_(blob), job_(job) {}

  bool begin(const HubReply& head) override {
    if (head.status == 206) {
      const std::string_view range = head.header("content-range");
      if (blob_.position() > 0 && range_matches(range, blob_.position(), job_.file.size)) return true;
      return fault(str("expected the bytes from ", blob_.position(), " on, found Content-Range ", quoted(range)));
    }
    if (head.status != 200) return fault(str("expected HTTP 200 or 206, found ", head.status));
    // The whole file, also when only its end was asked for.
    if (blob_.position() > 0 && !keep(blob_.clear())) return false;
    const std::string_view length = head.header("content-length");
    if (!length.empty() && length != str(job_.file.size)) {
      return fault(str("expected ", job_.file.size, " bytes, found Content-Length ", quoted(length)));
    }
    return true;
  }

  bool write(std::string_view bytes) override {
    if (bytes.size() > blob_.left()) return fault(str("expected ", job_.file.size, " bytes, found more"));
    if (!keep(blob_.append(bytes))) return false;
    if (job_.moved) job_.moved(blob_.position());
    return true;
  }

  const std::string& content_fault() const { return fault_; }

  const Status& disk() const { return disk_; }

 private:
  bool fault(std::string what) {
    fault_ = std::move(what);
    return false;
  }

  bool keep(Status status) {
    disk_ = std::move(status);
    return disk_.has_value();
  }

  PartialBlob& blob_;
  const HubDownload& job_;
  std::string fault_;
  Status disk_;
};

// One request. Returns what is wrong with the content (empty: nothing so far), or the error that ends the download.
struct Attempt {
  std::string fault;
  bool again = false;  // nothing wrong, but not all is there: the wait is over, ask for the rest
};

Result<Attempt> fetch_rest(HubClient& client, const HubDownload& job, PartialBlob& blob, HubRetry& retry) {
  BlobSink sink(blob, job);
  const uint64_t before = blob.position();
  const HubReply reply = client.perform({.url = job.url, .range_begin = before, .sink = &sink});
  LATHE_TRY(sink.disk());
  if (reply.end == HubReply::End::kRefused) return Attempt{.fault = sink.content_fault()};
  if (reply.end == HubReply::End::kComplete && reply.status == 416 && before > 0) {
    // What is there is no prefix of what the hub has.
    return Attempt{.fault = str("expected ", job.file.size, " bytes, but the hub has none after ", before)};
  }
  if (reply.ok()) {
    if (blob.left() == 0) return Attempt{};
    return Attempt{.fault = str("expected ", job.file.size, " bytes, found ", blob.position())};
  }
  if (blob.position() > before && blob.position() - before >= kProgressThatCounts) retry.forget();
  if (HubRetry::is_worth_it(reply) && retry.wait(reply)) return Attempt{.fault = {}, .again = true};
  if (job.stop.requested()) {
    return Error{Errc::kCancelled, str(hub_label(job.name), ": ", job.file.name, ": stopped; the next pull resumes")};
  }
  return hub_reply_error(reply, job.name, job.file.name, job.settings, retry.tries());
}

}  // namespace

bool HubRetry::is_worth_it(const HubReply& reply) {
  if (reply.end == HubReply::End::kBroken) return true;
  if (reply.end != HubReply::End::kComplete) return false;
  const int s = reply.status;
  return s == 408 || s == 429 || s == 500 || s == 502 || s == 503 || s == 504;
}

bool HubRetry::wait(const HubReply& reply) {
  if (failures_ >= settings_->retries) return false;
  double seconds = std::min(settings_->retry_base_delay_s * std::ldexp(1.0, std::min(failures_, 30)), kLongestBackoff);
  if (const std::optional<double> wanted = reply.wanted_wait()) {
    if (*wanted > kLongestWantedWait) return false;
    seconds = *wanted;
  }
  ++failures_;
  ++tries_;
  const std::string why = reply.end == HubReply::End::kComplete
                              ? str(reply.origin, ": HTTP ", reply.status)
                              : (reply.problem.empty() ? std::string("wrong content") : reply.problem);
  log_info(why, "; next try in ", fixed(seconds, 1), " s");
  return stop_->sleep(seconds);
}

Status download_blob(HubClient& client, const HubDownload& job) {
  const HubFile& file = job.file;
  const fs::path final_name = job.paths.blob(file.etag);
  LATHE_TRY(const FileLock lock, hub_lock(job.paths.lock(file.etag), &job.stop));
  if (is_file_of_size(final_name, file.size)) {  // somebody else was faster
    if (job.moved) job.moved(file.size);
    return {};
  }
  LATHE_TRY(PartialBlob blob, PartialBlob::open(job.paths.partial(file.etag), file, job.stop));
  HubRetry retry(job.settings, job.stop);
  int content_faults = 0;
  while (true) {
    Attempt attempt;
    if (blob.left() > 0) {
      LATHE_TRY(attempt, fetch_rest(client, job, blob, retry));
      if (attempt.again) continue;
    }
    if (attempt.fault.empty()) {
      const std::string found = blob.digest();
      if (found == file.etag) return blob.commit(final_name);
      const std::string_view kind = file.hash() == Hasher::Kind::kSha256 ? "SHA-256 " : "git SHA-1 ";
      attempt.fault = str("expected ", kind, file.etag, ", found ", found);
    }
    LATHE_TRY(blob.clear());
    ++content_faults;
    if (content_faults > kContentRetries || !retry.wait(HubReply{})) {
      blob.remove();
      if (job.stop.requested()) {
        return Error{Errc::kCancelled, str(hub_label(job.name), ": ", file.name, ": stopped; the next pull resumes")};
      }
      return Error{
          Errc::kInvalidData,
          str(hub_label(job.name), ": ", file.name, ": ", attempt.fault, " (tried ", retry.tries(), " times)")};
    }
  }
}

}  // namespace lathe
