// The registers of vec16-inl.h with NEON: float32x4_t, four to a vector. Where x86 and ARM disagree (max and min with
// NaN) the functions do what the x86 instructions do.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace lathe {
namespace {

using PartRegister = float32x4_t;
constexpr int kPartLanes = 4;

LATHE_INLINE uint32x4_t first_lanes(int64_t n) {
  const int32x4_t index = {0, 1, 2, 3};
  return vcgtq_s32(vdupq_n_s32(static_cast<int32_t>(n)), index);
}

LATHE_INLINE float32x4_t part_zero() {
  return vdupq_n_f32(0.0f);
}

LATHE_INLINE float32x4_t part_set(float v) {
  return vdupq_n_f32(v);
}

LATHE_INLINE float32x4_t part_load(const void* p) {
  float32x4_t out;
  __builtin_memcpy(&out, p, 16);
  return out;
}

LATHE_INLINE float32x4_t part_load_first(const void* p, int64_t n) {
  alignas(16) float lanes[4] = {};
  for (int64_t i = 0; i < n; ++i) __builtin_memcpy(&lanes[i], static_cast<const std::byte*>(p) + 4 * i, 4);
  return vld1q_f32(lanes);
}

LATHE_INLINE void part_store(void* p, float32x4_t a) {
  __builtin_memcpy(p, &a, 16);
}

LATHE_INLINE void part_store_first(void* p, float32x4_t a, int64_t n) {
  alignas(16) float lanes[4];
  vst1q_f32(lanes, a);
  for (int64_t i = 0; i < n; ++i) __builtin_memcpy(static_cast<std::byte*>(p) + 4 * i, &lanes[i], 4);
}

LATHE_INLINE float32x4_t part_select_first(int64_t n, float32x4_t a, float32x4_t b) {
  return vbslq_f32(first_lanes(n), a, b);
}

LATHE_INLINE float32x4_t part_add(float32x4_t a, float32x4_t b) {
  return vaddq_f32(a, b);
}

LATHE_INLINE float32x4_t part_sub(float32x4_t a, float32x4_t b) {
  return vsubq_f32(a, b);
}

LATHE_INLINE float32x4_t part_mul(float32x4_t a, float32x4_t b) {
  return vmulq_f32(a, b);
}

LATHE_INLINE float32x4_t part_div(float32x4_t a, float32x4_t b) {
  return vdivq_f32(a, b);
}

// maxps and minps give the second operand where one is NaN; fmax and fmaxnm do not.
LATHE_INLINE float32x4_t part_sqrt(float32x4_t a) {
  return vsqrtq_f32(a);
}

LATHE_INLINE float32x4_t part_max(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcgtq_f32(a, b), a, b);
}

LATHE_INLINE float32x4_t part_min(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcltq_f32(a, b), a, b);
}

LATHE_INLINE float32x4_t part_fma(float32x4_t a, float32x4_t b, float32x4_t c) {
  return vfmaq_f32(c, a, b);
}

LATHE_INLINE float32x4_t part_fms(float32x4_t a, float32x4_t b, float32x4_t c) {
  return vfmaq_f32(vnegq_f32(c), a, b);
}

LATHE_INLINE float32x4_t part_fnma(float32x4_t a, float32x4_t b, float32x4_t c) {
  return vfmsq_f32(c, a, b);
}

LATHE_INLINE float32x4_t part_fmaddsub(float32x4_t a, float32x4_t b, float32x4_t c) {
  const uint32x4_t sign = {0x80000000u, 0, 0x80000000u, 0};
  return vfmaq_f32(vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(c), sign)), a, b);
}

LATHE_INLINE float32x4_t part_round(float32x4_t a) {
  return vrndnq_f32(a);
}

LATHE_INLINE float32x4_t part_swap_pairs(float32x4_t a) {
  return vrev64q_f32(a);
}

// Half as many floats, each twice: a0 a0 a1 a1.
LATHE_INLINE float32x4_t part_load_doubled(const float* p, int64_t n) {
  const float32x4_t two = part_load_first(p, n);
  return vzip1q_f32(two, two);
}

// 2^floor(n / 2) and 2^(n - floor(n / 2)) for integral n in [-252, 254].
LATHE_INLINE void part_half_powers(float32x4_t n, float32x4_t& low, float32x4_t& high) {
  const int32x4_t i = vcvtnq_s32_f32(n);
  const int32x4_t half = vshrq_n_s32(i, 1);
  const int32x4_t bias = vdupq_n_s32(127);
  low = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
  high = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(i, half), bias), 23));
}

using HalfWords = uint16x4_t;  // kPartLanes 16-bit words
using Codes = uint8x8_t;       // kPartLanes bytes, in the low half

LATHE_INLINE uint16x4_t words_load(const void* p) {
  uint16x4_t out;
  __builtin_memcpy(&out, p, 8);
  return out;
}

LATHE_INLINE uint16x4_t words_load_first(const void* p, int64_t n) {
  uint64_t words = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint16_t word = 0;
    __builtin_memcpy(&word, static_cast<const std::byte*>(p) + 2 * i, 2);
    words |= static_cast<uint64_t>(word) << (16 * i);
  }
  return vcreate_u16(words);
}

LATHE_INLINE void words_store(void* p, uint16x4_t a) {
  __builtin_memcpy(p, &a, 8);
}

LATHE_INLINE void words_store_first(void* p, uint16x4_t a, int64_t n) {
  alignas(8) uint16_t words[4];
  vst1_u16(words, a);
  for (int64_t i = 0; i < n; ++i) __builtin_memcpy(static_cast<std::byte*>(p) + 2 * i, &words[i], 2);
}

