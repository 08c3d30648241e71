#include "lathe/base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <vector>

#include "support/address_space.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

void put(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string get(const fs::path& path) {
  Result<std::string> bytes = read_file(path);
  return bytes ? *std::move(bytes) : "error: " + bytes.error().message;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(folder)) out.push_back(entry.path().filename().string());
  return out;
}

template <class T>
std::string message(const Result<T>& result) {
  return result.has_value() ? "no error" : result.error().message;
}

// Makes writes beyond `bytes` of a file fail as a full disk does (with EFBIG in place of ENOSPC).
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    struct rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }

  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  struct rlimit before_ {};

  sighandler_t handler_;
};

TEST(PlainFileName, LettersDigitsAndThreeSigns) {
  for (const std::string& name :
       {std::string("model-00001.safetensors"), std::string("A_z.9"), std::string("..."), std::string(255, 'n')}) {
    EXPECT_TRUE(is_plain_file_name(name)) << name;
  }
  for (const std::string& name : {std::string(),
                                  std::string("."),
                                  std::string(".."),
                                  std::string("a/b"),
                                  std::string("a b"),
                                  std::string("\xc3\xa4"),
                                  std::string("a\0", 2),
                                  std::string(256, 'n')}) {
    EXPECT_FALSE(is_plain_file_name(name)) << name;
  }
}

TEST(ReadFile, ReadsAllBytes) {
  const testing::TempDir dir;
  std::string bytes(300000, 'x');
  bytes[17] = '\0';
  put(dir / "f", bytes);
  EXPECT_EQ(get(dir / "f"), bytes);
  put(dir / "empty", "");
  EXPECT_EQ(get(dir / "empty"), "");
}

TEST(ReadFile, ReadsFilesThatDoNotKnowTheirSize) {
  const Result<std::string> status = read_file("/proc/self/status");
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_NE(status->find("Threads:"), std::string::npos);
  EXPECT_EQ(message(read_file("/proc/self/status", 10)), "/proc/self/status: expected at most 10 bytes, found more");
}

TEST(ReadFile, RefusesMoreThanTheLimit) {
  const testing::TempDir dir;
  put(dir / "f", "12345");
  EXPECT_TRUE(read_file(dir / "f", 5));
  const Result<std::string> result = read_file(dir / "f", 4);
  EXPECT_EQ(message(result), str(dir / "f", ": expected at most 4 bytes, found 5"));
  EXPECT_EQ(result.error().code, Errc::kInvalidData);
  // A sparse file of a terabyte is refused before anything is allocated.
  ASSERT_EQ(::truncate((dir / "f").c_str(), off_t{1} << 40), 0);
  EXPECT_EQ(message(read_file(dir / "f")), str(dir / "f", ": expected at most 1073741824 bytes, found 1099511627776"));
}

TEST(ReadFile, MissingFilesAreNotFound) {
  const testing::TempDir dir;
  Result<std::string> result = read_file(dir / "none");
  EXPECT_EQ(message(result), str(dir / "none", ": cannot open: No such file or directory"));
  EXPECT_EQ(result.error().code, Errc::kNotFound);
  put(dir / "f", "x");
  result = read_file(dir / "f/below");
  EXPECT_EQ(message(result), str(dir / "f/below", ": cannot open: Not a directory"));
  EXPECT_EQ(result.error().code, Errc::kNotFound);
}

TEST(ReadFile, RefusesWhatIsNoRegularFile) {
  const testing::TempDir dir;
  EXPECT_EQ(message(read_file(dir.path())), str(dir.path(), ": expected a regular file, found a folder"));
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(message(read_file(dir / "pipe")), str(dir / "pipe", ": expected a regular file, found a pipe"));
  EXPECT_EQ(message(read_file("/dev/zero")), "/dev/zero: expected a regular file, found a device");
  EXPECT_EQ(message(MappedFile::open("/dev/zero")), "/dev/zero: expected a regular file, found a device");
  EXPECT_EQ(message(MappedFile::open(dir / "pipe")), str(dir / "pipe", ": expected a regular file, found a pipe"));
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);

  struct sockaddr_un address {};

  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (dir / "socket").c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(fd, reinterpret_cast<const struct sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(message(read_file(dir / "socket")), str(dir / "socket", ": expected a regular file, found a socket"));
  ::close(fd);
}

TEST(ReadFile, RefusesNamesThatTheSystemWouldCut) {
  const testing::TempDir dir;
  put(dir / "f", "secret");
  const Result<std::string> result = read_file(fs::path((dir / "f").string() + std::string("\0.json", 6)));
  EXPECT_EQ(message(result),
            str(quoted((dir / "f").string() + std::string("\0.json", 6)), ": NUL byte in a file name"));
  EXPECT_EQ(result.error().code, Errc::kInvalidArgument);
  EXPECT_EQ(message(read_file("")), "empty file name");
}

