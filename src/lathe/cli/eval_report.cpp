#include "lathe/cli/eval_report.h"

#include <unistd.h>

#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/base/svg_chart.h"
#include "lathe/cli/common.h"

namespace lathe::cli {

EvalProgress::EvalProgress(bool quiet) : quiet_(quiet), terminal_(::isatty(STDERR_FILENO) == 1) {}

void EvalProgress::show(int64_t done, int64_t total, std::string_view detail) {
  const auto now = std::chrono::steady_clock::now();
  const double since = std::chrono::duration<double>(now - last_).count();
  if (quiet_ || (done < total && since < (terminal_ ? 0.2 : 10.0))) return;
  last_ = now;
  const double rate = tokens_per_second(done, std::chrono::duration<double>(now - start_).count());
  const double left = rate > 0.0 ? static_cast<double>(total - done) / rate : 0.0;
  const std::string text =
      str(done, " of ", total, " tokens, ", fixed(rate, 0), " tok/s, ", detail, ", ", fixed(left, 0), " s left");
  if (!terminal_) {
    log_info(text);
    return;
  }
  (void)write_all(STDERR_FILENO, str("\r\x1b[K", text, done >= total ? "\n" : ""), "stderr");
}

Status check_picture_path(const std::string& path) {
  if (path.empty() || path.ends_with(".svg") || path.ends_with(".html")) return {};
  return Error{Errc::kInvalidArgument, str("--out: expected a name that ends in .svg or .html, found ", quoted(path))};
}

Status write_pictures(const std::string& path,
                      std::string_view title,
                      const std::vector<std::string>& notes,
                      const std::vector<std::string>& svgs) {
  return write_file_atomically(path, path.ends_with(".html") ? chart_page(title, notes, svgs) : svgs.front());
}

}  // namespace lathe::cli
