#include "lathe/base/huge_page_copy.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <system_error>
#include <utility>

#include "lathe/base/cpu.h"

namespace lathe {

namespace {

constexpr uint64_t kHugePage = uint64_t{2} << 20;
constexpr uint64_t kStretch = uint64_t{64} << 20;  // few stretches, since each stays a mapping of its own
constexpr uint64_t kSpare = uint64_t{512} << 20;   // memory that is left to others

// Anonymous memory at a multiple of the huge page size, or null.
std::byte* aligned_memory(uint64_t bytes) {
  void* const reserved = ::mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reserved == MAP_FAILED)
    return nullptr;  // NOLINT(performance-no-int-to-ptr,cppcoreguidelines-pro-type-cstyle-cast)
  auto* const begin = static_cast<std::byte*>(reserved);
  const uint64_t skip = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (skip > 0) ::munmap(begin, skip);
  ::munmap(begin + skip + bytes, kHugePage - skip);
  (void)::madvise(begin + skip, bytes, MADV_HUGEPAGE);
  return begin + skip;
}

// One stretch of a map; false when it had to stay as it is.
bool move_stretch(std::byte* place, uint64_t bytes) {
  std::byte* const copy = aligned_memory(bytes);
  if (copy == nullptr) return false;
  std::memcpy(copy, place, bytes);
  if (::mprotect(copy, bytes, PROT_READ) != 0 ||
      ::mremap(copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place) == MAP_FAILED) {  // NOLINT
    ::munmap(copy, bytes);
    return false;
  }
  return true;
}

}  // namespace

bool HugePageCopy::pays(uint64_t file_bytes) {
  const MachineLimits limits = machine_limits();
  const bool available = limits.transparent_huge_pages == "always" || limits.transparent_huge_pages == "madvise";
  if (!available || file_bytes < kStretch) return false;
  const uint64_t wanted = file_bytes + file_bytes / 8 + kSpare;
  return !limits.address_space && usable_memory(limits) >= wanted;
}

std::chrono::milliseconds HugePageCopy::usual_delay(uint64_t file_bytes) {
  constexpr uint64_t kBytesPerMillisecond = 150'000;
  constexpr std::chrono::milliseconds kMost = std::chrono::minutes(1);
  return std::min(std::chrono::milliseconds(file_bytes / kBytesPerMillisecond), kMost);
}

HugePageCopy::HugePageCopy(std::shared_ptr<const MappedFile> file, std::chrono::milliseconds delay)
    : file_(std::move(file)) {
  try {
    thread_ = std::thread([this, delay] {
      (void)begin_.try_acquire_for(delay);
      run();
      ended_ = true;
      ended_.notify_all();
    });
  } catch (const std::system_error&) {
    ended_ = true;  // the map serves as well, only slower
  }
}

HugePageCopy::~HugePageCopy() {
  stop_ = true;
  begin_.release();
  if (thread_.joinable()) thread_.join();
}

void HugePageCopy::run() {
  const std::span<const std::byte> bytes = file_->bytes();
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): the pages are replaced, never written
  auto* const begin = const_cast<std::byte*>(bytes.data());
  const uint64_t first = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  for (uint64_t at = first; at + kHugePage <= bytes.size() && !stop_; at += kStretch) {
    const uint64_t size = std::min(kStretch, (bytes.size() - at) / kHugePage * kHugePage);
    if (machine_limits().available_memory < size + kSpare || !move_stretch(begin + at, size)) return;
    moved_ += size;
  }
}

}  // namespace lathe
