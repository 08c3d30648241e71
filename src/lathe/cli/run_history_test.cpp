#include "lathe/cli/run_history.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "lathe/base/file.h"
#include "lathe/base/str.h"
#include "support/temp_dir.h"

namespace lathe::cli {
namespace {

using Lines = std::vector<std::string>;

TEST(RunHistory, NoFileIsNoHistory) {
  const testing::TempDir dir;
  const auto lines = read_history(dir / "none");
  ASSERT_TRUE(lines);
  EXPECT_TRUE(lines->empty());
}

TEST(RunHistory, MakesFolderAndPrivateFile) {
  const testing::TempDir dir;
  const std::filesystem::path file = dir / "a" / "b" / "history";
  ASSERT_TRUE(append_history(file, {"first", "é 中"}));
  ASSERT_TRUE(append_history(file, {"third"}));
  const auto lines = read_history(file);
  ASSERT_TRUE(lines);
  EXPECT_EQ(*lines, (Lines{"first", "é 中", "third"}));

  struct stat info {};

  ASSERT_EQ(::stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST(RunHistory, LeavesOutWhatNobodyWantsBack) {
  const testing::TempDir dir;
  const std::filesystem::path file = dir / "history";
  ASSERT_TRUE(
      append_history(file, {"", "  \t", "a", "a", "b", "a", std::string(kHistoryLineBytes + 1, 'x'), "two\nlines"}));
  ASSERT_TRUE(append_history(file, {"a"}));
  const auto lines = read_history(file);
  ASSERT_TRUE(lines);
  EXPECT_EQ(*lines, (Lines{"a", "b", "a"}));
}

TEST(RunHistory, KeepsTheNewestLines) {
  const testing::TempDir dir;
  const std::filesystem::path file = dir / "history";
  Lines many;
  for (size_t i = 0; i < kHistoryLines + 10; ++i) many.push_back(str("line ", i));
  ASSERT_TRUE(append_history(file, many));
  const auto lines = read_history(file);
  ASSERT_TRUE(lines);
  ASSERT_EQ(lines->size(), kHistoryLines);
  EXPECT_EQ(lines->front(), "line 10");
  EXPECT_EQ(lines->back(), str("line ", kHistoryLines + 9));
}

TEST(RunHistory, KeepsWithinItsBytes) {
  const testing::TempDir dir;
  const std::filesystem::path file = dir / "history";
  Lines many;
  for (int i = 0; i < 100; ++i) many.push_back(std::string(10000, 'x') + str(i));
  ASSERT_TRUE(append_history(file, many));
  EXPECT_LE(std::filesystem::file_size(file), kHistoryBytes);
  const auto lines = read_history(file);
  ASSERT_TRUE(lines);
  EXPECT_GT(lines->size(), 20u);
  EXPECT_TRUE(lines->back().ends_with("99"));
}

TEST(RunHistory, ForeignFileIsAnErrorNotALoss) {
  const testing::TempDir dir;
  std::filesystem::create_directory(dir / "history");
  const Status status = append_history(dir / "history", {"a"});
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("history"), std::string::npos) << status.error().message;
}

}  // namespace
}  // namespace lathe::cli
