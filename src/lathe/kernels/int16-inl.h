// I32x16 and GroupBytes: sixteen int32 lanes and the 64 bytes that four columns of sixteen rows make, one register with
// AVX-512, two with AVX2. group_dot is the int8 dot product of the instruction set: vpdpbusd where there is VNNI, else
// products of bytes through int16, arranged so that nothing saturates. All of it is exact integer arithmetic.
#pragma once

#include "lathe/kernels/vec16-inl.h"

namespace lathe {
namespace {

#if defined(__AVX512F__)
using IntRegister = __m512i;
#else
using IntRegister = __m256i;
#endif

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

#if defined(__AVX512F__)

LATHE_INLINE __m512i part_i32_set(int32_t v) {
  return _mm512_set1_epi32(v);
}

LATHE_INLINE __m512i part_bytes_load(const std::byte* p) {
  return _mm512_loadu_si512(p);
}

LATHE_INLINE __m512i part_and(__m512i a, __m512i b) {
  return _mm512_and_si512(a, b);
}

LATHE_INLINE __m512i part_or(__m512i a, __m512i b) {
  return _mm512_or_si512(a, b);
}

LATHE_INLINE __m512i part_shift_right(__m512i a, int n) {
  return _mm512_srli_epi16(a, static_cast<unsigned>(n));
}

LATHE_INLINE __m512i part_shift_left(__m512i a, int n) {
  return _mm512_slli_epi16(a, static_cast<unsigned>(n));
}

LATHE_INLINE __m512i part_i32_add(__m512i a, __m512i b) {
  return _mm512_add_epi32(a, b);
}

LATHE_INLINE __m512i part_i32_mul(__m512i a, __m512i b) {
  return _mm512_mullo_epi32(a, b);
}

LATHE_INLINE __m512 part_to_f32(__m512i a) {
  return _mm512_cvtepi32_ps(a);
}

LATHE_INLINE __m512i part_to_i32(__m512 a) {
  return _mm512_cvtps_epi32(a);
}

LATHE_INLINE __m512i part_from_signed_bytes(const std::byte* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

LATHE_INLINE __m512i part_from_unsigned_bytes(const std::byte* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

LATHE_INLINE __m512i part_set_bytes(int v) {
  return _mm512_set1_epi8(static_cast<char>(v));
}

// 16 where the bit of the byte is set, else 0.
LATHE_INLINE __m512i part_fifth_bits(const std::byte* bits) {
  uint64_t word = 0;
  __builtin_memcpy(&word, bits, 8);
  return _mm512_maskz_mov_epi8(word, _mm512_set1_epi8(16));
}

LATHE_INLINE void part_store_as_bytes(std::byte* out, __m512i a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(a));
}

#else

LATHE_INLINE __m256i part_i32_set(int32_t v) {
  return _mm256_set1_epi32(v);
}

LATHE_INLINE __m256i part_bytes_load(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

LATHE_INLINE __m256i part_and(__m256i a, __m256i b) {
  return _mm256_and_si256(a, b);
}

LATHE_INLINE __m256i part_or(__m256i a, __m256i b) {
  return _mm256_or_si256(a, b);
}

LATHE_INLINE __m256i part_shift_right(__m256i a, int n) {
  return _mm256_srli_epi16(a, n);
}

LATHE_INLINE __m256i part_shift_left(__m256i a, int n) {
  return _mm256_slli_epi16(a, n);
}

LATHE_INLINE __m256i part_i32_add(__m256i a, __m256i b) {
  return _mm256_add_epi32(a, b);
}

LATHE_INLINE __m256i part_i32_mul(__m256i a, __m256i b) {
  return _mm256_mullo_epi32(a, b);
}

LATHE_INLINE __m256 part_to_f32(__m256i a) {
  return _mm256_cvtepi32_ps(a);
}

LATHE_INLINE __m256i part_to_i32(__m256 a) {
  return _mm256_cvtps_epi32(a);
}

LATHE_INLINE __m256i part_from_signed_bytes(const std::byte* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}

LATHE_INLINE __m256i part_from_unsigned_bytes(const std::byte* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}

LATHE_INLINE __m256i part_set_bytes(int v) {
  return _mm256_set1_epi8(static_cast<char>(v));
}

LATHE_INLINE __m256i part_fifth_bits(const std::byte* bits) {
  int32_t word = 0;
  __builtin_memcpy(&word, bits, 4);
  const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(word), spread);
  const __m256i single = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, single), single), _mm256_set1_epi8(16));
}

