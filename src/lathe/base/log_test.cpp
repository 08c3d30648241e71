#include "lathe/base/log.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace lathe {
namespace {

class Log : public ::testing::Test {
 protected:
  void TearDown() override { set_log_level(LogLevel::kInfo); }
};

std::string everything() {
  ::testing::internal::CaptureStderr();
  log_debug("d");
  log_info("i");
  log_warning("w ", 1);
  log_error("e");
  return ::testing::internal::GetCapturedStderr();
}

TEST_F(Log, LevelsChooseTheLines) {
  EXPECT_EQ(everything(), "lathe: info: i\nlathe: warning: w 1\nlathe: error: e\n");
  set_log_level(LogLevel::kDebug);
  EXPECT_EQ(everything(), "lathe: debug: d\nlathe: info: i\nlathe: warning: w 1\nlathe: error: e\n");
  for (const LogLevel level : {LogLevel::kWarning, LogLevel::kError}) {
    set_log_level(level);
    EXPECT_EQ(everything(), "lathe: warning: w 1\nlathe: error: e\n");
  }
  set_log_level(LogLevel::kSilent);
  EXPECT_EQ(everything(), "");
}

TEST_F(Log, AMessageStaysOneLineAndReachesNoTerminal) {
  ::testing::internal::CaptureStderr();
  log_error("a\nb\x1b[2J\tc\r");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "lathe: error: a\\nb\\x1b[2J\tc\\x0d\n");
}

TEST_F(Log, LinesOfThreadsDoNotMix) {
  ::testing::internal::CaptureStderr();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 100; ++i) log_info(std::string(50, static_cast<char>('a' + t)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string text = ::testing::internal::GetCapturedStderr();
  size_t lines = 0;
  for (size_t begin = 0; begin < text.size(); ++lines) {
    const size_t end = text.find('\n', begin);
    ASSERT_NE(end, std::string::npos);
    const std::string line = text.substr(begin, end - begin);
    ASSERT_EQ(line.size(), 13u + 50);
    ASSERT_EQ(line.find_first_not_of(line.back(), 13), std::string::npos) << line;
    begin = end + 1;
  }
  EXPECT_EQ(lines, 400u);
}

}  // namespace
}  // namespace lathe
