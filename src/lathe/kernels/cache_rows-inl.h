// Cache rows (kernels/cache_rows.h) to fp32, and fp32 to q8 rows, written once for every ISA unit (see vec16-inl.h).
#pragma once

#include "lathe/kernels/cache_rows.h"
#include "lathe/kernels/int16-inl.h"
#include "lathe/kernels/ops-inl.h"
#include "lathe/kernels/vec16-inl.h"

namespace lathe {
namespace {

// Codes of a group of 32 as two vectors of floats.
struct GroupValues {
  F32x16 low;   // elements 0..15
  F32x16 high;  // elements 16..31
};

LATHE_INLINE GroupValues q8_codes(const std::byte* codes) {
  GroupValues out;
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    out.low.part[p] = part_from_bytes(codes + p * kPartLanes);
    out.high.part[p] = part_from_bytes(codes + kLanes + p * kPartLanes);
  }
  return out;
}

// Eight pairs of 11 bits are 11 bytes, so pairs 0..7 and 8..15 unpack alike: every lane gets the four bytes that hold
// its pair, shifts and masks. pair / 45 is (pair * 1457) >> 16 for all pairs below 2048.
LATHE_INLINE GroupValues q6_codes(const std::byte* codes) {
#if defined(__aarch64__)
  const uint8x16_t bytes[2] = {{0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 4, 5, 6, 7},
                               {5, 6, 7, 8, 6, 7, 8, 9, 8, 9, 10, 11, 9, 10, 11, 12}};
  const int32x4_t shifts[2] = {{0, -3, -6, -1}, {-4, -7, -2, -5}};  // to the right
  GroupValues out;
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    const uint8x16_t all = vreinterpretq_u8_s32(part_bytes_load(codes + p / 2 * (kQ6GroupBytes / 2)));
    const uint32x4_t four = vreinterpretq_u32_u8(vqtbl1q_u8(all, bytes[p % 2]));
    const int32x4_t pairs = vreinterpretq_s32_u32(vandq_u32(vshlq_u32(four, shifts[p % 2]), vdupq_n_u32(0x7ff)));
    const int32x4_t high = vshrq_n_s32(vmulq_n_s32(pairs, 1457), 16);
    const int32x4_t low = vsubq_s32(pairs, vmulq_n_s32(high, kQ6Levels));
    const int32x4_t middle = vdupq_n_s32(kQ6Levels / 2);
    out.low.part[p] = vcvtq_f32_s32(vsubq_s32(high, middle));
    out.high.part[p] = vcvtq_f32_s32(vsubq_s32(low, middle));
  }
#else
  const auto* from = reinterpret_cast<const __m128i*>(codes);
  const auto* next = reinterpret_cast<const __m128i*>(codes + kQ6GroupBytes / 2);
  const __m256i bytes = _mm256_setr_epi8(
      0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 4, 5, 6, 7, 5, 6, 7, 8, 6, 7, 8, 9, 8, 9, 10, 11, 9, 10, 11, 12);
  const __m256i shifts = _mm256_setr_epi32(0, 3, 6, 1, 4, 7, 2, 5);
  const __m256i first = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(from)), bytes);
  const __m256i second = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(next)), bytes);
  GroupValues out;
#if defined(__AVX512F__)
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
  const __m512i all_shifts = _mm512_broadcast_i64x4(shifts);
  const __m512i pairs = _mm512_and_si512(_mm512_srlv_epi32(both, all_shifts), _mm512_set1_epi32(0x7ff));
  const __m512i high = _mm512_srli_epi32(_mm512_mullo_epi32(pairs, _mm512_set1_epi32(1457)), 16);
  const __m512i low = _mm512_sub_epi32(pairs, _mm512_mullo_epi32(high, _mm512_set1_epi32(kQ6Levels)));
  const __m512i middle = _mm512_set1_epi32(kQ6Levels / 2);
  out.low.part[0] = _mm512_cvtepi32_ps(_mm512_sub_epi32(high, middle));
  out.high.part[0] = _mm512_cvtepi32_ps(_mm512_sub_epi32(low, middle));
#else
  const __m256i halves[2] = {first, second};
  LATHE_UNROLL
  for (int p = 0; p < 2; ++p) {
    const __m256i pairs = _mm256_and_si256(_mm256_srlv_epi32(halves[p], shifts), _mm256_set1_epi32(0x7ff));
    const __m256i high = _mm256_srli_epi32(_mm256_mullo_epi32(pairs, _mm256_set1_epi32(1457)), 16);
    const __m256i low = _mm256_sub_epi32(pairs, _mm256_mullo_epi32(high, _mm256_set1_epi32(kQ6Levels)));
    const __m256i middle = _mm256_set1_epi32(kQ6Levels / 2);
    out.low.part[p] = _mm256_cvtepi32_ps(_mm256_sub_epi32(high, middle));
    out.high.part[p] = _mm256_cvtepi32_ps(_mm256_sub_epi32(low, middle));
  }