LATHE_INLINE void part_store_as_bytes(std::byte* out, __m256i a) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packs_epi16(words, words));
}

#endif

// Makes the compiler keep a running sum in a register and in the order of the source: g++ 12 otherwise moves chains of
// integer additions behind all their products, whose spills then take longer than the products.
LATHE_INLINE void part_pin(IntRegister& sum) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(sum));
#else
  __asm__("" : "+x"(sum));
#endif
}

// Sums of neighbouring products: unsigned bytes times signed ones to int16 (which must fit), int16 times int16 to
// int32.
LATHE_INLINE IntRegister part_byte_pairs(IntRegister w, IntRegister x) {
#if defined(__AVX512F__)
  return _mm512_maddubs_epi16(w, x);
#else
  return _mm256_maddubs_epi16(w, x);
#endif
}

LATHE_INLINE IntRegister part_word_pairs(IntRegister a, IntRegister b) {
#if defined(__AVX512F__)
  return _mm512_madd_epi16(a, b);
#else
  return _mm256_madd_epi16(a, b);
#endif
}

LATHE_INLINE IntRegister part_i16_add(IntRegister a, IntRegister b) {
#if defined(__AVX512F__)
  return _mm512_add_epi16(a, b);
#else
  return _mm256_add_epi16(a, b);
#endif
}

LATHE_INLINE IntRegister part_i16_set(int16_t v) {
#if defined(__AVX512F__)
  return _mm512_set1_epi16(v);
#else
  return _mm256_set1_epi16(v);
#endif
}

LATHE_INLINE IntRegister part_xor(IntRegister a, IntRegister b) {
#if defined(__AVX512F__)
  return _mm512_xor_si512(a, b);
#else
  return _mm256_xor_si256(a, b);
#endif
}

// Bytes 0, 2, 4 ... and 1, 3, 5 ... as signed words.
LATHE_INLINE IntRegister part_even_bytes(IntRegister a) {
#if defined(__AVX512F__)
  return _mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8);
#else
  return _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8);
#endif
}

LATHE_INLINE IntRegister part_odd_bytes(IntRegister a) {
#if defined(__AVX512F__)
  return _mm512_srai_epi16(a, 8);
#else
  return _mm256_srai_epi16(a, 8);
#endif
}

LATHE_INLINE IntRegister part_i16_mul(IntRegister a, IntRegister b) {
#if defined(__AVX512F__)
  return _mm512_mullo_epi16(a, b);
#else
  return _mm256_mullo_epi16(a, b);
#endif
}

LATHE_INLINE IntRegister part_i8_sub(IntRegister a, IntRegister b) {
#if defined(__AVX512F__)
  return _mm512_sub_epi8(a, b);
#else
  return _mm256_sub_epi8(a, b);
#endif
}

LATHE_INLINE IntRegister part_word_doubled(IntRegister a) {
#if defined(__AVX512F__)
  const __m512i low = _mm512_and_si512(a, _mm512_set1_epi32(0xffff));
  return _mm512_or_si512(low, _mm512_slli_epi32(a, 16));
#else
  const __m256i low = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
  return _mm256_or_si256(low, _mm256_slli_epi32(a, 16));
#endif
}

LATHE_INLINE void part_bytes_store(std::byte* p, IntRegister a) {
#if defined(__AVX512F__)
  _mm512_storeu_si512(p, a);
#else
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a);
#endif
}

