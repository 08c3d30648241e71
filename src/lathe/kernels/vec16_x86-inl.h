// The registers of vec16-inl.h on x86: one zmm of sixteen lanes with AVX-512, ymm of eight with AVX2.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace lathe {
namespace {

// ---- Part: one hardware register of fp32 lanes ---------------------------------------------------------------------

#if defined(__AVX512F__)

using PartRegister = __m512;
constexpr int kPartLanes = 16;

LATHE_INLINE __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}

LATHE_INLINE __m512 part_zero() {
  return _mm512_setzero_ps();
}

LATHE_INLINE __m512 part_set(float v) {
  return _mm512_set1_ps(v);
}

LATHE_INLINE __m512 part_load(const void* p) {
  return _mm512_loadu_ps(p);
}

LATHE_INLINE __m512 part_load_first(const void* p, int64_t n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

LATHE_INLINE void part_store(void* p, __m512 a) {
  _mm512_storeu_ps(p, a);
}

LATHE_INLINE void part_store_first(void* p, __m512 a, int64_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), a);
}

LATHE_INLINE __m512 part_select_first(int64_t n, __m512 a, __m512 b) {
  return _mm512_mask_blend_ps(first_lanes(n), b, a);
}

LATHE_INLINE __m512 part_add(__m512 a, __m512 b) {
  return _mm512_add_ps(a, b);
}

LATHE_INLINE __m512 part_sub(__m512 a, __m512 b) {
  return _mm512_sub_ps(a, b);
}

LATHE_INLINE __m512 part_mul(__m512 a, __m512 b) {
  return _mm512_mul_ps(a, b);
}

LATHE_INLINE __m512 part_div(__m512 a, __m512 b) {
  return _mm512_div_ps(a, b);
}

LATHE_INLINE __m512 part_sqrt(__m512 a) {
  return _mm512_sqrt_ps(a);
}

LATHE_INLINE __m512 part_max(__m512 a, __m512 b) {
  return _mm512_max_ps(a, b);
}

LATHE_INLINE __m512 part_min(__m512 a, __m512 b) {
  return _mm512_min_ps(a, b);
}

LATHE_INLINE __m512 part_fma(__m512 a, __m512 b, __m512 c) {
  return _mm512_fmadd_ps(a, b, c);
}

LATHE_INLINE __m512 part_fms(__m512 a, __m512 b, __m512 c) {
  return _mm512_fmsub_ps(a, b, c);
}

LATHE_INLINE __m512 part_fnma(__m512 a, __m512 b, __m512 c) {
  return _mm512_fnmadd_ps(a, b, c);
}

LATHE_INLINE __m512 part_fmaddsub(__m512 a, __m512 b, __m512 c) {
  return _mm512_fmaddsub_ps(a, b, c);
}

LATHE_INLINE __m512 part_round(__m512 a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

LATHE_INLINE __m512 part_swap_pairs(__m512 a) {
  return _mm512_permute_ps(a, 0xb1);
}

// Half as many floats, each twice: a0 a0 a1 a1 ...
LATHE_INLINE __m512 part_load_doubled(const float* p, int64_t n) {
  const __m512i index = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_ps(index, _mm512_maskz_loadu_ps(first_lanes(n), p));
}

// 2^floor(n / 2) and 2^(n - floor(n / 2)) for integral n in [-252, 254].
LATHE_INLINE void part_half_powers(__m512 n, __m512& low, __m512& high) {
  const __m512i i = _mm512_cvtps_epi32(n);
  const __m512i half = _mm512_srai_epi32(i, 1);
  const __m512i bias = _mm512_set1_epi32(127);
  low = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
  high = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_sub_epi32(i, half), bias), 23));
}

using HalfWords = __m256i;  // kPartLanes 16-bit words
using Codes = __m128i;      // kPartLanes bytes

LATHE_INLINE __m256i words_load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

LATHE_INLINE __m256i words_load_first(const void* p, int64_t n) {
  return _mm256_maskz_loadu_epi16(first_lanes(n), p);
}

LATHE_INLINE void words_store(void* p, __m256i a) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), a);
}

LATHE_INLINE void words_store_first(void* p, __m256i a, int64_t n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), a);
}

LATHE_INLINE __m128i codes_load(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}

LATHE_INLINE __m128i codes_load_first(const void* p, int64_t n) {
  return _mm_maskz_loadu_epi8(first_lanes(n), p);
}

LATHE_INLINE __m512 part_from_bf16(__m256i a) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16));
}

LATHE_INLINE __m512 part_from_f16(__m256i a) {
  return _mm512_cvtph_ps(a);
}

LATHE_INLINE __m256i part_to_f16(__m512 a) {
  return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

LATHE_INLINE __m256i part_to_bf16(__m512 a) {
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i high = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __m512i quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), rounded, quiet));
}

// E4M3 codes as f16 patterns of value / 256: the four exponent bits land in f16's five with a bias 8 too small, and the
// f16 subnormals are E4M3's. The NaN codes (all ones) get the missing top exponent bit and so become NaN.
LATHE_INLINE __m256i codes_to_finite_f16(__m128i codes) {
  return _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7),
                          _mm256_set1_epi16(static_cast<int16_t>(0xbfff)));
}

