// Moves a mapped file into huge pages while it is being read. Files are mapped in small pages, whose address
// translation costs a product with weights up to a fifth of its speed; anonymous memory can have large ones. Each
// stretch is copied and then takes the place of the mapped one at the same address, in one step of the system: readers
// see the same bytes before, during and after. What has not been moved, or cannot be, goes on being read from the file.
// Moving takes bandwidth and time of a processor from whoever reads meanwhile, so it begins late: a program that has
// its answer after some seconds does not pay for what only a longer one gets back.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <semaphore>
#include <thread>

#include "lathe/base/file.h"

namespace lathe {

class HugePageCopy {
 public:
  // Whether it is worth while: the system has huge pages for the asking, and memory for the file and an eighth more.
  static bool pays(uint64_t file_bytes);

  // Moves in the background after `delay`. The map must not be used for anything but reading.
  HugePageCopy(std::shared_ptr<const MappedFile> file, std::chrono::milliseconds delay);
  HugePageCopy(const HugePageCopy&) = delete;
  HugePageCopy& operator=(const HugePageCopy&) = delete;
  // Stops within one stretch.
  ~HugePageCopy();

  // About what it takes until a reader has gained what moving cost: a second for every 150 MB, a minute at most
  // (docs/performance.md).
  static std::chrono::milliseconds usual_delay(uint64_t file_bytes);

  // Begins now if it has not begun, and returns when nothing more will be moved.
  void wait() const {
    begin_.release();
    ended_.wait(false);
  }

  uint64_t moved_bytes() const { return moved_; }

 private:
  void run();

  std::shared_ptr<const MappedFile> file_;
  mutable std::counting_semaphore<> begin_{0};  // before the delay is over
  std::atomic<bool> stop_{false};
  std::atomic<bool> ended_{false};
  std::atomic<uint64_t> moved_{0};
  std::thread thread_;
};

}  // namespace lathe
