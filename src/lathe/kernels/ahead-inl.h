// Asking for memory that attention will read soon. Written once for every ISA unit (see vec16-inl.h).
#pragma once

#include "lathe/kernels/kernel_table.h"
#include "lathe/kernels/vec16-inl.h"

namespace lathe {
namespace {

// Asks for a SoonRead in `calls` steps.
class Ahead {
 public:
  LATHE_INLINE Ahead(const SoonRead& all, int64_t calls)
      : at_(all.data), end_(all.data + all.bytes), step_((all.bytes / kLine / calls + 1) * kLine) {}

  LATHE_INLINE void next() {
    const std::byte* stop = end_ - at_ < step_ ? end_ : at_ + step_;
    for (; at_ < stop; at_ += kLine) __builtin_prefetch(at_, 0, 2);
  }

 private:
  static constexpr int64_t kLine = 64;
  const std::byte* at_;
  const std::byte* end_;
  int64_t step_;
};

}  // namespace
}  // namespace lathe
