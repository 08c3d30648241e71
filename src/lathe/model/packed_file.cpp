#include "lathe/model/packed_file.h"

#include <array>
#include <cstring>
#include <fstream>
#include <set>
#include <string_view>

#include "lathe/base/sha256.h"
#include "lathe/base/str.h"

namespace lathe {

namespace {

// A change of the layout of panels, of the plan or of what quantise_row() makes of a row needs another version.
constexpr std::string_view kMagic = "lathe packed weights, layout 2\n";
constexpr std::string_view kMagicOfAll = "lathe packed weights, layout ";  // of every version
constexpr uint64_t kSpareDisk = uint64_t{1} << 30;                         // left free for others

using Header = std::array<std::byte, kPackedHeaderBytes>;

std::string model_line(const PackedFile& file) {
  return str("\nmodel ", file.model, "\n");
}

Header header_of(const PackedFile& file, const PackedPlan& plan) {
  Header header{};
  const std::string text = str(kMagic, file.path.stem().string(), "\n", plan.bytes, " bytes", model_line(file));
  std::memcpy(header.data(), text.data(), std::min<size_t>(text.size(), header.size()));
  return header;
}

// Whether it is a file of packed weights, of whatever version, that says it is of this model.
bool is_of_model(const std::filesystem::path& path, const PackedFile& file) {
  std::ifstream in(path, std::ios::binary);
  std::string header(kPackedHeaderBytes, '\0');
  if (!in.read(header.data(), static_cast<std::streamsize>(header.size()))) return false;
  return header.starts_with(kMagicOfAll) && header.find(model_line(file)) != std::string::npos;
}

// What cannot be removed stays: nobody needs the room as much as the model.
void remove_others(const PackedFile& file) {
  std::error_code failed;
  for (std::filesystem::directory_iterator at(file.path.parent_path(), failed), end; !failed && at != end;
       at.increment(failed)) {
    const std::filesystem::path& other = at->path();
    if (other.extension() != file.path.extension() || other == file.path || !is_of_model(other, file)) continue;
    std::error_code ignored;
    std::filesystem::remove(other, ignored);
  }
}

}  // namespace

Result<PackedFile> packed_file(const std::filesystem::path& cache_folder,
                               const PackedPlan& plan,
                               const Checkpoint& checkpoint) {
  Hasher hash(Hasher::Kind::kSha256);
  Hasher model(Hasher::Kind::kSha256);
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
    model.update(str(real.string(), "\n"));
  }
  std::set<std::string_view> formats;
  for (const PackedEntry& e : plan.entries) {
    hash.update(
        str(e.name, " ", e.source, " ", dtype_name(e.quantised), " ", dtype_name(e.format), " ", e.panels, " "));
    hash.update(str(e.rows, " ", e.cols, " ", e.taken, " ", e.stride, " ", e.transposed, " ", e.offset, "\n"));
    formats.insert(dtype_name(e.quantised));
    if (e.panels) formats.insert("panels");
  }
  for (const std::string_view format : formats) model.update(str(format, "\n"));
  const auto digits = [](Hasher& from) { return from.hex_digest().substr(0, 32); };
  return PackedFile{cache_folder / "packed" / (digits(hash) + ".panels"), digits(model)};
}

std::shared_ptr<const MappedFile> map_packed_file(const PackedFile& file, const PackedPlan& plan) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(file.path, ignored)) return nullptr;
  Result<std::shared_ptr<const MappedFile>> map = MappedFile::open(file.path);
  if (!map) return nullptr;
  const std::span<const std::byte> bytes = (*map)->bytes();
  const Header header = header_of(file, plan);
  if (bytes.size() != kPackedHeaderBytes + plan.bytes) return nullptr;
  if (std::memcmp(bytes.data(), header.data(), header.size()) != 0) return nullptr;
  return *map;
}

Result<bool> write_packed_file(const PackedFile& target,
                               const PackedPlan& plan,
                               const std::function<Status(const PackedSink&)>& write) {
  std::error_code failed;
  const std::filesystem::path folder = target.path.parent_path();
  std::filesystem::create_directories(folder, failed);
  if (failed) return false;
  remove_others(target);
  const Result<uint64_t> room = free_disk_bytes(folder);
  if (!room || *room < plan.bytes + kSpareDisk) return false;
  Result<AtomicFile> file = AtomicFile::create(target.path);
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
  const auto header = header_of(target, plan);
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
