#include "lathe/cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lathe/base/clock.h"
#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/cli/terminal.h"

namespace lathe::cli {
namespace {

constexpr double kRateWindow = 5.0;   // seconds that a rate is averaged over
constexpr double kRedrawEvery = 0.2;  // seconds
constexpr double kPlainEvery = 10.0;  // seconds between lines in a log
constexpr int kNarrowest = 20;        // columns

std::string percent(uint64_t done, uint64_t total) {
  if (total == 0) return "100 %";
  return str(static_cast<int64_t>(100.0 * static_cast<double>(done) / static_cast<double>(total)), " %");
}

std::string amounts(uint64_t done, uint64_t total) {
  return str(human_bytes(done), " of ", human_bytes(total), ", ", percent(done, total));
}

// "name ..... amounts", the name cut so that both fit.
std::string file_line(const std::string& name, const std::string& right, int width) {
  const int room = width - static_cast<int>(right.size()) - 2;
  if (room < 8) return cut_to_width(name + "  " + right, width);
  const std::string left = cut_to_width(name, room);
  return str(left, "  ", right);
}

}  // namespace

std::string clock_text(double seconds) {
  if (!(seconds >= 0.0) || seconds >= 99.0 * 3600.0) return "-:--";
  const auto whole = static_cast<int64_t>(std::ceil(seconds));
  const auto two = [](int64_t n) { return n < 10 ? str("0", n) : str(n); };
  const int64_t hours = whole / 3600;
  if (hours > 0) return str(hours, ":", two(whole / 60 % 60), ":", two(whole % 60));
  return str(whole / 60, ":", two(whole % 60));
}

StatusLine::StatusLine(bool quiet) : quiet_(quiet), redraw_(can_redraw(STDERR_FILENO)) {}

bool StatusLine::due(bool last) {
  const double now = now_seconds();
  if (quiet_ || (!last && now - shown_ < (redraw_ ? kRedrawEvery : kPlainEvery))) return false;
  shown_ = now;
  return true;
}

void StatusLine::show(std::string_view text, bool last) const {
  if (!redraw_) {
    log_info(text);
    return;
  }
  const std::string shown = cut_to_width(text, terminal_width(STDERR_FILENO) - 1);
  (void)write_all(STDERR_FILENO, str("\r\x1b[K", shown, last ? "\n" : ""), "stderr");
}

void StatusLine::clear() const {
  if (redraw_ && shown_ >= 0.0) (void)write_all(STDERR_FILENO, "\r\x1b[K", "stderr");
}

void DownloadProgress::note(const HubProgress& report, double now) {
  const std::string name = neutralised(report.file);
  const auto known = active_.find(name);
  // What a first report of a file on its way has may come from an earlier try, which says nothing about the rate.
  const uint64_t before = known != active_.end() ? known->second.done : report.file_finished ? 0 : report.file_done;
  if (report.file_done > before) loaded_ += report.file_done - before;
  any_ = true;
  done_ = report.done;
  total_ = report.total;
  if (report.file_finished) {
    active_.erase(name);
    finished_.push_back(str(name, " ", human_bytes(report.file_total)));
  } else {
    active_[name] = {report.file_done, report.file_total};
  }
  samples_.emplace_back(now, loaded_);
  while (samples_.size() > 2 && samples_[1].first < now - kRateWindow) samples_.pop_front();
}

// Bytes per second over the last seconds; falls while nothing arrives.
double DownloadProgress::rate(double now) const {
  if (samples_.empty()) return 0.0;
  const bool from_start = samples_.front().first - started_at_ < kRateWindow && now - started_at_ < kRateWindow;
  const double since = from_start ? started_at_ : samples_.front().first;
  const uint64_t before = from_start ? 0 : samples_.front().second;
  return now > since ? static_cast<double>(loaded_ - before) / (now - since) : 0.0;
}

std::string DownloadProgress::total_line(double now) const {
  const double speed = rate(now);
  const uint64_t left = total_ - std::min(done_, total_);
  const double seconds = left == 0 ? 0.0 : speed > 0.0 ? static_cast<double>(left) / speed : -1.0;
  return str(
      amounts(done_, total_), ", ", human_bytes(static_cast<uint64_t>(speed)), "/s, ", clock_text(seconds), " left");
}

std::vector<std::string> DownloadProgress::lines(double now, int width) const {
  std::vector<std::string> out;
  if (!any_) return out;
  const int columns = std::max(width, kNarrowest) - 1;  // the last column would wrap on some terminals
  for (const auto& [name, file] : active_) out.push_back(file_line(name, amounts(file.done, file.total), columns));
  out.push_back(cut_to_width("total  " + total_line(now), columns));
  return out;
}

std::vector<std::string> DownloadProgress::take_finished() {
  return std::exchange(finished_, {});
}

// Back to the first line drawn last time, and everything below it gone.
std::string ProgressDisplay::erased() const {
  return drawn_lines_ > 0 ? str("\x1b[", drawn_lines_, "A\r\x1b[J") : std::string();
}

void ProgressDisplay::update(DownloadProgress& progress, double now) {
  if (now - last_drawn_ < (redraw_ ? kRedrawEvery : kPlainEvery)) return;
  std::string text = redraw_ ? erased() : std::string();
  for (const std::string& file : progress.take_finished()) text += file + "\n";
  const std::vector<std::string> lines = progress.lines(now, terminal_width(fd_));
  if (lines.empty()) return;
  last_drawn_ = now;
  if (redraw_) {
    for (const std::string& line : lines) text += line + "\n";
    drawn_lines_ = static_cast<int>(lines.size());
  } else {
    text += progress.total_line(now) + "\n";
  }
  (void)write_all(fd_, text, "stderr");
}

void ProgressDisplay::finish(DownloadProgress& progress, double now) {
  std::string text = redraw_ ? erased() : std::string();
  drawn_lines_ = 0;
  for (const std::string& file : progress.take_finished()) text += file + "\n";
  if (!progress.lines(now, terminal_width(fd_)).empty()) {
    const double seconds = now - progress.started_at();
    text +=
        str("loaded ",
            human_bytes(progress.loaded()),
            " in ",
            fixed(seconds, 1),
            " s, ",
            human_bytes(static_cast<uint64_t>(seconds > 0.0 ? static_cast<double>(progress.loaded()) / seconds : 0.0)),
            "/s\n");
  }
  (void)write_all(fd_, text, "stderr");
}

}  // namespace lathe::cli
