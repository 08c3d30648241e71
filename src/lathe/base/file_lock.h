// An exclusive lock between processes, and between holders in one process, that goes with its holder however it ends.
#pragma once

#include <filesystem>
#include <optional>
#include <utility>

#include "lathe/base/result.h"

namespace lathe {

// Holds an flock on a file until it is destroyed or the process ends. Only programs that ask for the lock heed it.
class FileLock {
 public:
  // The lock on `path`, made where it is absent (symbolic links are not followed); nullopt when somebody holds it.
  // Does not wait. Errors (kIo, kResourceExhausted) name the path.
  static Result<std::optional<FileLock>> try_take(const std::filesystem::path& path);

  FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

  FileLock& operator=(FileLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}

  int fd_;
};

}  // namespace lathe
