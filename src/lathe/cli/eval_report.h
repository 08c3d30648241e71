// What the evaluations share: a progress line with rate and remaining time, and pictures of a result in a file.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"

namespace lathe::cli {

// A line on stderr now and then: on a terminal redrawn, in a log once in ten seconds.
class EvalProgress {
 public:
  explicit EvalProgress(bool quiet);

  // "DONE of TOTAL tokens, RATE tok/s, `detail`, N s left". `done` counts from 0; the last line has done == total.
  void show(int64_t done, int64_t total, std::string_view detail);

 private:
  bool quiet_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_;
};

// kInvalidArgument unless `path` (of --out) is empty or ends in .svg or .html: said before the work, not after it.
Status check_picture_path(const std::string& path);

// Writes the first picture to a .svg file, or a page with notes and all pictures to a .html file.
Status write_pictures(const std::string& path,
                      std::string_view title,
                      const std::vector<std::string>& notes,
                      const std::vector<std::string>& svgs);

}  // namespace lathe::cli
