#include "lathe/base/anonymous_memory.h"

#include <sys/mman.h>

#include <utility>

namespace lathe {

AnonymousMemory::AnonymousMemory(uint64_t bytes, Commit commit) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (commit == Commit::kOnUse ? MAP_NORESERVE : 0);
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) return;  // NOLINT(performance-no-int-to-ptr,cppcoreguidelines-pro-type-cstyle-cast)
  (void)::madvise(memory, bytes, MADV_HUGEPAGE);  // only a wish
  data_ = static_cast<std::byte*>(memory);
  size_ = bytes;
}

AnonymousMemory::AnonymousMemory(AnonymousMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AnonymousMemory& AnonymousMemory::operator=(AnonymousMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AnonymousMemory::~AnonymousMemory() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace lathe
