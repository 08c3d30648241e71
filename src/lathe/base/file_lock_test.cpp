#include "lathe/base/file_lock.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "support/temp_dir.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

TEST(FileLock, OneHolderAtATime) {
  const testing::TempDir dir;
  const fs::path path = dir / "a.lock";
  Result<std::optional<FileLock>> first = FileLock::try_take(path);
  ASSERT_TRUE(first && *first);
  const Result<std::optional<FileLock>> second = FileLock::try_take(path);
  ASSERT_TRUE(second);
  EXPECT_FALSE(*second);
  {
    const FileLock moved = std::move(**first);
    EXPECT_FALSE(*FileLock::try_take(path));
  }
  EXPECT_TRUE(*FileLock::try_take(path));
}

TEST(FileLock, GoesWithItsProcess) {
  const testing::TempDir dir;
  const fs::path path = dir / "a.lock";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const Result<std::optional<FileLock>> lock = FileLock::try_take(path);
    ::_exit(lock && *lock ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(*FileLock::try_take(path));
}

TEST(FileLock, WhatCannotBeOpenedIsNamed) {
  const testing::TempDir dir;
  const Result<std::optional<FileLock>> absent = FileLock::try_take(dir / "no" / "a.lock");
  ASSERT_FALSE(absent);
  EXPECT_NE(absent.error().message.find("no/a.lock"), std::string::npos) << absent.error().message;
  fs::create_symlink("elsewhere", dir / "link.lock");
  EXPECT_FALSE(FileLock::try_take(dir / "link.lock"));
}

}  // namespace
}  // namespace lathe