TEST(ReadFile, SaysWhenPermissionIsMissing) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const testing::TempDir dir;
  put(dir / "f", "x");
  fs::permissions(dir / "f", fs::perms::none);
  const Result<std::string> result = read_file(dir / "f");
  EXPECT_EQ(message(result), str(dir / "f", ": cannot open: Permission denied"));
  EXPECT_EQ(result.error().code, Errc::kIo);
}

TEST(WriteAll, AFullDeviceIsAnError) {
  const int fd = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  const Status status = write_all(fd, "bytes", "stdout");
  EXPECT_EQ(message(status), "stdout: cannot write: No space left on device");
  EXPECT_EQ(status.error().code, Errc::kResourceExhausted);
  EXPECT_TRUE(write_all(fd, "", "stdout"));
  ::close(fd);
}

TEST(WriteFileAtomically, WritesAndReplaces) {
  const testing::TempDir dir;
  const fs::path path = dir / "f";
  ASSERT_TRUE(write_file_atomically(path, "one"));
  EXPECT_EQ(get(path), "one");
  ASSERT_TRUE(write_file_atomically(path, std::string_view("t\0o", 3)));
  EXPECT_EQ(get(path), std::string("t\0o", 3));
  ASSERT_TRUE(write_file_atomically(path, ""));
  EXPECT_EQ(get(path), "");
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"f"});
}

TEST(WriteFileAtomically, WorksForANameWithoutFolder) {
  const testing::TempDir dir;
  const fs::path before = fs::current_path();
  fs::current_path(dir.path());
  const Status status = write_file_atomically("plain", "x");
  fs::current_path(before);
  EXPECT_EQ(message(status), "no error");
  EXPECT_EQ(get(dir / "plain"), "x");
}

TEST(WriteFileAtomically, AReplacedFileKeepsItsPermissions) {
  const testing::TempDir dir;
  put(dir / "f", "old");
  fs::permissions(dir / "f", fs::perms::owner_read | fs::perms::owner_write);
  ASSERT_TRUE(write_file_atomically(dir / "f", "new"));
  EXPECT_EQ(fs::status(dir / "f").permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST(WriteFileAtomically, ANewFileHasTheUsualPermissions) {
  const testing::TempDir dir;
  const mode_t mask = ::umask(027);
  const Status status = write_file_atomically(dir / "f", "x");
  ::umask(mask);
  ASSERT_TRUE(status);
  EXPECT_EQ(static_cast<unsigned>(fs::status(dir / "f").permissions()), 0640u);
}

TEST(WriteFileAtomically, TheLongestNameFits) {
  const testing::TempDir dir;
  const std::string longest(255, 'n');
  ASSERT_TRUE(write_file_atomically(dir / longest, "x"));
  EXPECT_EQ(get(dir / longest), "x");
  const Status status = write_file_atomically(dir / (longest + "n"), "x");
  EXPECT_EQ(message(status),
            str(dir / (longest + "n"), ": cannot rename the finished file to this name: File name too long"));
  EXPECT_EQ(names_in(dir.path()).size(), 1u);
}

TEST(AtomicFile, NothingAppearsBeforeCommit) {
  const testing::TempDir dir;
  put(dir / "f", "old");
  {
    Result<AtomicFile> file = AtomicFile::create(dir / "f");
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write("new "));
    const std::vector<std::byte> more{std::byte{'x'}};
    ASSERT_TRUE(file->write(std::span<const std::byte>(more)));
    EXPECT_EQ(get(dir / "f"), "old");
    EXPECT_EQ(names_in(dir.path()).size(), 2u);
    ASSERT_TRUE(file->commit());
    EXPECT_EQ(get(dir / "f"), "new x");
    EXPECT_EQ(message(file->write("y")), str(dir / "f", ": written to after commit or after an error"));
    EXPECT_EQ(message(file->commit()), str(dir / "f", ": committed after commit or after an error"));
  }
  EXPECT_EQ(get(dir / "f"), "new x");
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"f"});
}

TEST(AtomicFile, AnUncommittedWriterLeavesNothing) {
  const testing::TempDir dir;
  {
    Result<AtomicFile> file = AtomicFile::create(dir / "f");
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write("half"));
  }
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(AtomicFile, MovesKeepOneOwner) {
  const testing::TempDir dir;
  Result<AtomicFile> first = AtomicFile::create(dir / "a");
  Result<AtomicFile> second = AtomicFile::create(dir / "b");
  ASSERT_TRUE(first && second);
  ASSERT_TRUE(first->write("a"));
  *second = *std::move(first);  // drops b
  EXPECT_EQ(names_in(dir.path()).size(), 1u);
  ASSERT_TRUE(second->commit());
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"a"});
}

