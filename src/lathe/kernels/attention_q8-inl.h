// Scores of q8 cache rows with (query, head) pairs in the lanes (kernels/lane_tile.h): bytes of the row, broadcast four
// at a time, against the quantised queries. Written once for every ISA unit; exact integers, so all of them agree.
#pragma once

#include "lathe/kernels/attention-inl.h"
#include "lathe/kernels/half_lanes-inl.h"
#include "lathe/kernels/int16-inl.h"
#include "lathe/kernels/kernel_table.h"

namespace lathe {
namespace {

#if defined(__AVX512F__)
constexpr int kQ8Keys = 8;  // keys in flight
#else
constexpr int kQ8Keys = kHasByteDot ? 2 : 4;
#endif
constexpr int64_t kLaneCodeBytes = kCacheGroup * kLaneGroup;
constexpr int64_t kScaleBlocks = 16;              // blocks that are converted at a time
constexpr int64_t kBlockWords = 2 * kCacheGroup;  // bytes of a block as words: even columns, then odd ones

// One block of a lane group: q holds its 32 columns.
LATHE_INLINE void quantise_lane_block(const float* q, std::byte* out) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    const float* from = q + p * kPartLanes;
    PartRegister most = part_zero();
    PartRegister spoiled = part_zero();  // NaN when a value is not finite
    for (int64_t c = 0; c < kCacheGroup; ++c) {
      const PartRegister v = part_load(from + c * kLaneGroup);
      most = part_max(part_magnitude(v), most);
      spoiled = part_fma(v, part_zero(), spoiled);
    }
    const PartRegister least = part_set(kLeastLaneMagnitude);
    const PartRegister scale = part_select_below(most, least, part_zero(), part_div(most, part_set(127.0f)));
    PartRegister inverse = part_select_below(most, least, part_zero(), part_div(part_set(127.0f), most));
    // Where a value is not finite the codes are zeros: `spoiled` is not 0 there.
    const PartRegister finite = part_select_below(part_magnitude(spoiled), least, part_set(1.0f), part_zero());
    IntRegister sum = part_i32_set(0);
    for (int64_t c = 0; c < kCacheGroup; c += 4) {
      IntRegister code[4];
      LATHE_UNROLL
      for (int64_t i = 0; i < 4; ++i) {
        const PartRegister v = part_load(from + (c + i) * kLaneGroup);
        const PartRegister kept = part_select_below(part_zero(), finite, part_mul(v, inverse), part_zero());
        code[i] = part_to_i32(kept);
        sum = part_i32_add(sum, code[i]);
      }
      part_i32_store(out + c * kLaneGroup + p * kPartBytes, part_pack_four(code[0], code[1], code[2], code[3]));
    }
    part_store(out + kLaneCodeBytes + p * kPartBytes, part_add(scale, spoiled));
    part_i32_store(out + kLaneCodeBytes + 4 * kLaneGroup + p * kPartBytes, part_i32_mul(sum, part_i32_set(-128)));
  }
}

void lane_quantise(const LaneQuantiseArgs& a) {
  int64_t column = 0;
  std::byte* out = a.out;
  for (; column + kCacheGroup <= a.cols; column += kCacheGroup, out += kLaneBlockBytes) {
    quantise_lane_block(a.q + column * kLaneGroup, out);
  }
  if (column == a.cols) return;
  alignas(64) float rest[kCacheGroup * kLaneGroup];
  const int64_t floats = (a.cols - column) * kLaneGroup;
  for (int64_t i = 0; i < kCacheGroup * kLaneGroup; ++i) rest[i] = i < floats ? a.q[column * kLaneGroup + i] : 0.0f;
  quantise_lane_block(rest, out);
}

// Scores of kQ8Keys rows with one lane group, in the first kUsed parts of the lanes. scales: of block b of key i at
// scales[i][b], blocks [begin, end).
template <int kUsed>
LATHE_INLINE void score_q8_rows(const std::byte* const (&codes)[kQ8Keys],
                                const float (&scales)[kQ8Keys][kScaleBlocks],
                                int64_t begin,
                                int64_t end,
                                const std::byte* q,
                                float* scores) {
  F32x16 sum[kQ8Keys];
  LATHE_UNROLL
  for (int i = 0; i < kQ8Keys; ++i) sum[i] = begin == 0 ? zero() : load(scores + i * kLaneGroup);
  for (int64_t b = begin; b < end; ++b) {
    const std::byte* block = q + b * kLaneBlockBytes;
    I32x16 dot[kQ8Keys];
    LATHE_UNROLL
    for (int p = 0; p < kParts; ++p) {
      const IntRegister offset =
          kOffsetInDot ? part_i32_set(0) : part_bytes_load(block + kLaneCodeBytes + 4 * kLaneGroup + p * kPartBytes);
      LATHE_UNROLL
      for (int i = 0; i < kQ8Keys; ++i) dot[i].part[p] = offset;
    }
    LATHE_UNROLL
    for (int64_t four = 0; four < kCacheGroup / 4; ++four) {
      const GroupBytes x = group_load(block + four * 4 * kLaneGroup);
      LATHE_UNROLL
      for (int i = 0; i < kQ8Keys; ++i) {
        const IntRegister key = part_broadcast_four(codes[i] + b * kCacheGroup + four * 4);
        LATHE_UNROLL
        for (int p = 0; p < kUsed; ++p) part_dot_wide(dot[i].part[p], key, x.part[p]);
      }
    }
    const F32x16 scale = load(reinterpret_cast<const float*>(block + kLaneCodeBytes));
    LATHE_UNROLL
    for (int i = 0; i < kQ8Keys; ++i) {
      sum[i] = fma(to_f32(dot[i]), mul(broadcast(scales[i][b - begin]), scale), sum[i]);
    }
  }
  LATHE_UNROLL
  for (int i = 0; i < kQ8Keys; ++i) store(scores + i * kLaneGroup, sum[i]);
}

