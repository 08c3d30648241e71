// Writing of a folder in HuggingFace layout: shards of safetensors that stream, an index, and the small files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lathe/base/file.h"
#include "lathe/base/result.h"
#include "lathe/convert/plan.h"

namespace lathe::convert {

inline constexpr uint64_t kShardBytes = 4'000'000'000;  // of data per file, more only for a single larger tensor

// A shard to write: its file name and the tensors in it.
struct Shard {
  std::string name;
  std::span<const OutputTensor> tensors;
  uint64_t bytes = 0;
};

// Cuts the tensors, in order, into files of at most `limit` bytes of data: model.safetensors when one is enough, else
// model-00001-of-000NN.safetensors.
std::vector<Shard> plan_shards(std::span<const OutputTensor> tensors, uint64_t limit = kShardBytes);

// The first bytes of a shard's file, up to its data: length and header. Data follow in the order of the tensors.
std::string shard_header(const Shard& shard);

// model.safetensors.index.json of several shards.
std::string shard_index(std::span<const Shard> shards);

// A folder under a temporary name beside its final one, which it gets by commit(). The destructor removes an
// uncommitted one with everything in it.
class NewFolder {
 public:
  // kInvalidArgument when `path` exists and is not an empty folder.
  static Result<NewFolder> create(const std::filesystem::path& path);
  NewFolder(NewFolder&& other) noexcept;
  NewFolder& operator=(NewFolder&&) = delete;
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  ~NewFolder();

  // Where to put files until commit().
  const std::filesystem::path& temporary() const { return temporary_; }

  // Gives the folder its name, in place of an empty one; at most once. kIo.
  Status commit();

 private:
  NewFolder(std::filesystem::path path, std::filesystem::path temporary)
      : path_(std::move(path)), temporary_(std::move(temporary)) {}

  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty once committed
};

}  // namespace lathe::convert
