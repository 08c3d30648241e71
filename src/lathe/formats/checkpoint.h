// A checkpoint: a folder in HuggingFace layout (config.json and one model.safetensors, or shards with
// model.safetensors.index.json), or a GGUF file, whose tensors appear under the same names. Weights are mapped, not
// read; every rule of the container is checked when it is opened.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/file.h"
#include "lathe/base/result.h"
#include "lathe/tensor/dtype.h"

namespace lathe {

class GgufModel;

// One tensor of a safetensors or GGUF file. `bytes` borrows from the map, which the owner of this struct keeps alive;
// its address is a multiple of the element size. Values are little-endian. Extents are >= 0 and their product fits
// int64_t in any order.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  // Product of the shape, which the reader has checked not to overflow; 1 for a scalar.
  int64_t elements() const;
};

// One .safetensors file. Errors name the file, the tensor and the broken rule (docs/formats.md lists the rules).
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::filesystem::path& path);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the order of the header

  // The tensor of that name, or null. Valid as long as this object.
  const StoredTensor* find(std::string_view name) const;

  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }

  const std::filesystem::path& path() const { return map_->path(); }

 private:
  std::shared_ptr<const MappedFile> map_;
  std::vector<StoredTensor> tensors_;  // sorted lookups go through index_
  std::vector<uint32_t> index_;        // positions in tensors_, sorted by name
  std::vector<std::pair<std::string, std::string>> metadata_;
};

// Parses a header (the bytes between the 8-byte length and the data) against a data section of `data_bytes` bytes;
// `bytes` of each tensor is empty, offsets come back beside it. The part of the reader that is fuzzed.
struct SafetensorsHeader {
  struct Entry {
    StoredTensor tensor;
    uint64_t begin = 0;
    uint64_t end = 0;
  };

  std::vector<Entry> entries;
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Errors begin with "header: " and name the tensor and the broken rule.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view header, uint64_t data_bytes);

// All tensors of a checkpoint: of the shards that model.safetensors.index.json names, or of model.safetensors when
// there is no index. Every shard must exist and hold the tensors the index places in it. Tensors of these shards that
// the index does not list are used, with one warning (transformers reads whole shards too); a tensor that two shards
// hold is an error. Shards may be symbolic links, as in the hub cache. Of a GGUF file: its tensors under their
// HuggingFace names (gguf_tensors.h). Thread safe once open; views live as long as the object.
class Checkpoint {
 public:
  // A folder, or a .gguf file (the first one of a model in several).
  static Result<Checkpoint> open(const std::filesystem::path& path);
  // The tensors of a GGUF model, which the checkpoint keeps open.
  static Result<Checkpoint> open(const std::shared_ptr<const GgufModel>& model);
  // Tensors in the memory of `owner`, which the checkpoint keeps; `name` stands for their file in messages. A name
  // twice is kInvalidData.
  static Result<Checkpoint> in_memory(const std::filesystem::path& name,
                                      std::vector<StoredTensor> tensors,
                                      std::shared_ptr<const void> owner);

  // The folder, or the GGUF file.
  const std::filesystem::path& folder() const { return folder_; }

  // The tensor of that name, or null. Valid as long as this object.
  const StoredTensor* find(std::string_view name) const;
  // Every tensor, sorted by name.
  std::vector<const StoredTensor*> tensors() const;
  // The file a tensor lies in, for messages.
  std::filesystem::path file_of(const StoredTensor& tensor) const;
  uint64_t total_bytes() const;  // sum over tensors

 private:
  // One file of the checkpoint.
  struct File {
    std::filesystem::path path;
    std::shared_ptr<const void> owner;  // of the map
    std::vector<StoredTensor> tensors;
  };

  struct Location {
    uint32_t file;
    uint32_t tensor;
  };

  static Result<Checkpoint> open_folder(const std::filesystem::path& folder);
  Status add_safetensors(const std::filesystem::path& path);
  Status index_tensors();
  const StoredTensor& at(const Location& location) const;

  std::filesystem::path folder_;
  std::vector<File> files_;
  std::vector<Location> by_name_;  // sorted by tensor name
};

// Writes a .safetensors file that transformers loads: header padded to 8 bytes, tensors ordered by falling element size
// and then name, contiguous from 0. Metadata without a "format" gets {"format": "pt"}, which transformers asks for.
// Streams: `bytes` of the tensors are written as they are. Atomic. Names twice, not UTF-8 or "__metadata__", and bytes
// that do not fit shape and dtype are kInvalidArgument.
Status write_safetensors(const std::filesystem::path& path,
                         std::span<const StoredTensor> tensors,
                         std::span<const std::pair<std::string, std::string>> metadata = {});

}  // namespace lathe
