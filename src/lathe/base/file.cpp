#include "lathe/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "lathe/base/ascii.h"
#include "lathe/base/map_guard.h"

namespace lathe {
namespace {

std::string system_message(int code) {
  return std::generic_category().message(code);
}

Error io_error(const std::filesystem::path& path, std::string_view what, int code) {
  Errc kind = Errc::kIo;
  if (code == ENOENT || code == ENOTDIR) kind = Errc::kNotFound;
  if (code == ENOSPC || code == EDQUOT || code == ENOMEM || code == EMFILE || code == ENFILE) {
    kind = Errc::kResourceExhausted;
  }
  return Error{kind, str(path, ": ", what, ": ", system_message(code))};
}

// A NUL would silently end the name that the system call sees.
Status check_name(const std::filesystem::path& path) {
  if (path.empty()) return Error{Errc::kInvalidArgument, "empty file name"};
  const size_t nul = path.native().find('\0');
  if (nul == std::string::npos) return {};
  return Error{Errc::kInvalidArgument, str(quoted(path.native()), ": NUL byte in a file name")};
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}

  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

  FileDescriptor& operator=(FileDescriptor&&) = delete;
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  int get() const { return fd_; }

 private:
  int fd_;
};

std::string_view type_name(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "something else";
}

Error not_regular(const std::filesystem::path& path, mode_t mode) {
  return Error{Errc::kIo, str(path, ": expected a regular file, found ", type_name(mode))};
}

struct RegularFile {
  FileDescriptor fd;
  uint64_t size;
};

Result<RegularFile> open_regular(const std::filesystem::path& path) {
  LATHE_TRY(check_name(path));
  // Without O_NONBLOCK the open of a pipe would wait for somebody to write into it.
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (fd.get() < 0 && errno == ENXIO) return not_regular(path, S_IFSOCK);
  if (fd.get() < 0) return io_error(path, "cannot open", errno);

  struct stat status {};

  if (::fstat(fd.get(), &status) != 0) return io_error(path, "cannot read its status", errno);
  if (!S_ISREG(status.st_mode)) return not_regular(path, status.st_mode);
  return RegularFile{std::move(fd), static_cast<uint64_t>(status.st_size)};
}

Error too_large(const std::filesystem::path& path, uint64_t max_bytes, std::string_view found) {
  return Error{Errc::kInvalidData, str(path, ": expected at most ", max_bytes, " bytes, found ", found)};
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

Result<std::string> random_suffix() {
  uint64_t bits = 0;
  if (::getrandom(&bits, sizeof bits, 0) != static_cast<ssize_t>(sizeof bits)) {
    return Error{Errc::kIo, str("cannot get random bytes: ", system_message(errno))};
  }
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (int i = 0; i < 16; ++i) out += kDigits[(bits >> (4 * i)) & 15];
  return out;
}

// Makes the new name survive a power failure. File systems that cannot do this to a folder say EINVAL, and a folder
// that may be written but not read cannot be opened: in both cases the file is complete and there is no more to do.
Status sync_folder(const std::filesystem::path& folder) {
  const FileDescriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || ::fsync(fd.get()) == 0 || (errno != EIO && errno != ENOSPC && errno != EDQUOT)) return {};
  return io_error(folder, "cannot sync the folder", errno);
}

}  // namespace

bool is_plain_file_name(std::string_view name) {
  constexpr size_t kMaxName = 255;
  return !name.empty() && name.size() <= kMaxName && name != "." && name != ".." &&
         std::ranges::all_of(name, [](char c) { return is_ascii_alnum(c) || c == '.' || c == '_' || c == '-'; });
}

Result<std::string> read_file(const std::filesystem::path& path, uint64_t max_bytes) {
  LATHE_TRY(const RegularFile file, open_regular(path));
  if (file.size > max_bytes) return too_large(path, max_bytes, str(file.size));
  // Files of /proc say size 0 and a file may grow: read to the end, not to the size, but never past the limit.
  constexpr uint64_t kStep = uint64_t{1} << 16;
  std::string out;
  uint64_t used = 0;
  try {
    out.resize(file.size + 1);
    while (true) {
      if (used == out.size()) out.resize(used + std::max(used / 2, kStep));
      const ssize_t got = ::read(file.fd.get(), out.data() + used, out.size() - used);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return io_error(path, "cannot read", errno);
      if (got == 0) break;
      used += static_cast<uint64_t>(got);
      if (used > max_bytes) return too_large(path, max_bytes, "more");
    }
    out.resize(used);
  } catch (const std::exception&) {
    return Error{Errc::kResourceExhausted, str(path, ": not enough memory for ", file.size, " bytes")};
  }
  return out;
}