// The same from rows as words, blocks [begin, end) of key i at words[i]: for processors without dot products of bytes.
// What a block of queries takes to become words serves all keys.
template <int kUsed>
LATHE_INLINE void score_q8_words(const std::byte (&words)[kQ8Keys][kScaleBlocks * kBlockWords],
                                 const float (&scales)[kQ8Keys][kScaleBlocks],
                                 int64_t begin,
                                 int64_t end,
                                 const std::byte* q,
                                 float* scores) {
  for (int64_t b = begin; b < end; ++b) {
    const std::byte* block = q + b * kLaneBlockBytes;
    I32x16 dot[kQ8Keys];
    LATHE_UNROLL
    for (int p = 0; p < kParts; ++p) {
      const IntRegister offset = part_bytes_load(block + kLaneCodeBytes + 4 * kLaneGroup + p * kPartBytes);
      LATHE_UNROLL
      for (int i = 0; i < kQ8Keys; ++i) dot[i].part[p] = offset;
    }
    for (int64_t four = 0; four < kCacheGroup / 4; ++four) {
      const GroupBytes x = group_load(block + four * 4 * kLaneGroup);
      GroupBytes even;
      GroupBytes odd;
      group_to_words(x, even, odd);
      LATHE_UNROLL
      for (int i = 0; i < kQ8Keys; ++i) {
        const std::byte* key = words[i] + (b - begin) * kBlockWords + four * 4;
        const IntRegister first = part_broadcast_four(key);
        const IntRegister second = part_broadcast_four(key + kCacheGroup);
        LATHE_UNROLL
        for (int p = 0; p < kUsed; ++p) {
          part_words_dot(dot[i].part[p], even.part[p], first);
          part_words_dot(dot[i].part[p], odd.part[p], second);
        }
      }
    }
    const F32x16 scale = load(reinterpret_cast<const float*>(block + kLaneCodeBytes));
    LATHE_UNROLL
    for (int i = 0; i < kQ8Keys; ++i) {
      const F32x16 sum = b == 0 ? zero() : load(scores + i * kLaneGroup);
      store(scores + i * kLaneGroup, fma(to_f32(dot[i]), mul(broadcast(scales[i][b - begin]), scale), sum));
    }
  }
}

// Calls score(key, codes, halves) for every kQ8Keys rows from `key` on: where they have their codes and scales, past
// the end the last row again. Between the calls it asks for what is read next.
template <class Score>
LATHE_INLINE void for_rows(const LaneScoresQ8Args& a, const Score& score) {
  const int64_t groups = (a.elements + kCacheGroup - 1) / kCacheGroup;
  const int64_t stride = groups * (kCacheGroup + 2);
  Ahead ahead(a.ahead, (a.keys + kQ8Keys - 1) / kQ8Keys);
  for (int64_t key = 0; key < a.keys; key += kQ8Keys) {
    const std::byte* codes[kQ8Keys];
    const std::byte* halves[kQ8Keys];
    LATHE_UNROLL
    for (int i = 0; i < kQ8Keys; ++i) {
      const std::byte* row = a.rows + (key + i < a.keys ? key + i : a.keys - 1) * stride;
      codes[i] = row + a.first;
      halves[i] = row + groups * kCacheGroup + a.first / kCacheGroup * 2;
    }
    ahead.next();
    score(key, codes, halves);
  }
}

#if defined(__AVX512VNNI__)

