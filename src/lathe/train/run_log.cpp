#include "lathe/train/run_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "lathe/base/file.h"
#include "lathe/base/str.h"

namespace lathe::train {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 34;

}  // namespace

Result<std::vector<Json>> read_run_log(const std::filesystem::path& path) {
  LATHE_TRY(const std::string text, read_file(path, kMaxBytes));
  std::vector<Json> out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    Result<Json> json = parse_json(std::string_view(text).substr(begin, end - begin));
    if (json && json->is_object()) out.push_back(*std::move(json));
    begin = end + 1;
  }
  return out;
}

Result<RunLog> RunLog::open(const std::filesystem::path& path, int64_t steps) {
  std::string kept;
  std::error_code ignored;
  if (steps > 0 && std::filesystem::exists(path, ignored)) {
    LATHE_TRY(const std::vector<Json> lines, read_run_log(path));
    for (const Json& line : lines) {
      const Json* step = line.find("step");
      if (step != nullptr && step->is_int() && step->as_int() <= steps) kept += line.dump() + "\n";
    }
  }
  LATHE_TRY(write_file_atomically(path, kept));
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) return Error{Errc::kIo, str(path, ": cannot open: ", std::generic_category().message(errno))};
  return RunLog(path, fd);
}

RunLog::RunLog(RunLog&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

RunLog::~RunLog() {
  if (fd_ >= 0) ::close(fd_);
}

Status RunLog::add(const Json& line) {
  return write_all(fd_, line.dump() + "\n", path_.native());
}

}  // namespace lathe::train
