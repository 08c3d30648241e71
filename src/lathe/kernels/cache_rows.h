// How one position of the attention cache is stored. Plain formats hold the elements one after the other; quantised
// ones hold groups of 32 elements (the last one padded with zeros), all codes first, then one fp16 scale d per group:
//   q8  a byte per element, 128 + code, |code| <= 127; x ~ d * code                         34 bytes per group
//   q6  codes -22..22, two in 11 bits: element i and element i + 16 of a group make pair i,
//       (code_i + 22) * 45 + code_i+16 + 22; the 16 pairs of a group are 22 bytes, lowest
//       bits first; x ~ d * code                                                           24 bytes per group
// 24 bytes per 32 elements are 6 bits per element, scales included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "lathe/tensor/dtype.h"

namespace lathe {

enum class CacheFormat : uint8_t { kF32, kF16, kBF16, kQ8, kQ6 };

inline constexpr int64_t kCacheGroup = 32;       // elements that share a scale
inline constexpr int kQ6Levels = 45;             // codes of q6, around 0
inline constexpr int64_t kQ6GroupBytes = 22;     // codes of one group
inline constexpr int64_t kQ6LeastRowBytes = 72;  // kernels read up to 5 bytes past the codes of a group

// Groups of a row of `elements`.
constexpr int64_t cache_groups(int64_t elements) {
  return (elements + kCacheGroup - 1) / kCacheGroup;
}

// Bytes of one row.
constexpr int64_t cache_row_bytes(CacheFormat format, int64_t elements) {
  switch (format) {
    case CacheFormat::kF32:
      return 4 * elements;
    case CacheFormat::kF16:
    case CacheFormat::kBF16:
      return 2 * elements;
    case CacheFormat::kQ8:
      return cache_groups(elements) * (kCacheGroup + 2);
    case CacheFormat::kQ6:
      break;
  }
  const int64_t bytes = cache_groups(elements) * (kQ6GroupBytes + 2);
  return bytes < kQ6LeastRowBytes ? kQ6LeastRowBytes : bytes;
}

// Whether rows have groups and scales.
constexpr bool is_quantised(CacheFormat format) {
  return format == CacheFormat::kQ8 || format == CacheFormat::kQ6;
}

// The element type of a plain format.
DType plain_dtype(CacheFormat format);

// "f32", "f16", "bf16", "q8", "q6".
std::string_view cache_format_name(CacheFormat format);
std::optional<CacheFormat> cache_format_from_name(std::string_view name);

// Stores a row of x[elements] in cache_row_bytes() bytes. A group that holds a value that is not finite gets the scale
// NaN, so that results show it. The arithmetic is the same on every machine.
void encode_cache_row(CacheFormat format, const float* x, int64_t elements, std::byte* row);

// Elements [first, first + n) of a row as fp32: what kernels compute with, in plain code.
void decode_cache_row(CacheFormat format, const std::byte* row, int64_t elements, int64_t first, int64_t n, float* out);

}  // namespace lathe
