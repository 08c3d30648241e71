// Workspace: scratch memory of the hot path, sized once from the configuration. take() never allocates from the system.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "lathe/base/anonymous_memory.h"
#include "lathe/base/check.h"
#include "lathe/base/result.h"
#include "lathe/base/str.h"
#include "lathe/tensor/tensor.h"

namespace lathe {

class Workspace {
 public:
  Workspace() = default;

  // Fails with kResourceExhausted when the memory is not to be had.
  static Result<Workspace> create(int64_t floats) {
    Workspace workspace;
    const auto bytes = static_cast<size_t>(floats) * sizeof(float);
    workspace.memory_ = AnonymousMemory(bytes > 0 ? bytes : 1, AnonymousMemory::Commit::kNow);
    if (workspace.memory_.data() == nullptr)
      return Error{Errc::kResourceExhausted, str("no memory for ", human_bytes(bytes), " of scratch")};
    workspace.capacity_ = floats;
    return workspace;
  }

  // Memory for `count` floats, aligned to a cache line, valid until the enclosing Scope ends. Not initialised.
  float* take(int64_t count) {
    float* out = reinterpret_cast<float*>(memory_.data()) + used_;
    used_ += padded(count);
    LATHE_CHECK(used_ <= capacity_, "workspace of ", capacity_, " floats, wanted ", used_);
    return out;
  }

  // The same for `count` values of another trivially copyable type.
  template <class T>
  T* take_as(int64_t count) {
    static_assert(alignof(T) <= kTensorAlignment && std::is_trivially_copyable_v<T>);
    return reinterpret_cast<T*>(take((count * static_cast<int64_t>(sizeof(T)) + 3) / 4));
  }

  // What take(count) uses up: callers add these to size a workspace.
  static constexpr int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }

  int64_t capacity() const { return capacity_; }

  // Gives back everything taken during its life.
  class Scope {
   public:
    explicit Scope(Workspace& workspace) : workspace_(workspace), mark_(workspace.used_) {}

    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

    ~Scope() { workspace_.used_ = mark_; }

   private:
    Workspace& workspace_;
    int64_t mark_;
  };

 private:
  AnonymousMemory memory_;  // in huge pages where the system has them: products walk through matrices in long strides
  int64_t capacity_ = 0;
  int64_t used_ = 0;
};

}  // namespace lathe