TEST(AtomicFile, AFullDiskLeavesTheOldFile) {
  const testing::TempDir dir;
  put(dir / "f", "old");
  Result<AtomicFile> file = AtomicFile::create(dir / "f");
  ASSERT_TRUE(file);
  {
    const FileSizeLimit limit(1000);
    ASSERT_TRUE(file->write(std::string(900, 'x')));
    EXPECT_EQ(message(file->write(std::string(900, 'x'))), str(dir / "f", ": cannot write: File too large"));
  }
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"f"}) << "the temporary file goes at once, not at the end";
  EXPECT_FALSE(file->commit());
  EXPECT_EQ(get(dir / "f"), "old");
}

TEST(AtomicFile, RefusesTargetsThatAreNoRegularFile) {
  const testing::TempDir dir;
  fs::create_directory(dir / "d");
  EXPECT_EQ(message(write_file_atomically(dir / "d", "x")),
            str(dir / "d", ": expected a regular file, found a folder"));
  EXPECT_EQ(message(write_file_atomically("/dev/null", "x")), "/dev/null: expected a regular file, found a device");
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"d"});
}

TEST(AtomicFile, AFailedRenameLeavesNothing) {
  const testing::TempDir dir;
  Result<AtomicFile> file = AtomicFile::create(dir / "f");
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->write("x"));
  fs::create_directory(dir / "f");
  const Status status = file->commit();
  EXPECT_EQ(message(status), str(dir / "f", ": cannot rename the finished file to this name: Is a directory"));
  EXPECT_EQ(status.error().code, Errc::kIo);
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"f"});
}

TEST(AtomicFile, AFolderThatCannotBeWrittenIsAnError) {
  const testing::TempDir dir;
  put(dir / "f", "x");
  EXPECT_EQ(message(write_file_atomically(dir / "none/f", "x")),
            str(dir / "none/f", ": cannot create a file in its folder: No such file or directory"));
  EXPECT_EQ(message(write_file_atomically(dir / "f/g", "x")),
            str(dir / "f/g", ": cannot create a file in its folder: Not a directory"));
  EXPECT_FALSE(write_file_atomically("/proc/lathe", "x"));
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  fs::permissions(dir.path(), fs::perms::owner_read | fs::perms::owner_exec);
  const Status status = write_file_atomically(dir / "g", "x");
  EXPECT_EQ(message(status), str(dir / "g", ": cannot create a file in its folder: Permission denied"));
  EXPECT_EQ(status.error().code, Errc::kIo);
}

TEST(MappedFile, ShowsTheBytes) {
  const testing::TempDir dir;
  put(dir / "f", "mapped");
  const auto file = MappedFile::open(dir / "f");
  ASSERT_TRUE(file) << file.error().message;
  const auto bytes = (*file)->bytes();
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), "mapped");
  EXPECT_EQ((*file)->path(), dir / "f");
}

TEST(MappedFile, AnEmptyFileIsAnEmptySpan) {
  const testing::TempDir dir;
  put(dir / "f", "");
  const auto file = MappedFile::open(dir / "f");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_TRUE((*file)->bytes().empty());
}

TEST(MappedFile, MissingFilesAreNotFound) {
  const testing::TempDir dir;
  const auto file = MappedFile::open(dir / "none");
  EXPECT_EQ(message(file), str(dir / "none", ": cannot open: No such file or directory"));
  EXPECT_EQ(file.error().code, Errc::kNotFound);
}

TEST(MappedFile, AFileThatDoesNotFitTheAddressSpaceIsAnError) {
  if (testing::address_space_in_use() > uint64_t{1} << 38) GTEST_SKIP() << "sanitizers need the address space";
  const testing::TempDir dir;
  put(dir / "f", "");
  ASSERT_EQ(::truncate((dir / "f").c_str(), off_t{1} << 40), 0);

  struct rlimit before {};

  ::getrlimit(RLIMIT_AS, &before);
  struct rlimit limit = before;
  limit.rlim_cur = rlim_t{1} << 39;
  ::setrlimit(RLIMIT_AS, &limit);
  const auto file = MappedFile::open(dir / "f");
  ::setrlimit(RLIMIT_AS, &before);
  EXPECT_EQ(message(file), str(dir / "f", ": cannot map 1099511627776 bytes: Cannot allocate memory"));
  EXPECT_EQ(file.error().code, Errc::kResourceExhausted);
}

TEST(FreeDiskBytes, AnswersForTheNearestFolderThatExists) {
  const testing::TempDir dir;
  const Result<uint64_t> here = free_disk_bytes(dir.path());
  ASSERT_TRUE(here) << here.error().message;
  EXPECT_GT(*here, 0u);
  EXPECT_TRUE(free_disk_bytes(dir / "not/there/yet"));
  EXPECT_TRUE(free_disk_bytes("relative-name-that-does-not-exist"));
  EXPECT_EQ(message(free_disk_bytes("")), "empty file name");
}

}  // namespace
}  // namespace lathe
