#include "lathe/kernels/cache_rows.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "lathe/base/check.h"
#include "lathe/base/scalar.h"

namespace lathe {

namespace {

constexpr std::array<std::pair<CacheFormat, std::string_view>, 5> kNames{{{CacheFormat::kF32, "f32"},
                                                                          {CacheFormat::kF16, "f16"},
                                                                          {CacheFormat::kBF16, "bf16"},
                                                                          {CacheFormat::kQ8, "q8"},
                                                                          {CacheFormat::kQ6, "q6"}}};

constexpr int kQ6Most = kQ6Levels / 2;  // largest code
constexpr int64_t kHalfGroup = kCacheGroup / 2;
constexpr int64_t kPairBits = 11;

using Group = std::array<float, kCacheGroup>;
using Codes = std::array<int, kCacheGroup>;

struct Quantised {
  Codes codes{};
  uint16_t scale = 0;  // fp16
};

// Largest magnitude, NaN when a value is not finite.
float magnitude(const Group& x) {
  float most = 0.0F;
  for (const float v : x) {
    if (!std::isfinite(v)) return std::numeric_limits<float>::quiet_NaN();
    most = std::max(most, std::fabs(v));
  }
  return most;
}

// Nearest codes for a given scale.
Quantised with_scale(const Group& x, float scale, int most_code) {
  Quantised out;
  out.scale = float_to_f16(scale);
  const float d = f16_to_float(out.scale);
  if (!(d > 0.0F) || !std::isfinite(d)) return out;  // NaN, or so small that the codes are zeros
  const float inverse = 1.0F / d;
  for (size_t i = 0; i < x.size(); ++i) {
    const float code = std::nearbyint(x[i] * inverse);
    out.codes[i] = static_cast<int>(std::clamp(code, -static_cast<float>(most_code), static_cast<float>(most_code)));
  }
  return out;
}

double squared_error(const Group& x, const Quantised& q) {
  const float d = f16_to_float(q.scale);
  double sum = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double error = static_cast<double>(x[i]) - static_cast<double>(d) * q.codes[i];
    sum += error * error;
  }
  return sum;
}

// With few levels it pays to try scales for which the largest element is not hit exactly, but still rounds to the
// largest code.
Quantised quantise_q6(const Group& x, float most) {
  constexpr std::array<float, 4> kReach{22.0F, 22.2F, 22.35F, 22.49F};
  Quantised best = with_scale(x, most / kReach.front(), kQ6Most);
  if (std::isnan(most)) return best;
  double least = squared_error(x, best);
  for (const float reach : kReach) {
    const Quantised candidate = with_scale(x, most / reach, kQ6Most);
    const double error = squared_error(x, candidate);
    if (error < least) {
      least = error;
      best = candidate;
    }
  }
  return best;
}

void store_q6(const Codes& codes, std::byte* out) {
  std::array<uint8_t, kQ6GroupBytes> bytes{};
  for (size_t i = 0; i < kHalfGroup; ++i) {
    const int pair = (codes[i] + kQ6Most) * kQ6Levels + codes[i + kHalfGroup] + kQ6Most;
    for (size_t b = 0; b < kPairBits; ++b) {
      const size_t bit = i * kPairBits + b;
      bytes[bit / 8] = static_cast<uint8_t>(bytes[bit / 8] | (((pair >> b) & 1) << (bit % 8)));
    }
  }
  std::memcpy(out, bytes.data(), bytes.size());
}

int load_q6(const std::byte* codes, int64_t i) {
  const int64_t bit = (i % kHalfGroup) * kPairBits;
  int pair = 0;
  for (int64_t b = 0; b < kPairBits; ++b) {
    pair |= ((static_cast<int>(codes[(bit + b) / 8]) >> ((bit + b) % 8)) & 1) << b;
  }
  return (i < kHalfGroup ? pair / kQ6Levels : pair % kQ6Levels) - kQ6Most;
}

float plain_element(CacheFormat format, const std::byte* row, int64_t i) {
  if (format == CacheFormat::kF32) {
    float value = 0.0F;
    std::memcpy(&value, row + 4 * i, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, row + 2 * i, 2);
  return format == CacheFormat::kBF16 ? bf16_to_float(bits) : f16_to_float(bits);
}

void encode_plain(CacheFormat format, const float* x, int64_t elements, std::byte* row) {
  for (int64_t i = 0; i < elements; ++i) {
    if (format == CacheFormat::kF32) {
      std::memcpy(row + 4 * i, x + i, 4);
      continue;
    }
    const uint16_t bits = format == CacheFormat::kBF16 ? float_to_bf16(x[i]) : float_to_f16(x[i]);
    std::memcpy(row + 2 * i, &bits, 2);
  }
}

}  // namespace

DType plain_dtype(CacheFormat format) {
  LATHE_CHECK(!is_quantised(format), cache_format_name(format), " has no element type");
  return format == CacheFormat::kF32 ? DType::kF32 : format == CacheFormat::kF16 ? DType::kF16 : DType::kBF16;
}

std::string_view cache_format_name(CacheFormat format) {
  for (const auto& [value, name] : kNames) {
    if (value == format) return name;
  }
  LATHE_CHECK(false, "unknown cache format ", static_cast<int>(format));
  return {};
}

std::optional<CacheFormat> cache_format_from_name(std::string_view name) {
  for (const auto& [value, known] : kNames) {
    if (known == name) return value;
  }
  return std::nullopt;
}

void encode_cache_row(CacheFormat format, const float* x, int64_t elements, std::byte* row) {
  if (!is_quantised(format)) return encode_plain(format, x, elements, row);
  const int64_t groups = cache_groups(elements);
  const int64_t code_bytes = format == CacheFormat::kQ8 ? kCacheGroup : kQ6GroupBytes;
  for (int64_t g = 0; g < groups; ++g) {
    Group values{};
    std::copy_n(x + g * kCacheGroup, std::min(kCacheGroup, elements - g * kCacheGroup), values.begin());
    const float most = magnitude(values);
    std::byte* codes = row + g * code_bytes;
    Quantised q;
    if (format == CacheFormat::kQ8) {
      q = with_scale(values, most / 127.0F, 127);
      for (size_t i = 0; i < q.codes.size(); ++i) codes[i] = static_cast<std::byte>(q.codes[i] + 128);
    } else {
      q = quantise_q6(values, most);
      store_q6(q.codes, codes);
    }
    std::memcpy(row + groups * code_bytes + 2 * g, &q.scale, 2);
  }
  const int64_t used = groups * (code_bytes + 2);
  std::memset(row + used, 0, static_cast<size_t>(cache_row_bytes(format, elements) - used));
}

void decode_cache_row(
    CacheFormat format, const std::byte* row, int64_t elements, int64_t first, int64_t n, float* out) {
  const int64_t code_bytes = format == CacheFormat::kQ8 ? kCacheGroup : kQ6GroupBytes;
  const std::byte* scales = row + cache_groups(elements) * code_bytes;
  for (int64_t i = first; i < first + n; ++i) {
    if (!is_quantised(format)) {
      out[i - first] = plain_element(format, row, i);
      continue;
    }
    uint16_t scale = 0;
    std::memcpy(&scale, scales + 2 * (i / kCacheGroup), 2);
    const std::byte* codes = row + i / kCacheGroup * code_bytes;
    const int code =
        format == CacheFormat::kQ8 ? static_cast<int>(codes[i % kCacheGroup]) - 128 : load_q6(codes, i % kCacheGroup);
    out[i - first] = f16_to_float(scale) * static_cast<float>(code);
  }
}

}  // namespace lathe
