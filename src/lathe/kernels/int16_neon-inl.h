// The integer registers of int16-inl.h with NEON and its dot products of signed bytes.
#pragma once

#include "lathe/kernels/vec16-inl.h"

namespace lathe {
namespace {

using IntRegister = int32x4_t;

LATHE_INLINE int32x4_t part_i32_set(int32_t v) {
  return vdupq_n_s32(v);
}

LATHE_INLINE int32x4_t part_bytes_load(const std::byte* p) {
  int32x4_t out;
  __builtin_memcpy(&out, p, 16);
  return out;
}

LATHE_INLINE int32x4_t part_and(int32x4_t a, int32x4_t b) {
  return vandq_s32(a, b);
}

LATHE_INLINE int32x4_t part_or(int32x4_t a, int32x4_t b) {
  return vorrq_s32(a, b);
}

LATHE_INLINE int32x4_t part_shift_left(int32x4_t a, int n) {
  return vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(a), vdupq_n_s16(static_cast<int16_t>(n))));
}

LATHE_INLINE int32x4_t part_shift_right(int32x4_t a, int n) {
  return part_shift_left(a, -n);
}

LATHE_INLINE int32x4_t part_i32_add(int32x4_t a, int32x4_t b) {
  return vaddq_s32(a, b);
}

LATHE_INLINE int32x4_t part_i32_mul(int32x4_t a, int32x4_t b) {
  return vmulq_s32(a, b);
}

LATHE_INLINE float32x4_t part_to_f32(int32x4_t a) {
  return vcvtq_f32_s32(a);
}

LATHE_INLINE int32x4_t part_to_i32(float32x4_t a) {
  return vcvtnq_s32_f32(a);
}

LATHE_INLINE int32x4_t part_from_signed_bytes(const std::byte* p) {
  return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(codes_load(p)))));
}

LATHE_INLINE int32x4_t part_from_unsigned_bytes(const std::byte* p) {
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(codes_load(p)))));
}

LATHE_INLINE int32x4_t part_set_bytes(int v) {
  return vreinterpretq_s32_u8(vdupq_n_u8(static_cast<uint8_t>(v)));
}

// 16 where the bit of the byte is set, else 0.
LATHE_INLINE int32x4_t part_fifth_bits(const std::byte* bits) {
  const uint8x16_t spread =
      vcombine_u8(vdup_n_u8(static_cast<uint8_t>(bits[0])), vdup_n_u8(static_cast<uint8_t>(bits[1])));
  const uint8x16_t single = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  return vreinterpretq_s32_u8(vandq_u8(vtstq_u8(spread, single), vdupq_n_u8(16)));
}

LATHE_INLINE void part_store_as_bytes(std::byte* out, int32x4_t a) {
  const int16x4_t words = vmovn_s32(a);
  const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
  __builtin_memcpy(out, &bytes, 4);
}

// Sums of neighbouring products: bytes w below 128 times signed ones to int16 (which must fit), int16 times int16 to
// int32.
LATHE_INLINE int32x4_t part_byte_pairs(int32x4_t w, int32x4_t x) {
  const int8x16_t a = vreinterpretq_s8_s32(w);
  const int8x16_t b = vreinterpretq_s8_s32(x);
  const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
  return vreinterpretq_s32_s16(vpaddq_s16(low, vmull_high_s8(a, b)));
}

LATHE_INLINE int32x4_t part_word_pairs(int32x4_t a, int32x4_t b) {
  const int16x8_t c = vreinterpretq_s16_s32(a);
  const int16x8_t d = vreinterpretq_s16_s32(b);
  return vpaddq_s32(vmull_s16(vget_low_s16(c), vget_low_s16(d)), vmull_high_s16(c, d));
}

LATHE_INLINE int32x4_t part_i16_add(int32x4_t a, int32x4_t b) {
  return vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}

LATHE_INLINE int32x4_t part_i16_set(int16_t v) {
  return vreinterpretq_s32_s16(vdupq_n_s16(v));
}

LATHE_INLINE int32x4_t part_i16_mul(int32x4_t a, int32x4_t b) {
  return vreinterpretq_s32_s16(vmulq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}

LATHE_INLINE int32x4_t part_i8_sub(int32x4_t a, int32x4_t b) {
  return vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)));
}

LATHE_INLINE int32x4_t part_xor(int32x4_t a, int32x4_t b) {
  return veorq_s32(a, b);
}

// Bytes 0, 2, 4 ... and 1, 3, 5 ... as signed words.
LATHE_INLINE int32x4_t part_even_bytes(int32x4_t a) {
  return vreinterpretq_s32_s16(vshrq_n_s16(vshlq_n_s16(vreinterpretq_s16_s32(a), 8), 8));
}

LATHE_INLINE int32x4_t part_odd_bytes(int32x4_t a) {
  return vreinterpretq_s32_s16(vshrq_n_s16(vreinterpretq_s16_s32(a), 8));
}

// The low word of each lane in both of its halves.
LATHE_INLINE int32x4_t part_word_doubled(int32x4_t a) {
  return vsliq_n_s32(a, a, 16);
}

LATHE_INLINE void part_bytes_store(std::byte* p, int32x4_t a) {
  __builtin_memcpy(p, &a, 16);
}

