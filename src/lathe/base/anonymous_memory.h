// Large zeroed memory straight from the system, in huge pages where it has them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lathe {

class AnonymousMemory {
 public:
  enum class Commit {
    kNow,    // refused when the system could not keep its promise
    kOnUse,  // address space only: pages count when they are touched
  };

  AnonymousMemory() = default;
  // Check with data() whether it succeeded: null when the memory is not to be had, or `bytes` is 0.
  AnonymousMemory(uint64_t bytes, Commit commit);
  AnonymousMemory(AnonymousMemory&& other) noexcept;
  AnonymousMemory& operator=(AnonymousMemory&& other) noexcept;
  AnonymousMemory(const AnonymousMemory&) = delete;
  AnonymousMemory& operator=(const AnonymousMemory&) = delete;
  ~AnonymousMemory();

  std::byte* data() const { return data_; }

  uint64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace lathe
