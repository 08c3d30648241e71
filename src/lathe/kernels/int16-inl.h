// I32x16 and GroupBytes: sixteen int32 lanes and the 64 bytes that four columns of sixteen rows make, one register with
// AVX-512, two with AVX2, four with NEON. group_dot is the int8 dot product of the instruction set: vpdpbusd where
// there is VNNI, sdot with NEON, else products of bytes through int16, arranged so that nothing saturates. All of it is
// exact integer arithmetic.
#pragma once

#include "lathe/kernels/vec16-inl.h"

#if defined(__aarch64__)
#include "lathe/kernels/int16_neon-inl.h"
#else
#include "lathe/kernels/int16_x86-inl.h"
#endif

namespace lathe {
namespace {

struct I32x16 {
  IntRegister part[kParts];
};

struct GroupBytes {
  IntRegister part[kParts];
};

constexpr int kPartBytes = kPartLanes * 4;

#define LATHE_EACH_INT_PART(type, expression) \
  type out;                                   \
  LATHE_UNROLL                                \
  for (int p = 0; p < kParts; ++p) {          \
    out.part[p] = (expression);               \
  }                                           \
  return out

// Four bytes in every lane.
LATHE_INLINE IntRegister part_broadcast_four(const std::byte* q) {
  int32_t four = 0;
  __builtin_memcpy(&four, q, 4);
  return part_i32_set(four);
}

// ---- I32x16 --------------------------------------------------------------------------------------------------------

LATHE_INLINE I32x16 i32_set(int32_t v) {
  LATHE_EACH_INT_PART(I32x16, part_i32_set(v));
}

LATHE_INLINE I32x16 i32_add(I32x16 a, I32x16 b) {
  LATHE_EACH_INT_PART(I32x16, part_i32_add(a.part[p], b.part[p]));
}

LATHE_INLINE I32x16 i32_mul(I32x16 a, I32x16 b) {
  LATHE_EACH_INT_PART(I32x16, part_i32_mul(a.part[p], b.part[p]));
}

LATHE_INLINE I32x16 i32_from_signed_bytes(const std::byte* bytes) {
  LATHE_EACH_INT_PART(I32x16, part_from_signed_bytes(bytes + p * kPartLanes));
}

LATHE_INLINE I32x16 i32_from_unsigned_bytes(const std::byte* bytes) {
  LATHE_EACH_INT_PART(I32x16, part_from_unsigned_bytes(bytes + p * kPartLanes));
}

LATHE_INLINE F32x16 to_f32(I32x16 a) {
  LATHE_EACH_INT_PART(F32x16, part_to_f32(a.part[p]));
}

// Rounded to nearest even.
LATHE_INLINE I32x16 to_i32(F32x16 a) {
  LATHE_EACH_INT_PART(I32x16, part_to_i32(a.part[p]));
}

// Lanes as signed bytes; they must fit.
LATHE_INLINE void store_as_bytes(std::byte* out, I32x16 a) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) part_store_as_bytes(out + p * kPartLanes, a.part[p]);
}

LATHE_INLINE int32_t i32_reduce_add(I32x16 a) {
  return parts_i32_reduce_add(a.part);
}

// The largest |lane| of both: infinity or NaN when a lane is that.
LATHE_INLINE float largest_magnitude(F32x16 a, F32x16 b) {
  return parts_largest_magnitude(a.part, b.part);
}

// The fp16 number at p in every lane.
LATHE_INLINE F32x16 half_at(const std::byte* p) {
  return broadcast(half_to_float(p));
}

// ---- GroupBytes ----------------------------------------------------------------------------------------------------

LATHE_INLINE GroupBytes group_load(const std::byte* bytes) {
  LATHE_EACH_INT_PART(GroupBytes, part_bytes_load(bytes + p * kPartBytes));
}

LATHE_INLINE void group_split_nibbles(GroupBytes both, GroupBytes& low, GroupBytes& high) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    const IntRegister mask = part_set_bytes(15);
    low.part[p] = part_and(both.part[p], mask);
    high.part[p] = part_and(part_shift_right(both.part[p], 4), mask);
  }
}