LATHE_INLINE uint8x8_t codes_load(const void* p) {
  uint32_t codes = 0;
  __builtin_memcpy(&codes, p, 4);
  return vcreate_u8(codes);
}

LATHE_INLINE uint8x8_t codes_load_first(const void* p, int64_t n) {
  uint64_t codes = 0;
  for (int64_t i = 0; i < n; ++i) codes |= static_cast<uint64_t>(static_cast<const uint8_t*>(p)[i]) << (8 * i);
  return vcreate_u8(codes);
}

LATHE_INLINE float32x4_t part_from_bf16(uint16x4_t a) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(a), 16));
}

LATHE_INLINE float32x4_t part_from_f16(uint16x4_t a) {
  return vcvt_f32_f16(vreinterpret_f16_u16(a));
}

LATHE_INLINE uint16x4_t part_to_f16(float32x4_t a) {
  return vreinterpret_u16_f16(vcvt_f16_f32(a));
}

LATHE_INLINE uint16x4_t part_to_bf16(float32x4_t a) {
  const uint32x4_t bits = vreinterpretq_u32_f32(a);
  const uint32x4_t high = vshrq_n_u32(bits, 16);
  const uint32x4_t odd = vandq_u32(high, vdupq_n_u32(1));
  const uint32x4_t rounded = vshrq_n_u32(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16);
  const uint32x4_t quiet = vorrq_u32(high, vdupq_n_u32(0x40));
  return vmovn_u32(vbslq_u32(vceqq_f32(a, a), rounded, quiet));
}

LATHE_INLINE uint16x4_t sign_extended(uint8x8_t a) {
  return vreinterpret_u16_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(a))));
}

// E4M3 codes as f16 patterns of value / 256, as on x86 (vec16_x86-inl.h).
LATHE_INLINE uint16x4_t codes_to_finite_f16(uint8x8_t codes) {
  return vand_u16(vshl_n_u16(sign_extended(codes), 7), vdup_n_u16(0xbfff));
}

LATHE_INLINE uint16x4_t codes_to_f16(uint8x8_t codes) {
  const uint8x8_t ones = vdup_n_u8(0x7f);
  const uint16x4_t is_nan = sign_extended(vceq_u8(vand_u8(codes, ones), ones));
  return vorr_u16(codes_to_finite_f16(codes), vand_u16(is_nan, vdup_n_u16(0x4000)));
}

// Keeps a value in a register.
LATHE_INLINE void keep(PartRegister& a) {
  __asm__("" : "+w"(a));
}

// Whether any of n E4M3 codes is NaN.
LATHE_INLINE bool any_e4m3_nan(const std::byte* p, int64_t n) {
  const uint8x16_t ones = vdupq_n_u8(0x7f);
  uint8x16_t found = vdupq_n_u8(0);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const uint8x16_t codes = vld1q_u8(reinterpret_cast<const uint8_t*>(p + i));
    found = vorrq_u8(found, vceqq_u8(vandq_u8(codes, ones), ones));
  }
  bool any = vmaxvq_u8(found) != 0;
  for (; i < n; ++i) any |= (static_cast<uint8_t>(p[i]) & 0x7f) == 0x7f;
  return any;
}

// Sum and largest of sixteen lanes, in the order of reduce_add() and reduce_max().
LATHE_INLINE float parts_reduce_add(const PartRegister (&a)[4]) {
  const float32x4_t four = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

LATHE_INLINE float parts_reduce_max(const PartRegister (&a)[4]) {
  const float32x4_t four = part_max(part_max(a[0], a[2]), part_max(a[1], a[3]));
  const float32x4_t two = part_max(four, vextq_f32(four, four, 2));
  return vgetq_lane_f32(part_max(two, vrev64q_f32(two)), 0);
}

LATHE_INLINE float part_first_lane(PartRegister a) {
  return vgetq_lane_f32(a, 0);
}

LATHE_INLINE float square_root(float a) {
  return vget_lane_f32(vsqrt_f32(vdup_n_f32(a)), 0);
}

// x where a < b, else y.
LATHE_INLINE PartRegister part_select_below(PartRegister a, PartRegister b, PartRegister x, PartRegister y) {
  return vbslq_f32(vcltq_f32(a, b), x, y);
}

// A row of a square of floats that is transposed in registers.
constexpr int kSquare = 4;
using SquareRow = float32x4_t;

LATHE_INLINE float32x4_t square_zero() {
  return part_zero();
}

LATHE_INLINE float32x4_t square_load(const float* p) {
  return vld1q_f32(p);
}

LATHE_INLINE void square_store(float* p, float32x4_t a) {
  vst1q_f32(p, a);
}

// Rows and columns of 4 x 4 floats exchanged.
LATHE_INLINE void transpose_square(float32x4_t (&r)[4]) {
  const float32x4_t low02 = vzip1q_f32(r[0], r[2]);
  const float32x4_t high02 = vzip2q_f32(r[0], r[2]);
  const float32x4_t low13 = vzip1q_f32(r[1], r[3]);
  const float32x4_t high13 = vzip2q_f32(r[1], r[3]);
  r[0] = vzip1q_f32(low02, low13);
  r[1] = vzip2q_f32(low02, low13);
  r[2] = vzip1q_f32(high02, high13);
  r[3] = vzip2q_f32(high02, high13);
}

}  // namespace
}  // namespace lathe
