// The integer registers of int16-inl.h on x86.
#pragma once

#include "lathe/kernels/vec16-inl.h"

namespace lathe {
namespace {

#if defined(__AVX512F__)
using IntRegister = __m512i;
#else
using IntRegister = __m256i;
#endif

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

// 32 signed bytes as words: the even ones, then the odd ones.
LATHE_INLINE void block_to_words(const std::byte* bytes, std::byte* words) {
  const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), _mm256_srai_epi16(_mm256_slli_epi16(all, 8), 8));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + 32), _mm256_srai_epi16(all, 8));
}

// The same of unsigned bytes.
LATHE_INLINE void block_to_unsigned_words(const std::byte* bytes, std::byte* words) {
  const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), _mm256_and_si256(all, _mm256_set1_epi16(0xff)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + 32), _mm256_srli_epi16(all, 8));
}

// Codes of 32 columns of two rows, bytes that stand for w - 128, as pairs of words: column after column, the first
// row's code and the second one's.
LATHE_INLINE void interleave_codes(const std::byte* first, const std::byte* second, std::byte* pairs) {
  const auto load_codes = [](const std::byte* codes) __attribute__((always_inline)) {
    const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    // The unpacking below works on halves of the register.
    return _mm256_permute4x64_epi64(_mm256_xor_si256(all, _mm256_set1_epi8(-128)), 0xd8);
  };
  const __m256i a = load_codes(first);
  const __m256i b = load_codes(second);
  const __m256i low = _mm256_unpacklo_epi8(a, b);
  const __m256i high = _mm256_unpackhi_epi8(a, b);
#if defined(__AVX512F__)
  _mm512_storeu_si512(pairs, _mm512_cvtepi8_epi16(low));
  _mm512_storeu_si512(pairs + 64, _mm512_cvtepi8_epi16(high));
#else
  auto* to = reinterpret_cast<__m256i*>(pairs);
  _mm256_storeu_si256(to, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(low)));
  _mm256_storeu_si256(to + 1, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(low, 1)));
  _mm256_storeu_si256(to + 2, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(high)));
  _mm256_storeu_si256(to + 3, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(high, 1)));
#endif
}

// The low words of two integers: a's below b's.
LATHE_INLINE IntRegister part_pack_words(IntRegister a, IntRegister b) {
#if defined(__AVX512F__)
  return _mm512_mask_blend_epi16(0xaaaaaaaa, a, _mm512_slli_epi32(b, 16));
#else
  return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);
#endif
}

// acc += sums of two products of words, for every lane.
LATHE_INLINE void part_words_dot(IntRegister& acc, IntRegister w, IntRegister x) {
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
  __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
#elif defined(__AVXVNNI__)
  acc = _mm256_dpwssd_avx_epi32(acc, w, x);
#else
  acc = part_i32_add(acc, part_word_pairs(w, x));
  part_pin(acc);
#endif
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

// Sum of sixteen lanes, and the largest |lane| of 32.
LATHE_INLINE int32_t parts_i32_reduce_add(const IntRegister (&a)[16 / kPartLanes]) {
#if defined(__AVX512F__)
  const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(a[0]), _mm512_extracti64x4_epi64(a[0], 1));
#else
  const __m256i eight = _mm256_add_epi32(a[0], a[1]);
#endif
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

LATHE_INLINE float parts_largest_magnitude(const PartRegister (&a)[16 / kPartLanes],
                                           const PartRegister (&b)[16 / kPartLanes]) {
#if defined(__AVX512F__)
  const __m512i positive = _mm512_set1_epi32(0x7fffffff);
  const __m512i both = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a[0]), positive),
                                        _mm512_and_si512(_mm512_castps_si512(b[0]), positive));
  const __m256i eight = _mm256_max_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
#else
  const __m256i positive = _mm256_set1_epi32(0x7fffffff);
  const auto magnitude = [&](__m256 v) __attribute__((always_inline)) {
    return _mm256_and_si256(_mm256_castps_si256(v), positive);
  };
  const __m256i eight = _mm256_max_epi32(_mm256_max_epi32(magnitude(a[0]), magnitude(a[1])),
                                         _mm256_max_epi32(magnitude(b[0]), magnitude(b[1])));
#endif
  const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
  const int32_t bits = _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 1)));
  float value = 0.0f;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

LATHE_INLINE PartRegister part_from_bytes(const std::byte* codes) {
#if defined(__AVX512F__)
  const __m512i all = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  return _mm512_cvtepi32_ps(_mm512_sub_epi32(all, _mm512_set1_epi32(128)));
#else
  const __m256i all = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(all, _mm256_set1_epi32(128)));
#endif
}

LATHE_INLINE PartRegister part_magnitude(PartRegister a) {
#if defined(__AVX512F__)
  return _mm512_abs_ps(a);
#else
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
#endif
}

// Bytes of four integers that fit into signed bytes: c0 lowest.
LATHE_INLINE IntRegister part_pack_four(IntRegister c0, IntRegister c1, IntRegister c2, IntRegister c3) {
#if defined(__AVX512F__)
  const __m512i mask = _mm512_set1_epi32(255);
  const __m512i low = _mm512_or_si512(_mm512_and_si512(c0, mask), _mm512_slli_epi32(_mm512_and_si512(c1, mask), 8));
  const __m512i high = _mm512_or_si512(_mm512_and_si512(c2, mask), _mm512_slli_epi32(c3, 8));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
#else
  const __m256i mask = _mm256_set1_epi32(255);
  const __m256i low = _mm256_or_si256(_mm256_and_si256(c0, mask), _mm256_slli_epi32(_mm256_and_si256(c1, mask), 8));
  const __m256i high = _mm256_or_si256(_mm256_and_si256(c2, mask), _mm256_slli_epi32(c3, 8));
  return _mm256_or_si256(low, _mm256_slli_epi32(high, 16));
#endif
}

LATHE_INLINE void part_i32_store(std::byte* out, IntRegister a) {
#if defined(__AVX512F__)
  _mm512_storeu_si512(out, a);
#else
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), a);
#endif
}

// The fp16 number at p.
LATHE_INLINE float half_to_float(const std::byte* p) {
  uint16_t bits = 0;
  __builtin_memcpy(&bits, p, 2);
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

}  // namespace
}  // namespace lathe