Status write_all(int fd, std::string_view bytes, std::string_view where) {
  while (!bytes.empty()) {
    // One call never takes more than about 2 GiB; a smaller piece also keeps interruptions cheap.
    const ssize_t written = ::write(fd, bytes.data(), std::min<size_t>(bytes.size(), size_t{1} << 26));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return io_error(std::filesystem::path(where), "cannot write", errno);
    if (written == 0) return Error{Errc::kIo, str(where, ": cannot write: the system took no bytes")};
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

Status write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  LATHE_TRY(AtomicFile file, AtomicFile::create(path));
  LATHE_TRY(file.write(bytes));
  return file.commit();
}

Result<AtomicFile> AtomicFile::create(const std::filesystem::path& path) {
  LATHE_TRY(check_name(path));
  mode_t mode = 0;

  struct stat status {};

  if (::stat(path.c_str(), &status) == 0) {
    // A rename would replace a device or fail on a folder, and only after everything has been written.
    if (!S_ISREG(status.st_mode)) return not_regular(path, status.st_mode);
    mode = status.st_mode & 07777;
  }
  AtomicFile out;
  out.path_ = path;
  int code = EEXIST;
  for (int attempt = 0; attempt < 8 && code == EEXIST; ++attempt) {
    LATHE_TRY(const std::string suffix, random_suffix());
    // The name does not contain the final one, so that a long final name fits.
    out.temporary_ = folder_of(path) / (".lathe-" + suffix + ".tmp");
    out.fd_ = ::open(out.temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    code = out.fd_ < 0 ? errno : 0;
  }
  if (code != 0) {
    out.temporary_.clear();
    return io_error(path, "cannot create a file in its folder", code);
  }
  // A replaced file keeps its permissions. Where that is refused the new ones are the usual ones.
  if (mode != 0) [[maybe_unused]]
    const int ignored = ::fchmod(out.fd_, mode);
  return out;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::move(other.temporary_)), fd_(std::exchange(other.fd_, -1)) {
  other.temporary_.clear();
}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  if (this != &other) {
    discard();
    path_ = std::move(other.path_);
    temporary_ = std::move(other.temporary_);
    fd_ = std::exchange(other.fd_, -1);
    other.temporary_.clear();
  }
  return *this;
}

AtomicFile::~AtomicFile() {
  discard();
}

void AtomicFile::discard() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

Status AtomicFile::write(std::string_view bytes) {
  if (fd_ < 0) return Error{Errc::kIo, str(path_, ": written to after commit or after an error")};
  Status status = write_all(fd_, bytes, path_.native());
  if (!status) discard();
  return status;
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
  return write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

Status AtomicFile::commit() {
  if (fd_ < 0) return Error{Errc::kIo, str(path_, ": committed after commit or after an error")};
  std::string_view failed;
  int code = 0;
  if (::fsync(fd_) != 0) {
    failed = "cannot sync";
    code = errno;
  }
  if (::close(std::exchange(fd_, -1)) != 0 && code == 0 && errno != EINTR) {
    failed = "cannot close";
    code = errno;
  }
  if (code == 0 && ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    failed = "cannot rename the finished file to this name";
    code = errno;
  }
  if (code != 0) {
    discard();
    return io_error(path_, failed, code);
  }
  temporary_.clear();
  return sync_folder(folder_of(path_));
}

namespace {

// A shared map that begins on a huge page's boundary where the address space has room for that, so that its pages can
// be replaced by huge ones; MAP_FAILED when there is no map at all.
void* map_aligned(int fd, size_t size) {
  constexpr size_t kHugePage = size_t{2} << 20;
  if (size >= kHugePage) {
    void* const reserved =
        ::mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved != MAP_FAILED) {
      auto* const begin = static_cast<std::byte*>(reserved);
      const size_t skip = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
      void* const map = ::mmap(begin + skip, size, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
      const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
      const size_t used = (size + page - 1) / page * page;
      if (map == MAP_FAILED) {
        ::munmap(begin, size + kHugePage);
      } else {
        if (skip > 0) ::munmap(begin, skip);
        if (used < size + kHugePage - skip) ::munmap(begin + skip + used, size + kHugePage - skip - used);
        return map;
      }
    }
  }
  return ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
}

}  // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::filesystem::path& path) {
  LATHE_TRY(const RegularFile file, open_regular(path));
  std::shared_ptr<MappedFile> out(new MappedFile());
  out->path_ = path;
  if (file.size == 0) return std::shared_ptr<const MappedFile>(std::move(out));  // mmap refuses length 0
  void* data = map_aligned(file.fd.get(), file.size);
  if (data == MAP_FAILED) return io_error(path, str("cannot map ", file.size, " bytes"), errno);
  out->data_ = static_cast<const std::byte*>(data);
  out->size_ = file.size;
  map_guard::add(out->data_, out->size_, out->path_.c_str());
  return std::shared_ptr<const MappedFile>(std::move(out));
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  map_guard::remove(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

Result<uint64_t> free_disk_bytes(const std::filesystem::path& path) {
  LATHE_TRY(check_name(path));
  std::error_code error;
  std::filesystem::path at = std::filesystem::absolute(path, error);
  if (error) return io_error(path, "cannot find the current folder", error.value());
  while (true) {
    struct statvfs status {};

    if (::statvfs(at.c_str(), &status) == 0) return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
    if ((errno != ENOENT && errno != ENOTDIR) || at == at.parent_path()) {
      return io_error(at, "cannot read the free space of its file system", errno);
    }
    at = at.parent_path();
  }
}

void release_mapped(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(bytes.data());
  const uintptr_t begin = (first + page - 1) / page * page;
  const uintptr_t end = (first + bytes.size()) / page * page;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): whole pages inside the bytes
  if (begin < end) (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace lathe
