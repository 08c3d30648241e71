// What the evaluations share: a progress line with rate and remaining time, and pictures of a result in a file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/clock.h"
#include "lathe/base/result.h"
#include "lathe/cli/progress.h"

namespace lathe::cli {

// A status line about tokens that are being scored.
class EvalProgress {
 public:
  explicit EvalProgress(bool quiet) : line_(quiet) {}

  // "DONE of TOTAL tokens, RATE tok/s, `detail`, N s left". `done` counts from 0; the last line has done == total.
  void show(int64_t done, int64_t total, std::string_view detail);

 private:
  StatusLine line_;
  double start_ = now_seconds();
};

// kInvalidArgument unless `path` (of --out) is empty or ends in .svg or .html: said before the work, not after it.
Status check_picture_path(const std::string& path);

// Writes the first picture to a .svg file, or a page with notes and all pictures to a .html file.
Status write_pictures(const std::string& path,
                      std::string_view title,
                      const std::vector<std::string>& notes,
                      const std::vector<std::string>& svgs);

}  // namespace lathe::cli
