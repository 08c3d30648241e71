#include "lathe/base/huge_page_copy.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "lathe/base/rng.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

std::vector<std::byte> random_bytes(size_t count) {
  Rng rng(1);
  std::vector<std::byte> out(count);
  for (size_t i = 0; i + 8 <= count; i += 8) {
    const auto word = static_cast<uint64_t>(rng.next_int(0, 1 << 30)) * 0x9e3779b97f4a7c15U;
    std::memcpy(out.data() + i, &word, 8);
  }
  return out;
}

TEST(HugePageCopy, ReadersSeeTheSameBytesThroughout) {
  const testing::TempDir dir;
  const std::vector<std::byte> bytes = random_bytes((size_t{70} << 20) + 12345);
  ASSERT_TRUE(
      write_file_atomically(dir / "weights", {reinterpret_cast<const char*>(bytes.data()), bytes.size()}).has_value());
  Result<std::shared_ptr<const MappedFile>> file = MappedFile::open(dir / "weights");
  ASSERT_TRUE(file.has_value());
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
    const HugePageCopy copy(*file);
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
  ASSERT_TRUE(
      write_file_atomically(dir / "weights", {reinterpret_cast<const char*>(bytes.data()), bytes.size()}).has_value());
  Result<std::shared_ptr<const MappedFile>> file = MappedFile::open(dir / "weights");
  ASSERT_TRUE(file.has_value());
  { const HugePageCopy copy(*file); }
  EXPECT_EQ(std::memcmp((*file)->bytes().data(), bytes.data(), bytes.size()), 0);
}

TEST(HugePageCopy, DoesNotPayForSmallFilesOrBeyondMemory) {
  EXPECT_FALSE(HugePageCopy::pays(1 << 20));
  EXPECT_FALSE(HugePageCopy::pays(uint64_t{1} << 50));
}

}  // namespace
}  // namespace lathe
