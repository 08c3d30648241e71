#include "lathe/base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>

#include "lathe/base/str.h"

namespace lathe {
namespace {

Error lock_error(const std::filesystem::path& path, std::string_view what, int error) {
  const Errc code = error == ENOSPC || error == EDQUOT ? Errc::kResourceExhausted : Errc::kIo;
  return Error{code, str(path, ": cannot ", what, ": ", std::generic_category().message(error))};
}

// Whether `path` still names the file behind `fd`: a lock on a nameless file protects nothing.
bool is_named(int fd, const std::filesystem::path& path) {
  struct stat held {};

  struct stat named {};

  return ::fstat(fd, &held) == 0 && ::stat(path.c_str(), &named) == 0 && held.st_ino == named.st_ino &&
         held.st_dev == named.st_dev;
}

}  // namespace

Result<std::optional<FileLock>> FileLock::try_take(const std::filesystem::path& path) {
  while (true) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return lock_error(path, "open the lock", errno);
    FileLock lock(fd);
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) {
      if (is_named(fd, path)) return std::optional<FileLock>(std::move(lock));
      continue;  // removed between open and flock
    }
    const int error = errno;
    if (error == EWOULDBLOCK) return std::optional<FileLock>();
    if (error != EINTR) return lock_error(path, "lock", error);
  }
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace lathe
