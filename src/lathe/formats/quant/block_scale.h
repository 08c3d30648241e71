// What the encoders share: the unit of a block, and fp16 scales in it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "lathe/base/scalar.h"

namespace lathe::quant {

// The power of two at or below the largest of n magnitudes. Divided by it, values are below 2 and their squares and
// sums cannot overflow; nothing is rounded but what is 2^-126 of the largest.
class Unit {
 public:
  Unit(const float* x, int n) {
    float most = 0.0F;
    for (int i = 0; i < n; ++i) most = std::max(most, std::fabs(x[i]));
    zero_ = most == 0.0F;
    if (!zero_) exponent_ = std::ilogb(most);
  }

  // Whether all values are 0.
  bool zero() const { return zero_; }

  // n values in this unit.
  void divide(const float* x, int n, float* out) const {
    // In two steps, because 2^149 is no float.
    const float first = std::ldexp(1.0F, -exponent_ / 2);
    const float second = std::ldexp(1.0F, -exponent_ - (-exponent_ / 2));
    for (int i = 0; i < n; ++i) out[i] = x[i] * first * second;
  }

  // fp16 nearest to `value` units, at most the largest finite one.
  uint16_t to_f16(float value) const {
    constexpr float kLargest = 65504.0F;
    return float_to_f16(std::clamp(std::ldexp(value, exponent_), -kLargest, kLargest));
  }

  // What an fp16 scale is in this unit.
  float from_f16(uint16_t bits) const { return std::ldexp(f16_to_float(bits), -exponent_); }

 private:
  int exponent_ = 0;
  bool zero_ = true;
};

// Two bytes at any alignment, little-endian.
inline void put_u16(std::byte* out, uint16_t bits) {
  std::memcpy(out, &bits, sizeof bits);
}

}  // namespace lathe::quant
