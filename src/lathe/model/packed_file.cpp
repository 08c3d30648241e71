#include "lathe/model/packed_file.h"

#include <array>
#include <cstring>
#include <set>

#include "lathe/base/sha256.h"
#include "lathe/base/str.h"

namespace lathe {

namespace {

// A change of the layout of panels or of the plan needs another version.
constexpr std::string_view kMagic = "lathe packed weights, layout 1\n";
constexpr uint64_t kSpareDisk = uint64_t{1} << 30;  // left free for others

std::array<std::byte, kPackedHeaderBytes> header_of(const std::filesystem::path& path, const PackedPlan& plan) {
  std::array<std::byte, kPackedHeaderBytes> header{};
  const std::string text = str(kMagic, path.stem().string(), "\n", plan.bytes, " bytes\n");
  std::memcpy(header.data(), text.data(), std::min<size_t>(text.size(), header.size()));
  return header;
}

}  // namespace

Result<std::filesystem::path> packed_file_path(const std::filesystem::path& cache_folder,
                                               const PackedPlan& plan,
                                               const Checkpoint& checkpoint) {
  Hasher hash(Hasher::Kind::kSha256);
  hash.update(kMagic);
  std::set<std::filesystem::path> files;
  for (const StoredTensor* tensor : checkpoint.tensors()) files.insert(checkpoint.file_of(*tensor));
  for (const std::filesystem::path& file : files) {
    std::error_code failed;
    const std::filesystem::path real = std::filesystem::canonical(file, failed);
    const uintmax_t size = failed ? 0 : std::filesystem::file_size(real, failed);
    const auto changed = failed ? std::filesystem::file_time_type() : std::filesystem::last_write_time(real, failed);
    if (failed) return Error{Errc::kIo, str(file, ": ", failed.message())};
    hash.update(str(real.string(), "\n", size, " ", changed.time_since_epoch().count(), "\n"));
  }
  for (const PackedEntry& e : plan.entries) {
    hash.update(
        str(e.name, " ", e.source, " ", dtype_name(e.quantised), " ", dtype_name(e.format), " ", e.panels, " "));
    hash.update(str(e.rows, " ", e.cols, " ", e.taken, " ", e.stride, " ", e.transposed, " ", e.offset, "\n"));
  }
  return cache_folder / "packed" / (hash.hex_digest().substr(0, 32) + ".panels");
}

std::shared_ptr<const MappedFile> map_packed_file(const std::filesystem::path& path, const PackedPlan& plan) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return nullptr;
  Result<std::shared_ptr<const MappedFile>> map = MappedFile::open(path);
  if (!map) return nullptr;
  const std::span<const std::byte> bytes = (*map)->bytes();
  const auto header = header_of(path, plan);
  if (bytes.size() != kPackedHeaderBytes + plan.bytes) return nullptr;
  if (std::memcmp(bytes.data(), header.data(), header.size()) != 0) return nullptr;
  return *map;
}

Result<bool> write_packed_file(const std::filesystem::path& path,
                               const PackedPlan& plan,
                               const std::function<Status(const PackedSink&)>& write) {
  std::error_code failed;
  std::filesystem::create_directories(path.parent_path(), failed);
  if (failed) return false;
  const Result<uint64_t> room = free_disk_bytes(path.parent_path());
  if (!room || *room < plan.bytes + kSpareDisk) return false;
  Result<AtomicFile> file = AtomicFile::create(path);
  if (!file) return false;
  // A disk that fills up or fails is no error of the model's: the caller packs into memory instead.
  bool disk_failed = false;
  const auto put = [&](std::span<const std::byte> bytes) -> Status {
    if (Status status = file->write(bytes); !status) {
      disk_failed = true;
      return status;
    }
    return {};
  };
  const auto header = header_of(path, plan);
  Status status = put(header);
  if (status) status = write(put);
  if (status) {
    status = file->commit();
    disk_failed = !status;
  }
  if (disk_failed) return false;
  LATHE_TRY(std::move(status));
  return true;
}

}  // namespace lathe