// Four bytes in every lane.
LATHE_INLINE IntRegister part_broadcast_four(const std::byte* q) {
  int32_t four = 0;
  __builtin_memcpy(&four, q, 4);
  return part_i32_set(four);
}

// acc += sums of four products of unsigned bytes w with signed bytes x, for every lane.
LATHE_INLINE void part_dot(IntRegister& acc, IntRegister w, IntRegister x) {
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
  // Inline assembly, because g++ 12 copies the accumulator around the intrinsic.
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
#elif defined(__AVXVNNI__)
  acc = _mm256_dpbusd_avx_epi32(acc, w, x);
#elif defined(__AVX512F__)
  acc = _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)));
#else
  acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
#endif
}

// The same for bytes that use all eight bits and stand for w - 128. Without VNNI, pairs of products of such bytes do
// not fit int16, so the offset is taken off first: |w - 128| <= 128 times +-127, twice, does fit.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr bool kHasByteDot = true;
constexpr bool kOffsetInDot = false;  // callers add -128 * (sum of q) themselves

LATHE_INLINE void part_dot_wide(IntRegister& acc, IntRegister w, IntRegister x) {
  part_dot(acc, w, x);
}
#else
constexpr bool kHasByteDot = false;
constexpr bool kOffsetInDot = true;

LATHE_INLINE void part_dot_wide(IntRegister& acc, IntRegister w, IntRegister x) {
#if defined(__AVX512F__)
  const __m512i value = _mm512_xor_si512(w, _mm512_set1_epi8(static_cast<char>(0x80)));
  const __m512i with_sign = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(value), _mm512_setzero_si512(), x);
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(value), with_sign);
  acc = _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#else
  const __m256i value = _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80)));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(value), _mm256_sign_epi8(x, value));
  acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
#endif

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
#if defined(__AVX512F__)
  const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(a.part[0]), _mm512_extracti64x4_epi64(a.part[0], 1));
#else
  const __m256i eight = _mm256_add_epi32(a.part[0], a.part[1]);
#endif
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

// The largest |lane| of both: infinity or NaN when a lane is that.
LATHE_INLINE float largest_magnitude(F32x16 a, F32x16 b) {
#if defined(__AVX512F__)
  const __m512i positive = _mm512_set1_epi32(0x7fffffff);
  const __m512i both = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a.part[0]), positive),
                                        _mm512_and_si512(_mm512_castps_si512(b.part[0]), positive));
  const __m256i eight = _mm256_max_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
#else
  const __m256i positive = _mm256_set1_epi32(0x7fffffff);
  const auto magnitude = [&](__m256 v) __attribute__((always_inline)) {
    return _mm256_and_si256(_mm256_castps_si256(v), positive);
  };
  const __m256i eight = _mm256_max_epi32(_mm256_max_epi32(magnitude(a.part[0]), magnitude(a.part[1])),
                                         _mm256_max_epi32(magnitude(b.part[0]), magnitude(b.part[1])));
#endif
  const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
  const int32_t bits = _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 1)));
  float value = 0.0f;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// The fp16 number at p in every lane.
LATHE_INLINE F32x16 half_at(const std::byte* p) {
  uint16_t bits = 0;
  __builtin_memcpy(&bits, p, 2);
  return broadcast(_mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))));
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

// The low word of each lane in both of its halves.
LATHE_INLINE I32x16 word_in_both_halves(const I32x16& a) {
  LATHE_EACH_INT_PART(I32x16, part_word_doubled(a.part[p]));
}

// acc += the products of words w with the two words that x holds in every lane.
LATHE_INLINE void words_dot(I32x16& acc, const GroupBytes& w, IntRegister x) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    acc.part[p] = part_i32_add(acc.part[p], part_word_pairs(w.part[p], x));
    part_pin(acc.part[p]);
  }
}

#undef LATHE_EACH_INT_PART

}  // namespace
}  // namespace lathe
