// Packed weights in a file: 4096 bytes that say what it holds, then the packed bytes as they are used. Written once,
// under a name that is a hash of everything the bytes depend on, and only mapped afterwards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "lathe/base/file.h"
#include "lathe/model/packed_plan.h"

namespace lathe {

inline constexpr uint64_t kPackedHeaderBytes = 4096;

// Where the packed weights of a checkpoint are kept.
struct PackedFile {
  std::filesystem::path path;  // <folder>/packed/<hash>.panels
  std::string model;           // a hash of what they are of, whatever its contents and this program's version
};

// `path` depends on the checkpoint's files by path, size and time of change, on the plan and on the version of the
// layout; `model` only on the paths, the block formats and whether there are panels.
Result<PackedFile> packed_file(const std::filesystem::path& cache_folder,
                               const PackedPlan& plan,
                               const Checkpoint& checkpoint);

// The file, if it is there and complete; null when it is not.
std::shared_ptr<const MappedFile> map_packed_file(const PackedFile& file, const PackedPlan& plan);

// Takes packed bytes in order.
using PackedSink = std::function<Status(std::span<const std::byte>)>;

// Writes the file atomically; `write` gives all packed bytes to the sink it gets. Files of the same model that were
// packed from other contents or by another version, and would lie there for ever, are removed before. False, and no
// file, when the disk has no room or the folder cannot be written; errors are those of `write` alone.
Result<bool> write_packed_file(const PackedFile& file,
                               const PackedPlan& plan,
                               const std::function<Status(const PackedSink&)>& write);

}  // namespace lathe