// Adds 16 to every byte whose bit is set among the 64 at `bits`.
LATHE_INLINE void group_add_fifth_bits(GroupBytes& group, const std::byte* bits) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    group.part[p] = part_or(group.part[p], part_fifth_bits(bits + p * kPartBytes / 8));
  }
}

// Adds bits 2 s and 2 s + 1 of the 64 bytes at `pairs` as bits 4 and 5.
LATHE_INLINE void group_add_upper_pairs(GroupBytes& group, const std::byte* pairs, int s) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    const IntRegister all = part_bytes_load(pairs + p * kPartBytes);
    const IntRegister moved = s < 2 ? part_shift_left(all, 4 - 2 * s) : part_shift_right(all, 2 * s - 4);
    group.part[p] = part_or(group.part[p], part_and(moved, part_set_bytes(0x30)));
  }
}

// acc += the products of w with the four bytes that x holds in every lane.
template <bool kWide>
LATHE_INLINE void group_dot(I32x16& acc, const GroupBytes& w, IntRegister x) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    if constexpr (kWide) {
      part_dot_wide(acc.part[p], w.part[p], x);
    } else {
      part_dot(acc.part[p], w.part[p], x);
    }
  }
}

// The sums of pairs of products of unsigned w with the four bytes that x holds in every lane, as int16, which they and
// their sums must fit; and what such sums come to per lane.
LATHE_INLINE GroupBytes group_pairs(const GroupBytes& w, IntRegister x) {
  LATHE_EACH_INT_PART(GroupBytes, part_byte_pairs(w.part[p], x));
}

LATHE_INLINE void pairs_add(GroupBytes& sum, const GroupBytes& more) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    sum.part[p] = part_i16_add(sum.part[p], more.part[p]);
    part_pin(sum.part[p]);
  }
}

LATHE_INLINE I32x16 pairs_sum(const GroupBytes& pairs) {
  LATHE_EACH_INT_PART(I32x16, part_word_pairs(pairs.part[p], part_i16_set(1)));
}

// Subtracts `offset` from every byte; what comes out is signed.
template <int kOffset>
LATHE_INLINE GroupBytes group_subtract(const GroupBytes& a) {
  if constexpr (kOffset == 128) {
    LATHE_EACH_INT_PART(GroupBytes, part_xor(a.part[p], part_set_bytes(-128)));
  } else {
    LATHE_EACH_INT_PART(GroupBytes, part_i8_sub(a.part[p], part_set_bytes(kOffset)));
  }
}

LATHE_INLINE void group_store(std::byte* to, const GroupBytes& a) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) part_bytes_store(to + p * kPartBytes, a.part[p]);
}

// Signed bytes as words: columns 0 and 2 of each row, then columns 1 and 3.
LATHE_INLINE void group_to_words(const GroupBytes& a, GroupBytes& even, GroupBytes& odd) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    even.part[p] = part_even_bytes(a.part[p]);
    odd.part[p] = part_odd_bytes(a.part[p]);
  }
}

// Words times the word in both halves of each lane.
LATHE_INLINE GroupBytes words_mul(const GroupBytes& a, const I32x16& factor) {
  LATHE_EACH_INT_PART(GroupBytes, part_i16_mul(a.part[p], factor.part[p]));
}

// The low words of each lane of two: a's below b's.
LATHE_INLINE GroupBytes pack_words(const I32x16& a, const I32x16& b) {
  LATHE_EACH_INT_PART(GroupBytes, part_pack_words(a.part[p], b.part[p]));
}

// The low word of each lane in both of its halves.
LATHE_INLINE I32x16 word_in_both_halves(const I32x16& a) {
  LATHE_EACH_INT_PART(I32x16, part_word_doubled(a.part[p]));
}

// acc += the products of words w with the two words that x holds in every lane.
LATHE_INLINE void words_dot(I32x16& acc, const GroupBytes& w, IntRegister x) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) part_words_dot(acc.part[p], w.part[p], x);
}

#undef LATHE_EACH_INT_PART

}  // namespace
}  // namespace lathe
