#include "lathe/train/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include "lathe/base/str.h"

namespace lathe::train {
namespace {

class FileSource : public ByteSource {
 public:
  FileSource(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}

  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  ~FileSource() override { ::close(fd_); }

  Result<size_t> read(std::span<char> out) override {
    while (true) {
      const ssize_t got = ::read(fd_, out.data(), out.size());
      if (got >= 0) return static_cast<size_t>(got);
      if (errno != EINTR) {
        return Error{Errc::kIo, str(path_, ": cannot read: ", std::generic_category().message(errno))};
      }
    }
  }

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int fd_;
};

class ZstdSource : public ByteSource {
 public:
  explicit ZstdSource(std::unique_ptr<FileSource> file)
      : file_(std::move(file)), stream_(ZSTD_createDStream()), packed_(ZSTD_DStreamInSize()) {}

  ZstdSource(const ZstdSource&) = delete;
  ZstdSource& operator=(const ZstdSource&) = delete;

  ~ZstdSource() override { ZSTD_freeDStream(stream_); }

  bool ready() const { return stream_ != nullptr; }

  Result<size_t> read(std::span<char> out) override {
    ZSTD_outBuffer target{.dst = out.data(), .size = out.size(), .pos = 0};
    while (target.pos == 0) {
      if (input_.pos == input_.size && !drained_) {
        LATHE_TRY(const size_t got, file_->read(packed_));
        drained_ = got == 0;
        input_ = {.src = packed_.data(), .size = got, .pos = 0};
      }
      if (drained_ && !inside_frame_) return size_t{0};
      const size_t before = input_.pos;
      const size_t left = ZSTD_decompressStream(stream_, &target, &input_);
      if (ZSTD_isError(left) != 0) {
        return Error{Errc::kInvalidData, str(file_->path(), ": not readable as zstd: ", ZSTD_getErrorName(left))};
      }
      inside_frame_ = left != 0;
      if (drained_ && inside_frame_ && target.pos == 0 && input_.pos == before) {
        return Error{Errc::kInvalidData,
                     str(file_->path(), ": expected the end of a zstd frame, found the end of the file")};
      }
    }
    return target.pos;
  }

 private:
  std::unique_ptr<FileSource> file_;
  ZSTD_DStream* stream_;
  std::vector<char> packed_;
  ZSTD_inBuffer input_{};
  bool drained_ = false;
  bool inside_frame_ = false;
};

}  // namespace

Result<std::unique_ptr<ByteSource>> open_bytes(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    const Errc kind = errno == ENOENT || errno == ENOTDIR ? Errc::kNotFound : Errc::kIo;
    return Error{kind, str(path, ": cannot open: ", std::generic_category().message(errno))};
  }
  auto file = std::make_unique<FileSource>(path, fd);

  struct stat status {};

  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    return Error{Errc::kIo, str(path, ": expected a regular file, found something else")};
  }
  if (path.extension() != ".zst") return std::unique_ptr<ByteSource>(std::move(file));
  auto packed = std::make_unique<ZstdSource>(std::move(file));
  if (!packed->ready()) return Error{Errc::kResourceExhausted, str(path, ": not enough memory to unpack it")};
  return std::unique_ptr<ByteSource>(std::move(packed));
}

}  // namespace lathe::train
