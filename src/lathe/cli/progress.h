// Progress as text: of a download rates, remaining time, and the lines that a terminal or a log shows; of other long
// work one line.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/formats/hub.h"

namespace lathe::cli {

// 65 -> "1:05", 3725 -> "1:02:05"; more than 99 hours or not known (negative): "-:--".
std::string clock_text(double seconds);

// One line on stderr about long work: redrawn in place on a terminal that can, a line of the log now and then
// elsewhere. The last one stays unless it is cleared.
class StatusLine {
 public:
  explicit StatusLine(bool quiet);

  // Whether it is time for a line: always for the last one, never when quiet. After true, show() is expected.
  bool due(bool last);
  // Shows `text`, on a terminal cut to its width.
  void show(std::string_view text, bool last) const;
  // Takes a line that was redrawn away; what a log holds stays.
  void clear() const;

 private:
  bool quiet_;
  bool redraw_;
  double shown_ = -1e9;  // now_seconds() of the last line
};

// What is known about a download, in memory only. Times are seconds of any clock that does not go back. Not thread
// safe.
class DownloadProgress {
 public:
  explicit DownloadProgress(double started_at) : started_at_(started_at) {}

  // Takes in a report of the download; `now` in seconds.
  void note(const HubProgress& report, double now);

  // One line per file on its way and one for the total, each at most `width` columns wide; none before the first
  // report.
  std::vector<std::string> lines(double now, int width) const;
  // The total alone: "1.20 GiB of 4.00 GiB, 30 %, 45.0 MiB/s, 1:02 left".
  std::string total_line(double now) const;
  // Names and sizes of the files finished since the last call: "config.json 1.03 KiB".
  std::vector<std::string> take_finished();

  // Bytes that were loaded since the start; what lay there before does not count.
  uint64_t loaded() const { return loaded_; }

  double started_at() const { return started_at_; }

 private:
  struct File {
    uint64_t done = 0;
    uint64_t total = 0;
  };

  double rate(double now) const;

  double started_at_;
  bool any_ = false;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
  uint64_t loaded_ = 0;
  std::map<std::string, File> active_;
  std::vector<std::string> finished_;
  std::deque<std::pair<double, uint64_t>> samples_;  // time, bytes loaded; of the last seconds
};

// Shows a DownloadProgress on a descriptor: redrawn in place on a terminal, plain lines at intervals elsewhere.
class ProgressDisplay {
 public:
  ProgressDisplay(int fd, bool redraw) : fd_(fd), redraw_(redraw) {}

  // Draws when it is time to.
  void update(DownloadProgress& progress, double now);
  // Erases what is redrawn and leaves what was loaded, and how fast.
  void finish(DownloadProgress& progress, double now);

 private:
  std::string erased() const;

  int fd_;
  bool redraw_;
  int drawn_lines_ = 0;
  double last_drawn_ = -1e9;
};

}  // namespace lathe::cli
