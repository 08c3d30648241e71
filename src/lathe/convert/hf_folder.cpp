#include "lathe/convert/hf_folder.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "lathe/base/json.h"
#include "lathe/base/str.h"

namespace lathe::convert {

namespace fs = std::filesystem;

std::vector<Shard> plan_shards(std::span<const OutputTensor> tensors, uint64_t limit) {
  std::vector<Shard> shards;
  size_t first = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t more = tensors[i].bytes();
    if (i > first && bytes + more > limit) {
      shards.push_back({{}, tensors.subspan(first, i - first), bytes});
      first = i;
      bytes = 0;
    }
    bytes += more;
  }
  shards.push_back({{}, tensors.subspan(first), bytes});
  const auto padded = [](size_t n) {
    const std::string digits = std::to_string(n);
    return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
  };
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].name = shards.size() == 1 ? std::string("model.safetensors")
                                        : str("model-", padded(i + 1), "-of-", padded(shards.size()), ".safetensors");
  }
  return shards;
}

std::string shard_header(const Shard& shard) {
  Json::Object header;
  header.reserve(shard.tensors.size() + 1);
  header.emplace_back("__metadata__", Json(Json::Object{{"format", "pt"}}));
  uint64_t position = 0;
  for (const OutputTensor& tensor : shard.tensors) {
    const uint64_t end = position + tensor.bytes();
    Json entry = Json::object();
    entry.set("dtype", dtype_name(tensor.dtype));
    entry.set("shape", Json::list(tensor.shape));
    entry.set("data_offsets", Json::list(std::vector<uint64_t>{position, end}));
    header.emplace_back(tensor.name, std::move(entry));
    position = end;
  }
  std::string text = Json(std::move(header)).dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(text.size() >> (8 * i) & 0xFF);
  return out + text;
}

std::string shard_index(std::span<const Shard> shards) {
  Json::Object map;
  uint64_t total = 0;
  for (const Shard& shard : shards) {
    total += shard.bytes;
    for (const OutputTensor& tensor : shard.tensors) map.emplace_back(tensor.name, shard.name);
  }
  Json out = Json::object();
  out.set("metadata", Json(Json::Object{{"total_size", total}}));
  out.set("weight_map", Json(std::move(map)));
  return out.dump(2) + "\n";
}

Result<NewFolder> NewFolder::create(const fs::path& path) {
  fs::path named = path.lexically_normal();
  if (!named.has_filename()) named = named.parent_path();  // "dir/"
  std::error_code error;
  const fs::file_type type = fs::symlink_status(named, error).type();
  const bool is_free =
      type == fs::file_type::not_found || (type == fs::file_type::directory && fs::is_empty(named, error));
  if (!is_free || named.empty()) {
    return Error{Errc::kInvalidArgument, str(path, ": expected a new or empty folder, found something there")};
  }
  std::string pattern = str(named, ".XXXXXX");
  if (::mkdtemp(pattern.data()) == nullptr) {
    return Error{Errc::kIo, str(path, ": cannot make a folder beside it: ", std::generic_category().message(errno))};
  }
  constexpr mode_t kUsual = 0755;
  (void)::chmod(pattern.c_str(), kUsual);
  return NewFolder(std::move(named), fs::path(pattern));
}

NewFolder::NewFolder(NewFolder&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::exchange(other.temporary_, fs::path())) {}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

Status NewFolder::commit() {
  std::error_code error;
  fs::rename(temporary_, path_, error);  // takes the place of an empty folder
  if (error) return Error{Errc::kIo, str(path_, ": cannot give the new folder its name: ", error.message())};
  temporary_.clear();
  return {};
}

}  // namespace lathe::convert
