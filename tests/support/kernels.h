// Shared by the kernel tests: buffers that notice out-of-bounds access, random data, encoders of stored weights.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "lathe/base/rng.h"
#include "lathe/base/scalar.h"
#include "lathe/kernels/kernel_table.h"

namespace lathe::testing {

// Read-only use: bytes that end right before an unmapped page, so that reading one byte too many is a crash.
class FencedBytes {
 public:
  explicit FencedBytes(std::span<const std::byte> bytes) {
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t room = (bytes.size() + page - 1) / page * page;
    size_ = room + page;
    void* map = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) std::abort();
    map_ = static_cast<std::byte*>(map);
    if (::mprotect(map_ + room, page, PROT_NONE) != 0) std::abort();
    data_ = map_ + room - bytes.size();
    if (!bytes.empty()) std::memcpy(data_, bytes.data(), bytes.size());
  }

  explicit FencedBytes(std::span<const float> floats) : FencedBytes(std::as_bytes(floats)) {}

  FencedBytes(const FencedBytes&) = delete;
  FencedBytes& operator=(const FencedBytes&) = delete;

  ~FencedBytes() { ::munmap(map_, size_); }

  const std::byte* data() const { return data_; }

  const float* floats() const { return reinterpret_cast<const float*>(data_); }

 private:
  std::byte* map_ = nullptr;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// An output of n floats between guards with a pattern that no kernel writes.
class GuardedFloats {
 public:
  explicit GuardedFloats(int64_t n) : n_(n), all_(static_cast<size_t>(n) + 2 * kGuard, pattern()) {}

  explicit GuardedFloats(std::span<const float> values) : GuardedFloats(static_cast<int64_t>(values.size())) {
    std::copy(values.begin(), values.end(), data());
  }

  float* data() { return all_.data() + kGuard; }

  std::span<const float> values() const { return {all_.data() + kGuard, static_cast<size_t>(n_)}; }

  static bool is_untouched(float value) {
    const float expected = pattern();
    return std::memcmp(&value, &expected, sizeof(float)) == 0;
  }

  bool guards_intact() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (!is_untouched(all_[i]) || !is_untouched(all_[all_.size() - 1 - i])) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 32;

  static float pattern() { return std::bit_cast<float>(uint32_t{0x7fa5a5a5}); }  // a signalling NaN

  int64_t n_;
  std::vector<float> all_;
};

// n normally distributed values times `scale`.
inline std::vector<float> random_floats(Rng& rng, int64_t n, double scale = 1.0) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = static_cast<float>(scale * rng.next_normal());
  return values;
}

// Same bits, where any NaN equals any other: which NaN survives an addition of two is not specified.
inline bool same_value(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::memcmp(&a, &b, sizeof(float)) == 0;
}

// same_value element by element; names the first difference.
inline ::testing::AssertionResult same_values(std::span<const float> actual, std::span<const float> expected) {
  if (actual.size() != expected.size()) return ::testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!same_value(actual[i], expected[i])) {
      return ::testing::AssertionFailure() << "at " << i << ": " << actual[i] << " for " << expected[i];
    }
  }
  return ::testing::AssertionSuccess();
}

// |a - e| <= relative * bound element by element, NaN and infinity in the same places. `bounds` are the magnitudes that
// went into each result (sum of |products|), so cancellation does not hide errors or cause false alarms.
inline ::testing::AssertionResult near_within(std::span<const float> actual,
                                              std::span<const float> expected,
                                              std::span<const float> bounds,
                                              double relative) {
  if (actual.size() != expected.size() || actual.size() != bounds.size()) {
    return ::testing::AssertionFailure() << "sizes differ";
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    const double a = actual[i], e = expected[i];
    const bool finite = std::isfinite(e);
    const bool good = finite ? std::fabs(a - e) <= relative * bounds[i] + 1e-37 : same_value(actual[i], expected[i]);
    if (!good) {
      return ::testing::AssertionFailure() << "at " << i << ": " << a << " for " << e << ", bound " << bounds[i];
    }
  }
  return ::testing::AssertionSuccess();
}

// Names a parameterised test after its table.
inline std::string table_name(const ::testing::TestParamInfo<const KernelTable*>& info) {
  return std::string(info.param->isa);
}

}  // namespace lathe::testing
