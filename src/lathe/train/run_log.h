// metrics.jsonl of a run: one JSON object per line, appended as the run goes. A kill loses at most the line that was
// being written; going on cuts off what came after the checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"

namespace lathe::train {

class RunLog {
 public:
  // Opens or makes the file and keeps the lines of at most `steps` steps.
  static Result<RunLog> open(const std::filesystem::path& path, int64_t steps);
  RunLog(RunLog&& other) noexcept;
  RunLog& operator=(RunLog&&) = delete;
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;
  ~RunLog();

  // Appends one line. kResourceExhausted on a full disk.
  Status add(const Json& line);

 private:
  RunLog(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::filesystem::path path_;
  int fd_ = -1;
};

// All whole lines of such a file; what cannot be read as one is passed over. kNotFound, kIo.
Result<std::vector<Json>> read_run_log(const std::filesystem::path& path);

}  // namespace lathe::train
