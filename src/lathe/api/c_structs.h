// The C structs and their sizes: what callers built against older and newer headers hand in, and what they get.
#pragma once

#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>

#include "lathe/lathe.h"
#include "lathe/lathe_c.h"

namespace lathe::v1 {

// A struct of a caller larger than this is a wrong struct_size, not a newer header.
inline constexpr size_t kMaxStructSize = 4096;

// Whether struct_size of the caller's struct `what` can be one of this library's present, past or future: at least
// `least`, a multiple of the alignment, at most kMaxStructSize.
Expected<void> check_struct_size(const char* what, size_t struct_size, size_t least, size_t alignment);

// Whether `size - known` bytes after the first `known` ones are all zero; true when size <= known.
bool is_zero_beyond(const void* memory, size_t known, size_t size);

// The caller's options over `defaults`: fields beyond its struct_size keep their defaults; bytes that are not known
// here must be zero. `user` may be null.
template <class T>
Expected<T> read_options(const char* what, const T* user, const T& defaults) {
  static_assert(std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T>);
  if (user == nullptr) return defaults;
  size_t size = 0;
  std::memcpy(&size, user, sizeof size);
  if (Expected<void> valid = check_struct_size(what, size, sizeof size, alignof(T)); !valid) {
    return std::move(valid).error();
  }
  if (!is_zero_beyond(user, sizeof(T), size)) {
    return Error{ErrorCode::kInvalidArgument,
                 std::string(what) + ": expected zeros in the fields that this version does not know, found others"};
  }
  T out = defaults;
  std::memcpy(&out, user, size < sizeof(T) ? size : sizeof(T));
  out.struct_size = sizeof(T);
  return out;
}

// Writes as much of `result` as the caller's struct holds and zeros what this version does not know; struct_size stays
// the caller's. Its size must have passed check_struct_size.
template <class T>
void write_result(const T& result, T* user) {
  static_assert(std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T>);
  size_t size = 0;
  std::memcpy(&size, user, sizeof size);
  auto* bytes = reinterpret_cast<unsigned char*>(user);
  const size_t known = size < sizeof(T) ? size : sizeof(T);
  std::memcpy(bytes + sizeof size, reinterpret_cast<const unsigned char*>(&result) + sizeof size, known - sizeof size);
  std::memset(bytes + known, 0, size - known);
}

// The typed options behind the C ones.
Expected<OpenOptions> to_open_options(const lathe_open_options* user);
// Likewise; copies the stop texts.
Expected<GenerateOptions> to_generate_options(const lathe_generate_options* user);

}  // namespace lathe::v1
