// Packed weights in a file: 4096 bytes that say what it holds, then the packed bytes as they are used. Written once,
// under a name that is a hash of everything the bytes depend on, and only mapped afterwards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "lathe/base/file.h"
#include "lathe/model/packed_plan.h"

namespace lathe {

inline constexpr uint64_t kPackedHeaderBytes = 4096;

// The file of a plan in the cache folder: <folder>/packed/<hash>.panels. It depends on the checkpoint's files by path,
// size and time of change, on the plan and on the version of the layout.
Result<std::filesystem::path> packed_file_path(const std::filesystem::path& cache_folder,
                                               const PackedPlan& plan,
                                               const Checkpoint& checkpoint);

// The file, if it is there and complete; null when it is not.
std::shared_ptr<const MappedFile> map_packed_file(const std::filesystem::path& path, const PackedPlan& plan);

// Takes packed bytes in order.
using PackedSink = std::function<Status(std::span<const std::byte>)>;

// Writes the file atomically; `write` gives all packed bytes to the sink it gets. False, and no file, when the disk has
// no room or the folder cannot be written; errors are those of `write` alone.
Result<bool> write_packed_file(const std::filesystem::path& path,
                               const PackedPlan& plan,
                               const std::function<Status(const PackedSink&)>& write);

}  // namespace lathe