#endif
#endif
  return out;
}

// Group `group` of a row of `groups` to 32 floats.
template <CacheFormat kFormat>
LATHE_INLINE void decode_group(const std::byte* row, int64_t groups, int64_t group, float* out) {
  constexpr int64_t kBytes = kFormat == CacheFormat::kQ8 ? kCacheGroup : kQ6GroupBytes;
  const F32x16 scale = half_at(row + groups * kBytes + 2 * group);
  GroupValues codes;
  if constexpr (kFormat == CacheFormat::kQ8) {
    codes = q8_codes(row + group * kBytes);
  } else {
    codes = q6_codes(row + group * kBytes);
  }
  store(out, mul(codes.low, scale));
  store(out + kLanes, mul(codes.high, scale));
}

// Elements [first, first + n) of a row of `groups` groups.
template <CacheFormat kFormat>
LATHE_INLINE void decode_groups(const std::byte* row, int64_t groups, int64_t first, int64_t n, float* out) {
  int64_t done = 0;
  while (done < n) {
    const int64_t group = (first + done) / kCacheGroup;
    const int64_t skip = (first + done) % kCacheGroup;
    if (skip == 0 && n - done >= kCacheGroup) {
      decode_group<kFormat>(row, groups, group, out + done);
      done += kCacheGroup;
      continue;
    }
    alignas(64) float whole[kCacheGroup];
    decode_group<kFormat>(row, groups, group, whole);
    for (int64_t i = skip; i < kCacheGroup && done < n; ++i, ++done) out[done] = whole[i];
  }
}

// Codes of 32 elements, as they are stored, for the inverse of their scale.
LATHE_INLINE void encode_q8_group(const float* x, float inverse, std::byte* codes) {
  constexpr uint64_t kOffset = 0x8080808080808080;
  uint64_t words[kCacheGroup / 8] = {};
  if (inverse > 0.0f) {  // else x may be infinite, which times 0 is no integer
    const F32x16 most = broadcast(127.0f);
    const F32x16 least = broadcast(-127.0f);
    LATHE_UNROLL
    for (int64_t i = 0; i < kCacheGroup; i += kLanes) {
      const F32x16 v = mul(load(x + i), broadcast(inverse));
      store_as_bytes(reinterpret_cast<std::byte*>(words) + i, to_i32(max(min(v, most), least)));
    }
  }
  LATHE_UNROLL
  for (uint64_t& word : words) word ^= kOffset;
  __builtin_memcpy(codes, words, kCacheGroup);
}

// Groups [first, first + count) of a row, at most 16.
LATHE_INLINE void encode_q8_groups(const float* x, int64_t count, std::byte* codes, std::byte* scales) {
  alignas(64) float largest[kLanes] = {};
  for (int64_t g = 0; g < count; ++g) {
    const float most = largest_magnitude(load(x + g * kCacheGroup), load(x + g * kCacheGroup + kLanes));
    largest[g] = most < __builtin_inff() ? most : __builtin_nanf("");
  }
  alignas(64) std::byte halves[2 * kLanes];
  store(largest, div(load(largest), broadcast(127.0f)));
  encode_all<DType::kF16>(largest, halves, kLanes);
  const F32x16 scale = decode<DType::kF16>(halves);
  alignas(64) float inverse[kLanes];
  store(inverse, select_below(zero(), scale, div(broadcast(1.0f), scale), zero()));
  for (int64_t g = 0; g < count; ++g) {
    encode_q8_group(x + g * kCacheGroup, inverse[g], codes + g * kCacheGroup);
    __builtin_memcpy(scales + 2 * g, halves + 2 * g, 2);
  }
}

void encode_q8(const float* x, int64_t elements, std::byte* row) {
  const int64_t groups = (elements + kCacheGroup - 1) / kCacheGroup;
  const int64_t whole = elements / kCacheGroup;
  std::byte* scales = row + groups * kCacheGroup;
  for (int64_t g = 0; g < whole; g += kLanes) {
    const int64_t count = whole - g < kLanes ? whole - g : kLanes;
    encode_q8_groups(x + g * kCacheGroup, count, row + g * kCacheGroup, scales + 2 * g);
  }
  if (whole == groups) return;
  alignas(64) float rest[kCacheGroup] = {};
  for (int64_t i = whole * kCacheGroup; i < elements; ++i) rest[i - whole * kCacheGroup] = x[i];
  encode_q8_groups(rest, 1, row + whole * kCacheGroup, scales + 2 * whole);
}

}  // namespace
}  // namespace lathe
