#include "lathe/base/huge_page_copy.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <thread>
#include <vector>

#include "lathe/base/rng.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

using namespace std::chrono_literals;

std::vector<std::byte> random_bytes(size_t count) {
  Rng rng(1);
  std::vector<std::byte> out(count);
  for (size_t i = 0; i + 8 <= count; i += 8) {
    const auto word = static_cast<uint64_t>(rng.next_int(0, 1 << 30)) * 0x9e3779b97f4a7c15U;
    std::memcpy(out.data() + i, &word, 8);
  }
  return out;
}

Result<std::shared_ptr<const MappedFile>> mapped(const std::filesystem::path& path,
                                                 const std::vector<std::byte>& bytes) {
  LATHE_TRY(write_file_atomically(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  return MappedFile::open(path);
}

TEST(HugePageCopy, ReadersSeeTheSameBytesThroughout) {
  const testing::TempDir dir;
  const std::vector<std::byte> bytes = random_bytes((size_t{70} << 20) + 12345);
  const Result<std::shared_ptr<const MappedFile>> file = mapped(dir / "weights", bytes);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  const std::span<const std::byte> map = (*file)->bytes();
  std::atomic<bool> done{false};
  std::atomic<int> differences{0};
  std::thread reader([&] {
    while (!done) {
      for (size_t at = 0; at < map.size(); at += 4096) differences += map[at] == bytes[at] ? 0 : 1;
    }
  });
  uint64_t moved = 0;
  {
    const HugePageCopy copy(*file, 0ms);
    copy.wait();
    moved = copy.moved_bytes();
    EXPECT_EQ(std::memcmp(map.data(), bytes.data(), bytes.size()), 0);
  }
  done = true;
  reader.join();
  EXPECT_EQ(differences, 0);
  EXPECT_EQ(moved % (uint64_t{2} << 20), 0U);
  EXPECT_GT(moved, uint64_t{60} << 20);
  EXPECT_EQ(std::memcmp(map.data(), bytes.data(), bytes.size()), 0);  // and after the copier is gone
}

TEST(HugePageCopy, EndsEarlyWhenItIsDestroyed) {
  const testing::TempDir dir;
  const std::vector<std::byte> bytes = random_bytes(size_t{8} << 20);
  const Result<std::shared_ptr<const MappedFile>> file = mapped(dir / "weights", bytes);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  { const HugePageCopy copy(*file, 0ms); }
  EXPECT_EQ(std::memcmp((*file)->bytes().data(), bytes.data(), bytes.size()), 0);
}

// Nobody waits for the delay: neither who wants it done nor who has no more use for it.
TEST(HugePageCopy, BeginsAfterTheDelayOrWhenAskedTo) {
  const testing::TempDir dir;
  const std::vector<std::byte> bytes = random_bytes(size_t{8} << 20);
  const Result<std::shared_ptr<const MappedFile>> file = mapped(dir / "weights", bytes);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  const auto began = std::chrono::steady_clock::now();
  {
    const HugePageCopy copy(*file, 1h);
    EXPECT_EQ(copy.moved_bytes(), 0U);
  }
  {
    const HugePageCopy copy(*file, 1h);
    copy.wait();
    EXPECT_GT(copy.moved_bytes(), uint64_t{4} << 20);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, 10min);
  EXPECT_EQ(std::memcmp((*file)->bytes().data(), bytes.data(), bytes.size()), 0);
}

TEST(HugePageCopy, DelayGrowsWithTheFileUpToAMinute) {
  EXPECT_EQ(HugePageCopy::usual_delay(1'500'000'000), 10s);
  EXPECT_EQ(HugePageCopy::usual_delay(uint64_t{1} << 40), 1min);
}

TEST(HugePageCopy, DoesNotPayForSmallFilesOrBeyondMemory) {
  EXPECT_FALSE(HugePageCopy::pays(1 << 20));
  EXPECT_FALSE(HugePageCopy::pays(uint64_t{1} << 50));
}

}  // namespace
}  // namespace lathe
