// Moves a mapped file into huge pages while it is being read. Files are mapped in small pages, whose address
// translation costs a product with weights up to a fifth of its speed; anonymous memory can have large ones. Each
// stretch is copied and then takes the place of the mapped one at the same address, in one step of the system: readers
// see the same bytes before, during and after. What has not been moved, or cannot be, goes on being read from the file.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "lathe/base/file.h"

namespace lathe {

class HugePageCopy {
 public:
  // Whether it is worth while: the system has huge pages for the asking, and memory for the file and an eighth more.
  static bool pays(uint64_t file_bytes);

  // Starts moving in the background. The map must not be used for anything but reading.
  explicit HugePageCopy(std::shared_ptr<const MappedFile> file);
  HugePageCopy(const HugePageCopy&) = delete;
  HugePageCopy& operator=(const HugePageCopy&) = delete;
  // Stops within one stretch.
  ~HugePageCopy();

  // Returns when nothing more will be moved.
  void wait() const { ended_.wait(false); }

  uint64_t moved_bytes() const { return moved_; }

 private:
  void run();

  std::shared_ptr<const MappedFile> file_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> ended_{false};
  std::atomic<uint64_t> moved_{0};
  std::thread thread_;
};

}  // namespace lathe
