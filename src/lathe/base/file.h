// Files: reading, mapping, and writing that never leaves a partial file under its final name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lathe/base/result.h"

namespace lathe {

// Whether a name from elsewhere may become that of a file in a folder: 1 to 255 ASCII letters, digits, '.', '_' and
// '-', and neither "." nor "..".
bool is_plain_file_name(std::string_view name);

// Opens with O_NONBLOCK | O_CLOEXEC, refuses anything but a regular file, loops over short reads and EINTR.
// More than max_bytes is an error before anything is read.
Result<std::string> read_file(const std::filesystem::path& path, uint64_t max_bytes = uint64_t{1} << 30);

// Writes all of `bytes` to an open descriptor, over short writes and EINTR. Errors begin with `where`.
Status write_all(int fd, std::string_view bytes, std::string_view where);

// Writes through a temporary file beside `path`: write, fsync, rename, fsync of the folder. On failure the temporary
// file is removed and `path` is as it was. An existing regular file is replaced and keeps its permissions, a symbolic
// link is replaced by the file; a folder, device or pipe at `path` is refused.
Status write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// The same for content that arrives in pieces. Nothing appears under `path` before commit() succeeds; the destructor
// removes the temporary file of an uncommitted writer, and so does the first failed write or commit.
class AtomicFile {
 public:
  static Result<AtomicFile> create(const std::filesystem::path& path);
  AtomicFile(AtomicFile&&) noexcept;
  AtomicFile& operator=(AtomicFile&&) noexcept;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  // Appends bytes; the errors of the operating system, full disk included, come back.
  Status write(std::string_view bytes);
  Status write(std::span<const std::byte> bytes);
  // Makes what was written durable and gives it its name; at most once.
  Status commit();

 private:
  AtomicFile() = default;
  void discard();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_ = -1;
};

// A read-only map of a regular file. Reading a page that the file no longer has (it was truncated while mapped) ends
// the program with one error line that names the file and exit code 1, not with a signal; install_map_guard() arranges
// it.
class MappedFile {
 public:
  static Result<std::shared_ptr<const MappedFile>> open(const std::filesystem::path& path);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Tells the system that mapped file bytes will not be read again soon: the whole pages among them stop counting as this
// process's memory, and come back from the file when they are read after all.
void release_mapped(std::span<const std::byte> bytes);

// Installs the SIGBUS handler described above. Called once by programs (not by the library on its own).
void install_map_guard();

// Free bytes on the file system that holds `path` (its nearest existing parent).
Result<uint64_t> free_disk_bytes(const std::filesystem::path& path);

}  // namespace lathe
