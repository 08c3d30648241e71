// At most eight (query, head) pairs with AVX-512, whose registers have sixteen lanes: every pair has two neighbours,
// which take the two halves of what is summed at a time, or belong to two sums.
#pragma once

#include "lathe/kernels/int16-inl.h"
#include "lathe/kernels/lane_tile.h"

#if defined(__AVX512F__)

namespace lathe {
namespace {

// Lanes 0, 0, 1, 1, ... of a and b in turns: a0 b0 a1 b1 ... a7 b7.
LATHE_INLINE __m512i in_turns(__m512i a, __m512i b) {
  const __m512i index = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  return _mm512_permutex2var_epi32(a, index, b);
}

// The same of lanes 8 to 15.
LATHE_INLINE __m512i upper_in_turns(__m512i a, __m512i b) {
  const __m512i index = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  return _mm512_permutex2var_epi32(a, index, b);
}

LATHE_INLINE __m512 in_turns(__m512 a, __m512 b) {
  return _mm512_castsi512_ps(in_turns(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

// The even lanes, then the odd ones.
LATHE_INLINE __m512 even_then_odd(__m512 a) {
  const __m512i index = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  return _mm512_permutexvar_ps(index, a);
}

// The sums of a's neighbours in the even lanes, of b's in the odd ones.
LATHE_INLINE __m512i neighbour_sums(__m512i a, __m512i b) {
  const __m512i kept = _mm512_mask_blend_epi32(0xaaaa, a, b);
  const __m512i moved = _mm512_mask_blend_epi32(0xaaaa, b, a);
  return _mm512_add_epi32(kept, _mm512_shuffle_epi32(moved, _MM_PERM_CDAB));
}

LATHE_INLINE __m512i broadcast_eight(const void* bytes) {
  int64_t eight = 0;
  __builtin_memcpy(&eight, bytes, 8);
  return _mm512_set1_epi64(eight);
}

// Lanes 0 to 7, each twice.
LATHE_INLINE __m512 each_twice(__m512 a) {
  return in_turns(a, a);
}

// Sixteen lanes of a and b in turns, two registers.
LATHE_INLINE void store_in_turns(void* out, __m512i a, __m512i b) {
  auto* to = static_cast<__m512i*>(out);
  _mm512_store_si512(to, in_turns(a, b));
  _mm512_store_si512(to + 1, upper_in_turns(a, b));
}

// The lower halves of two neighbouring rows of lane groups, in turns.
LATHE_INLINE __m512 load_two_rows(const float* rows) {
  return in_turns(_mm512_loadu_ps(rows), _mm512_loadu_ps(rows + kLaneGroup));
}

LATHE_INLINE void store_two_rows(float* rows, __m512 joined) {
  const __m512 apart = even_then_odd(joined);
  _mm256_storeu_ps(rows, _mm512_castps512_ps256(apart));
  _mm256_storeu_ps(rows + kLaneGroup, _mm512_extractf32x8_ps(apart, 1));
}

}  // namespace
}  // namespace lathe

#endif