LATHE_INLINE __m256i codes_to_f16(__m128i codes) {
  const __m256i shifted = codes_to_finite_f16(codes);
  const __m128i ones = _mm_set1_epi8(0x7f);
  const __m128i is_nan = _mm_cmpeq_epi8(_mm_and_si128(codes, ones), ones);
  return _mm256_or_si256(shifted, _mm256_and_si256(_mm256_cvtepi8_epi16(is_nan), _mm256_set1_epi16(0x4000)));
}

LATHE_INLINE __m256 fold_to_8(const __m512 (&a)[1]) {
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a[0]), 1));
  return _mm256_add_ps(_mm512_castps512_ps256(a[0]), high);
}

LATHE_INLINE __m256 fold_max_to_8(const __m512 (&a)[1]) {
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a[0]), 1));
  return _mm256_max_ps(_mm512_castps512_ps256(a[0]), high);
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

using PartRegister = __m256;
constexpr int kPartLanes = 8;

LATHE_INLINE __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LATHE_INLINE __m256 part_zero() {
  return _mm256_setzero_ps();
}

LATHE_INLINE __m256 part_set(float v) {
  return _mm256_set1_ps(v);
}

LATHE_INLINE __m256 part_load(const void* p) {
  return _mm256_loadu_ps(static_cast<const float*>(p));
}

LATHE_INLINE __m256 part_load_first(const void* p, int64_t n) {
  return _mm256_maskload_ps(static_cast<const float*>(p), first_lanes(n));
}

LATHE_INLINE void part_store(void* p, __m256 a) {
  _mm256_storeu_ps(static_cast<float*>(p), a);
}

LATHE_INLINE void part_store_first(void* p, __m256 a, int64_t n) {
  _mm256_maskstore_ps(static_cast<float*>(p), first_lanes(n), a);
}

LATHE_INLINE __m256 part_select_first(int64_t n, __m256 a, __m256 b) {
  return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(first_lanes(n)));
}

LATHE_INLINE __m256 part_add(__m256 a, __m256 b) {
  return _mm256_add_ps(a, b);
}

LATHE_INLINE __m256 part_sub(__m256 a, __m256 b) {
  return _mm256_sub_ps(a, b);
}

LATHE_INLINE __m256 part_mul(__m256 a, __m256 b) {
  return _mm256_mul_ps(a, b);
}

LATHE_INLINE __m256 part_div(__m256 a, __m256 b) {
  return _mm256_div_ps(a, b);
}

LATHE_INLINE __m256 part_sqrt(__m256 a) {
  return _mm256_sqrt_ps(a);
}

LATHE_INLINE __m256 part_max(__m256 a, __m256 b) {
  return _mm256_max_ps(a, b);
}

LATHE_INLINE __m256 part_min(__m256 a, __m256 b) {
  return _mm256_min_ps(a, b);
}

LATHE_INLINE __m256 part_fma(__m256 a, __m256 b, __m256 c) {
  return _mm256_fmadd_ps(a, b, c);
}

LATHE_INLINE __m256 part_fms(__m256 a, __m256 b, __m256 c) {
  return _mm256_fmsub_ps(a, b, c);
}

LATHE_INLINE __m256 part_fnma(__m256 a, __m256 b, __m256 c) {
  return _mm256_fnmadd_ps(a, b, c);
}

LATHE_INLINE __m256 part_fmaddsub(__m256 a, __m256 b, __m256 c) {
  return _mm256_fmaddsub_ps(a, b, c);
}

LATHE_INLINE __m256 part_round(__m256 a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

LATHE_INLINE __m256 part_swap_pairs(__m256 a) {
  return _mm256_permute_ps(a, 0xb1);
}

// Half as many floats, each twice: a0 a0 a1 a1 ...
LATHE_INLINE __m256 part_load_doubled(const float* p, int64_t n) {
  const __m256i index = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  return _mm256_permutevar8x32_ps(_mm256_maskload_ps(p, first_lanes(n)), index);
}

// 2^floor(n / 2) and 2^(n - floor(n / 2)) for integral n in [-252, 254].
LATHE_INLINE void part_half_powers(__m256 n, __m256& low, __m256& high) {
  const __m256i i = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(i, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  low = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  high = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, half), bias), 23));
}

using HalfWords = __m128i;  // kPartLanes 16-bit words
using Codes = __m128i;      // kPartLanes bytes, in the low half

LATHE_INLINE __m128i words_load(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}

LATHE_INLINE __m128i words_load_first(const void* p, int64_t n) {
  alignas(16) uint16_t words[8] = {};
  for (int64_t i = 0; i < n; ++i) __builtin_memcpy(&words[i], static_cast<const std::byte*>(p) + 2 * i, 2);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(words));
}

LATHE_INLINE void words_store(void* p, __m128i a) {
  _mm_storeu_si128(static_cast<__m128i*>(p), a);
}

