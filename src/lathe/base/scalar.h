// 16-bit and 8-bit floating point scalars: exact conversions, round to nearest even. Plain code: the oracle of every
// vector kernel that converts.
#pragma once

#include <bit>
#include <cstdint>

namespace lathe {

inline float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Round to nearest even; NaN stays NaN (quiet).
inline uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// IEEE half precision; rounds to nearest even.
float f16_to_float(uint16_t bits);
uint16_t float_to_f16(float value);  // overflow becomes infinity

// FP8 E4M3 "fn": bias 7, largest 448, subnormals down to 2^-9, 0x7f and 0xff are NaN, no infinity.
float e4m3_to_float(uint8_t code);
uint8_t float_to_e4m3(float value);  // saturates at 448, NaN becomes 0x7f

}  // namespace lathe
