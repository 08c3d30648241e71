// PackedWeights: the matrices of a model in the layout that the integer kernels read (tensor/panels.h). They are packed
// once: into memory, or into a file below the user's cache folder that later starts only map. Quantised values are
// those of the checkpoint, or, with a type, those that `lathe quantize` would store.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "lathe/base/anonymous_memory.h"
#include "lathe/base/file.h"
#include "lathe/base/huge_page_copy.h"
#include "lathe/base/thread_pool.h"
#include "lathe/model/packed_file.h"
#include "lathe/model/packed_plan.h"
#include "lathe/tensor/matrix.h"

namespace lathe {

// Below this size weights are packed into memory: that takes no longer than finding and mapping a file.
inline constexpr uint64_t kSmallestPackedFile = uint64_t{256} << 20;

struct PackOptions {
  std::filesystem::path cache_folder;            // empty: pack into memory
  uint64_t smallest_file = kSmallestPackedFile;  // packed bytes from which on a file is used
  // Called now and then with bytes packed and bytes in all. May be empty.
  std::function<void(uint64_t, uint64_t)> on_progress;
};

class PackedWeights {
 public:
  // Packs what the plan names; null when that is nothing. A file of the cache folder is used when it was made from the
  // same files (path, size, time of change) by the same layout; else it is written first, or, when the disk has no room
  // for it, memory takes its place. Errors: values that are not finite, dtypes that weights do not have, no memory.
  static Result<std::shared_ptr<const PackedWeights>> open(PackedPlan packing,
                                                           const Checkpoint& checkpoint,
                                                           ThreadPool& pool,
                                                           const PackOptions& options);

  // Seeded random values of sensible size in every matrix of the plan, in memory.
  static Result<std::shared_ptr<const PackedWeights>> synthetic(PackedPlan plan, uint64_t seed, ThreadPool& pool);

  // The matrix of that role, or nothing when it is not packed. Borrows.
  std::optional<WeightMatrix> find(std::string_view name) const;

  const PackedPlan& plan() const { return plan_; }

  uint64_t bytes() const { return plan_.bytes; }

  // Whether they are mapped from a file.
  bool is_mapped() const { return map_ != nullptr; }

  // Mapped weights move into huge pages in the background; returns when that is over. Only measurements need it.
  void settle() const {
    if (huge_pages_ != nullptr) huge_pages_->wait();
  }

 private:
  PackedWeights() = default;
  Status allocate();
  void index();
  bool map(const PackedFile& file);

  PackedPlan plan_;
  std::vector<uint32_t> by_name_;  // entries sorted by name
  const std::byte* data_ = nullptr;
  AnonymousMemory memory_;  // when not mapped
  std::shared_ptr<const MappedFile> map_;
  std::unique_ptr<const HugePageCopy> huge_pages_;  // of map_
};

}  // namespace lathe