LATHE_INLINE void words_store_first(void* p, __m128i a, int64_t n) {
  alignas(16) uint16_t words[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(words), a);
  for (int64_t i = 0; i < n; ++i) __builtin_memcpy(static_cast<std::byte*>(p) + 2 * i, &words[i], 2);
}

LATHE_INLINE __m128i codes_load(const void* p) {
  return _mm_loadl_epi64(static_cast<const __m128i*>(p));
}

LATHE_INLINE __m128i codes_load_first(const void* p, int64_t n) {
  uint64_t codes = 0;
  for (int64_t i = 0; i < n; ++i) codes |= static_cast<uint64_t>(static_cast<const uint8_t*>(p)[i]) << (8 * i);
  return _mm_cvtsi64_si128(static_cast<int64_t>(codes));
}

LATHE_INLINE __m256 part_from_bf16(__m128i a) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16));
}

LATHE_INLINE __m256 part_from_f16(__m128i a) {
  return _mm256_cvtph_ps(a);
}

LATHE_INLINE __m128i part_to_f16(__m256 a) {
  return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

LATHE_INLINE __m128i part_to_bf16(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, quiet, is_nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

// E4M3 codes as f16 patterns of value / 256: the four exponent bits land in f16's five with a bias 8 too small, and the
// f16 subnormals are E4M3's. The NaN codes (all ones) get the missing top exponent bit and so become NaN.
LATHE_INLINE __m128i codes_to_finite_f16(__m128i codes) {
  return _mm_and_si128(_mm_slli_epi16(_mm_cvtepi8_epi16(codes), 7), _mm_set1_epi16(static_cast<int16_t>(0xbfff)));
}

LATHE_INLINE __m128i codes_to_f16(__m128i codes) {
  const __m128i shifted = codes_to_finite_f16(codes);
  const __m128i ones = _mm_set1_epi8(0x7f);
  const __m128i is_nan = _mm_cmpeq_epi8(_mm_and_si128(codes, ones), ones);
  return _mm_or_si128(shifted, _mm_and_si128(_mm_cvtepi8_epi16(is_nan), _mm_set1_epi16(0x4000)));
}

LATHE_INLINE __m256 fold_to_8(const __m256 (&a)[2]) {
  return _mm256_add_ps(a[0], a[1]);
}

LATHE_INLINE __m256 fold_max_to_8(const __m256 (&a)[2]) {
  return _mm256_max_ps(a[0], a[1]);
}

#else
#error "this file needs AVX2, FMA and F16C, or AVX-512"
#endif

// Keeps a value in a register: g++ 12 otherwise folds loads that are used several times into every use, and the load
// units become the limit.
LATHE_INLINE void keep(PartRegister& a) {
  __asm__("" : "+v"(a));
}

// Whether any of n E4M3 codes is NaN.
LATHE_INLINE bool any_e4m3_nan(const std::byte* p, int64_t n) {
  const __m256i ones = _mm256_set1_epi8(0x7f);
  __m256i found = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i));
    found = _mm256_or_si256(found, _mm256_cmpeq_epi8(_mm256_and_si256(codes, ones), ones));
  }
  bool any = _mm256_testz_si256(found, found) == 0;
  for (; i < n; ++i) any |= (static_cast<uint8_t>(p[i]) & 0x7f) == 0x7f;
  return any;
}

// Sum and largest of sixteen lanes, in the order of reduce_add() and reduce_max().
LATHE_INLINE float parts_reduce_add(const PartRegister (&a)[16 / kPartLanes]) {
  const __m256 eight = fold_to_8(a);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

LATHE_INLINE float parts_reduce_max(const PartRegister (&a)[16 / kPartLanes]) {
  const __m256 eight = fold_max_to_8(a);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

LATHE_INLINE float part_first_lane(PartRegister a) {
#if defined(__AVX512F__)
  return _mm512_cvtss_f32(a);
#else
  return _mm256_cvtss_f32(a);
#endif
}

LATHE_INLINE float square_root(float a) {
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(a)));
}

// x where a < b, else y.
LATHE_INLINE PartRegister part_select_below(PartRegister a, PartRegister b, PartRegister x, PartRegister y) {
#if defined(__AVX512F__)
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
#else
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
#endif
}

// A row of a square of floats that is transposed in registers.
constexpr int kSquare = 8;
using SquareRow = __m256;

LATHE_INLINE __m256 square_zero() {
  return _mm256_setzero_ps();
}

LATHE_INLINE __m256 square_load(const float* p) {
  return _mm256_loadu_ps(p);
}

LATHE_INLINE void square_store(float* p, __m256 a) {
  _mm256_storeu_ps(p, a);
}

// Rows and columns of 8 x 8 floats exchanged.
LATHE_INLINE void transpose_square(__m256 (&r)[8]) {
  __m256 pairs[8];
  LATHE_UNROLL
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  __m256 fours[8];
  LATHE_UNROLL
  for (int i = 0; i < 8; i += 4) {
    fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
  LATHE_UNROLL
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
  }
}

}  // namespace
}  // namespace lathe