// Blocks [begin, end) of kQ8Keys keys. scales: of blocks of pairs of keys, in turns. sums: of pairs of keys, in turns.
LATHE_INLINE void score_half_q8_rows(const std::byte* const (&codes)[kQ8Keys],
                                     const float (&scales)[kQ8Keys / 2][2 * kScaleBlocks],
                                     int64_t begin,
                                     int64_t end,
                                     const std::byte* q,
                                     __m512 (&sums)[kQ8Keys / 2]) {
  for (int64_t b = begin; b < end; ++b) {
    const std::byte* block = q + b * kLaneBlockBytes;
    const __m512i offset =
        in_turns(_mm512_loadu_si512(block + kLaneCodeBytes + 4 * kLaneGroup), _mm512_setzero_si512());
    __m512i dot[kQ8Keys];
    LATHE_UNROLL
    for (int i = 0; i < kQ8Keys; ++i) dot[i] = offset;
    LATHE_UNROLL
    for (int64_t eight = 0; eight < kCacheGroup / 8; ++eight) {
      const std::byte* x = block + eight * 8 * kLaneGroup;
      const __m512i both = in_turns(_mm512_loadu_si512(x), _mm512_loadu_si512(x + 4 * kLaneGroup));
      LATHE_UNROLL
      for (int i = 0; i < kQ8Keys; ++i) {
        part_dot_wide(dot[i], broadcast_eight(codes[i] + b * kCacheGroup + eight * 8), both);
      }
    }
    const __m512 scale = each_twice(_mm512_loadu_ps(block + kLaneCodeBytes));
    LATHE_UNROLL
    for (int i = 0; i < kQ8Keys / 2; ++i) {
      const __m512 d = _mm512_castsi512_ps(broadcast_eight(scales[i] + 2 * (b - begin)));
      const __m512 sum = _mm512_cvtepi32_ps(neighbour_sums(dot[2 * i], dot[2 * i + 1]));
      sums[i] = _mm512_fmadd_ps(sum, _mm512_mul_ps(d, scale), sums[i]);
    }
  }
}

// lane_scores_q8 for one group of at most eight lanes.
LATHE_INLINE void score_half_q8_keys(const LaneScoresQ8Args& a) {
  const auto score = [&](int64_t key, const std::byte* const(&codes)[kQ8Keys], const std::byte* const(&halves)[kQ8Keys])
      __attribute__((always_inline)) {
    __m512 sums[kQ8Keys / 2];
    LATHE_UNROLL
    for (int i = 0; i < kQ8Keys / 2; ++i) sums[i] = _mm512_setzero_ps();
    for (int64_t begin = 0; begin < a.blocks; begin += kScaleBlocks) {
      const int64_t end = begin + kScaleBlocks < a.blocks ? begin + kScaleBlocks : a.blocks;
      alignas(64) float scales[kQ8Keys / 2][2 * kScaleBlocks];
      LATHE_UNROLL
      for (int i = 0; i < kQ8Keys / 2; ++i) {
        const F32x16 first = decode_some<DType::kF16>(halves[2 * i] + begin * 2, end - begin);
        const F32x16 second = decode_some<DType::kF16>(halves[2 * i + 1] + begin * 2, end - begin);
        store_in_turns(scales[i], _mm512_castps_si512(first.part[0]), _mm512_castps_si512(second.part[0]));
      }
      score_half_q8_rows(codes, scales, begin, end, a.q, sums);
    }
    LATHE_UNROLL
    for (int i = 0; i < kQ8Keys / 2; ++i) store_two_rows(a.scores + (key + 2 * i) * kLaneGroup, sums[i]);
  };
  for_rows(a, score);
}

#endif

template <int kUsed>
LATHE_INLINE void score_q8_keys(const LaneScoresQ8Args& a) {
  const auto score = [&](int64_t key, const std::byte* const(&codes)[kQ8Keys], const std::byte* const(&halves)[kQ8Keys])
      __attribute__((always_inline)) {
    for (int64_t begin = 0; begin < a.blocks; begin += kScaleBlocks) {
      const int64_t end = begin + kScaleBlocks < a.blocks ? begin + kScaleBlocks : a.blocks;
      alignas(64) float scales[kQ8Keys][kScaleBlocks];
      LATHE_UNROLL
      for (int i = 0; i < kQ8Keys; ++i) {
        const std::byte* from = halves[i] + begin * 2;
        store(scales[i], decode_some<DType::kF16>(from, end - begin));
      }
      alignas(64) std::byte words[kQ8Keys][kScaleBlocks * kBlockWords];
      if constexpr (!kHasByteDot) {
        for (int i = 0; i < kQ8Keys; ++i) {
          for (int64_t b = begin; b < end; ++b) {
            block_to_unsigned_words(codes[i] + b * kCacheGroup, words[i] + (b - begin) * kBlockWords);
          }
        }
      }
      for (int64_t g = 0; g < a.groups; ++g) {
        const std::byte* q = a.q + g * a.q_stride;
        float* scores = a.scores + g * kLaneScores + key * kLaneGroup;
        if constexpr (kHasByteDot) {
          score_q8_rows<kUsed>(codes, scales, begin, end, q, scores);
        } else {
          score_q8_words<kUsed>(words, scales, begin, end, q, scores);
        }
      }
    }
  };
  for_rows(a, score);
}

void lane_scores_q8(const LaneScoresQ8Args& a) {
  if (a.groups > 1 || a.lanes > kLaneGroup / 2) {
    score_q8_keys<kParts>(a);
  } else {
#if defined(__AVX512VNNI__)
    score_half_q8_keys(a);
#else
    score_q8_keys<kHalfParts>(a);
#endif
  }
  for (int64_t g = 0; g < a.groups; ++g) {
    for (int64_t key = a.keys; key < (a.keys + 15) / 16 * 16; ++key) {
      store(a.scores + g * kLaneScores + key * kLaneGroup, zero());
    }
  }
}

}  // namespace
}  // namespace lathe
