#include "lathe/base/map_guard.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "lathe/base/file.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

volatile std::byte g_sink{};  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): keeps reads alive

void put_pages(const std::filesystem::path& path, int pages) {
  std::ofstream(path, std::ios::binary) << std::string(static_cast<size_t>(pages * ::sysconf(_SC_PAGESIZE)), 'x');
}

TEST(MapGuardDeathTest, ATruncatedMapEndsWithItsNameAndExitCodeOne) {
  const testing::TempDir dir;
  put_pages(dir / "w.safetensors", 4);
  EXPECT_EXIT(
      {
        install_map_guard();
        const auto file = *MappedFile::open(dir / "w.safetensors");
        if (::truncate((dir / "w.safetensors").c_str(), 10) != 0) ::_exit(99);
        g_sink = file->bytes().back();
      },
      ::testing::ExitedWithCode(1),
      "^lathe: error: .*/w.safetensors: the file was truncated or became unreadable while mapped\n$");
}

TEST(MapGuardDeathTest, TheRightOneOfManyMapsIsNamed) {
  const testing::TempDir dir;
  for (int i = 0; i < 5; ++i) put_pages(dir / str("shard", i), 2);
  EXPECT_EXIT(
      {
        install_map_guard();
        std::vector<std::shared_ptr<const MappedFile>> files;
        for (int i = 0; i < 5; ++i) files.push_back(*MappedFile::open(dir / str("shard", i)));
        files[1].reset();
        if (::truncate((dir / "shard3").c_str(), 0) != 0) ::_exit(99);
        g_sink = files[4]->bytes().front();
        g_sink = files[3]->bytes().front();
      },
      ::testing::ExitedWithCode(1),
      "shard3: the file was truncated");
}

TEST(MapGuardDeathTest, FaultsOfOtherMapsKillAsUsual) {
  const testing::TempDir dir;
  put_pages(dir / "known", 1);
  put_pages(dir / "other", 1);
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, SIG_DFL);
        install_map_guard();
        const auto known = *MappedFile::open(dir / "known");
        std::FILE* file = std::fopen((dir / "other").c_str(), "r");
        const auto* data =
            static_cast<const std::byte*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, ::fileno(file), 0));
        if (::truncate((dir / "other").c_str(), 0) != 0) ::_exit(99);
        g_sink = data[0];
      },
      ::testing::KilledBySignal(SIGBUS),
      "");
}

TEST(MapGuardDeathTest, ASignalFromOutsideKillsAsUsual) {
  EXPECT_EXIT(
      {
        install_map_guard();
        ::raise(SIGBUS);
      },
      ::testing::KilledBySignal(SIGBUS),
      "");
}

TEST(MapGuard, MoreMapsThanSlotsAreHarmless) {
  std::vector<std::byte> bytes(5000);
  for (std::byte& byte : bytes) map_guard::add(&byte, 1, "many");
  for (std::byte& byte : bytes) map_guard::remove(&byte);
}

}  // namespace
}  // namespace lathe