// 32 signed bytes as words: the even ones, then the odd ones.
LATHE_INLINE void block_to_words(const std::byte* bytes, std::byte* words) {
  LATHE_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int32x4_t half = part_bytes_load(bytes + i * 16);
    part_bytes_store(words + i * 16, part_even_bytes(half));
    part_bytes_store(words + 32 + i * 16, part_odd_bytes(half));
  }
}

// The same of unsigned bytes.
LATHE_INLINE void block_to_unsigned_words(const std::byte* bytes, std::byte* words) {
  LATHE_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int32x4_t half = part_bytes_load(bytes + i * 16);
    part_bytes_store(words + i * 16, part_and(half, part_i32_set(0x00ff00ff)));
    part_bytes_store(words + 32 + i * 16, part_shift_right(half, 8));
  }
}

// Makes the compiler keep a running sum in a register and in the order of the source.
LATHE_INLINE void part_pin(int32x4_t& sum) {
  __asm__("" : "+w"(sum));
}

// Codes of 32 columns of two rows, bytes that stand for w - 128, as pairs of words: column after column, the first
// row's code and the second one's.
LATHE_INLINE void interleave_codes(const std::byte* first, const std::byte* second, std::byte* pairs) {
  LATHE_UNROLL
  for (int i = 0; i < 2; ++i) {
    const uint8x16_t a = vreinterpretq_u8_s32(part_xor(part_bytes_load(first + i * 16), part_set_bytes(-128)));
    const uint8x16_t b = vreinterpretq_u8_s32(part_xor(part_bytes_load(second + i * 16), part_set_bytes(-128)));
    const int8x16_t zipped[2] = {vreinterpretq_s8_u8(vzip1q_u8(a, b)), vreinterpretq_s8_u8(vzip2q_u8(a, b))};
    LATHE_UNROLL
    for (int j = 0; j < 2; ++j) {
      std::byte* to = pairs + (i * 2 + j) * 32;
      part_bytes_store(to, vreinterpretq_s32_s16(vmovl_s8(vget_low_s8(zipped[j]))));
      part_bytes_store(to + 16, vreinterpretq_s32_s16(vmovl_high_s8(zipped[j])));
    }
  }
}

// The low words of two integers: a's below b's.
LATHE_INLINE int32x4_t part_pack_words(int32x4_t a, int32x4_t b) {
  return vsliq_n_s32(a, b, 16);
}

// acc += sums of two products of words, for every lane.
LATHE_INLINE void part_words_dot(int32x4_t& acc, int32x4_t w, int32x4_t x) {
  acc = part_i32_add(acc, part_word_pairs(w, x));
  part_pin(acc);
}

// acc += sums of four products of bytes w, below 128, with signed bytes x, for every lane.
LATHE_INLINE void part_dot(IntRegister& acc, IntRegister w, IntRegister x) {
  acc = vdotq_s32(acc, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
}

// The same for bytes that use all eight bits and stand for w - 128: as signed bytes they are that.
constexpr bool kHasByteDot = true;
constexpr bool kOffsetInDot = true;

LATHE_INLINE void part_dot_wide(IntRegister& acc, IntRegister w, IntRegister x) {
  part_dot(acc, veorq_s32(w, part_set_bytes(0x80)), x);
}

// Sum of sixteen lanes, and the largest |lane| of 32.
LATHE_INLINE int32_t parts_i32_reduce_add(const IntRegister (&a)[4]) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[2]), vaddq_s32(a[1], a[3])));
}

LATHE_INLINE float parts_largest_magnitude(const PartRegister (&a)[4], const PartRegister (&b)[4]) {
  int32x4_t most = vdupq_n_s32(0);
  LATHE_UNROLL
  for (int p = 0; p < 4; ++p) {
    most = vmaxq_s32(most, vreinterpretq_s32_f32(vabsq_f32(a[p])));
    most = vmaxq_s32(most, vreinterpretq_s32_f32(vabsq_f32(b[p])));
  }
  const int32_t bits = vmaxvq_s32(most);
  float value = 0.0f;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

LATHE_INLINE PartRegister part_from_bytes(const std::byte* codes) {
  return vcvtq_f32_s32(vsubq_s32(part_from_unsigned_bytes(codes), vdupq_n_s32(128)));
}

LATHE_INLINE PartRegister part_magnitude(PartRegister a) {
  return vabsq_f32(a);
}

// Bytes of four integers that fit into signed bytes: c0 lowest.
LATHE_INLINE IntRegister part_pack_four(IntRegister c0, IntRegister c1, IntRegister c2, IntRegister c3) {
  const int32x4_t low = vsliq_n_s32(c0, c1, 8);
  const int32x4_t high = vsliq_n_s32(c2, c3, 8);
  return vsliq_n_s32(low, high, 16);
}

LATHE_INLINE void part_i32_store(std::byte* out, IntRegister a) {
  __builtin_memcpy(out, &a, 16);
}

// The fp16 number at p.
LATHE_INLINE float half_to_float(const std::byte* p) {
  uint16_t bits = 0;
  __builtin_memcpy(&bits, p, 2);
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))), 0);
}

}  // namespace
}  // namespace lathe
