#include "lathe/cli/eval_report.h"

#include "lathe/base/file.h"
#include "lathe/base/str.h"
#include "lathe/base/svg_chart.h"
#include "lathe/cli/common.h"

namespace lathe::cli {

void EvalProgress::show(int64_t done, int64_t total, std::string_view detail) {
  const bool last = done >= total;
  if (!line_.due(last)) return;
  const double rate = tokens_per_second(done, now_seconds() - start_);
  const double left = rate > 0.0 ? static_cast<double>(total - done) / rate : 0.0;
  line_.show(str(done, " of ", total, " tokens, ", fixed(rate, 0), " tok/s, ", detail, ", ", fixed(left, 0), " s left"),
             last);
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
