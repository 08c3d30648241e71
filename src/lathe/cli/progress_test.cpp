#include "lathe/cli/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "lathe/base/file.h"
#include "support/temp_dir.h"

namespace lathe::cli {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

HubProgress report(std::string file, uint64_t file_done, uint64_t file_total, uint64_t done, uint64_t total) {
  return {.file = std::move(file), .file_done = file_done, .file_total = file_total, .done = done, .total = total};
}

TEST(ClockText, MinutesAndHours) {
  EXPECT_EQ(clock_text(0.0), "0:00");
  EXPECT_EQ(clock_text(59.2), "1:00");
  EXPECT_EQ(clock_text(65.0), "1:05");
  EXPECT_EQ(clock_text(3725.0), "1:02:05");
  EXPECT_EQ(clock_text(-1.0), "-:--");
  EXPECT_EQ(clock_text(1e12), "-:--");
}

TEST(DownloadProgress, NothingBeforeTheFirstReport) {
  const DownloadProgress progress(0.0);
  EXPECT_TRUE(progress.lines(1.0, 80).empty());
}

TEST(DownloadProgress, RateAndRemainingTime) {
  DownloadProgress progress(100.0);
  progress.note(report("a", 0, 100 * kMiB, 0, 100 * kMiB), 100.0);
  progress.note(report("a", 10 * kMiB, 100 * kMiB, 10 * kMiB, 100 * kMiB), 102.0);
  EXPECT_EQ(progress.total_line(102.0), "10.00 MiB of 100.00 MiB, 10 %, 5.00 MiB/s, 0:18 left");
  // Nothing arrives: the rate falls, the remaining time grows.
  EXPECT_EQ(progress.total_line(104.0), "10.00 MiB of 100.00 MiB, 10 %, 2.50 MiB/s, 0:36 left");
}

TEST(DownloadProgress, RateIsOfTheLastSeconds) {
  DownloadProgress progress(0.0);
  for (uint64_t second = 0; second <= 20; ++second) {
    const uint64_t done = second <= 10 ? second * 10 * kMiB : (100 + (second - 10)) * kMiB;
    progress.note(report("a", done, 1000 * kMiB, done, 1000 * kMiB), static_cast<double>(second));
  }
  EXPECT_NE(progress.total_line(20.0).find(" 1.00 MiB/s"), std::string::npos) << progress.total_line(20.0);
}

TEST(DownloadProgress, WhatWasThereBeforeIsNoSpeed) {
  DownloadProgress progress(0.0);
  // 60 of 100 MiB from an earlier try, in the file and in others.
  progress.note(report("a", 20 * kMiB, 50 * kMiB, 60 * kMiB, 100 * kMiB), 1.0);
  EXPECT_EQ(progress.loaded(), 0u);
  progress.note(report("a", 22 * kMiB, 50 * kMiB, 62 * kMiB, 100 * kMiB), 2.0);
  EXPECT_EQ(progress.loaded(), 2 * kMiB);
  // A transfer that starts again loses nothing of the count, and what is loaded twice counts twice.
  progress.note(report("a", 0, 50 * kMiB, 40 * kMiB, 100 * kMiB), 3.0);
  progress.note(report("a", 1 * kMiB, 50 * kMiB, 41 * kMiB, 100 * kMiB), 4.0);
  EXPECT_EQ(progress.loaded(), 3 * kMiB);
}

TEST(DownloadProgress, OneLinePerActiveFileAndOneForAll) {
  DownloadProgress progress(0.0);
  progress.note(report("b.safetensors", kMiB, 4 * kMiB, kMiB, 8 * kMiB), 1.0);
  progress.note(report("a.json", kMiB, 4 * kMiB, 2 * kMiB, 8 * kMiB), 1.0);
  auto lines = progress.lines(1.0, 80);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], "a.json  1.00 MiB of 4.00 MiB, 25 %");
  EXPECT_TRUE(lines[1].starts_with("b.safetensors  ")) << lines[1];
  EXPECT_TRUE(lines[2].starts_with("total  2.00 MiB of 8.00 MiB")) << lines[2];

  HubProgress finished = report("a.json", 4 * kMiB, 4 * kMiB, 5 * kMiB, 8 * kMiB);
  finished.file_finished = true;
  progress.note(finished, 2.0);
  lines = progress.lines(2.0, 80);
  EXPECT_EQ(lines.size(), 2u);
  EXPECT_EQ(progress.take_finished(), std::vector<std::string>{"a.json 4.00 MiB"});
  EXPECT_TRUE(progress.take_finished().empty());
}

TEST(DownloadProgress, LinesFitTheWidth) {
  DownloadProgress progress(0.0);
  progress.note(report(std::string(300, 'n') + ".safetensors", kMiB, 4 * kMiB, kMiB, 8 * kMiB), 1.0);
  for (const int width : {0, 20, 40, 80, 200}) {
    for (const std::string& line : progress.lines(1.0, width)) {
      EXPECT_LT(static_cast<int>(line.size()), std::max(width, 20)) << line;
    }
  }
  EXPECT_NE(progress.lines(1.0, 80).front().find("...  1.00 MiB of 4.00 MiB, 25 %"), std::string::npos);
}

TEST(DownloadProgress, NamesFromTheHubAreHarmless) {
  DownloadProgress progress(0.0);
  progress.note(report("\x1b[2Jx", 1, 2, 1, 2), 1.0);
  EXPECT_TRUE(progress.lines(1.0, 80).front().starts_with("\\x1b[2Jx"));
}

class DisplayTest : public ::testing::Test {
 protected:
  DisplayTest() { fd_ = ::open((dir_ / "out").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600); }

  ~DisplayTest() override { ::close(fd_); }

  std::string written() const { return *read_file(dir_ / "out"); }

  testing::TempDir dir_;
  int fd_ = -1;
};

TEST_F(DisplayTest, PlainLinesComeAtIntervals) {
  ProgressDisplay display(fd_, false);
  DownloadProgress progress(0.0);
  for (int i = 1; i <= 100; ++i) {
    progress.note(report("a", static_cast<uint64_t>(i) * kMiB, 100 * kMiB, static_cast<uint64_t>(i) * kMiB, 100 * kMiB),
                  0.2 * i);
    display.update(progress, 0.2 * i);
  }
  display.finish(progress, 20.0);
  const std::string text = written();
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
  EXPECT_NE(text.find("loaded 99.00 MiB in 20.0 s"), std::string::npos) << text;
}

TEST_F(DisplayTest, RedrawingGoesBackOverItsLines) {
  ProgressDisplay display(fd_, true);
  DownloadProgress progress(0.0);
  display.update(progress, 0.0);
  EXPECT_EQ(written(), "");
  progress.note(report("a", kMiB, 4 * kMiB, kMiB, 4 * kMiB), 1.0);
  display.update(progress, 1.0);
  const std::string first = written();
  EXPECT_EQ(std::count(first.begin(), first.end(), '\n'), 2) << first;
  display.update(progress, 1.05);  // too soon
  EXPECT_EQ(written(), first);
  display.update(progress, 2.0);
  EXPECT_TRUE(written().substr(first.size()).starts_with("\x1b[2A\r\x1b[J")) << written();
}

}  // namespace
}  // namespace lathe::cli
