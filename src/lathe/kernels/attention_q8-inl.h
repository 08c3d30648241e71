// Scores of q8 cache rows with (query, head) pairs in the lanes (kernels/lane_tile.h): bytes of the row, broadcast four
// at a time, against the quantised queries. Written once for every ISA unit; exact integers, so all of them agree.
#pragma once

#include "lathe/kernels/attention-inl.h"
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

// Scores of kQ8Keys rows with one lane group. scales: of block b of key i at scales[i][b], blocks [begin, end).
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
        for (int p = 0; p < kParts; ++p) part_dot_wide(dot[i].part[p], key, x.part[p]);
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
        words_dot(dot[i], even, part_broadcast_four(key));
        words_dot(dot[i], odd, part_broadcast_four(key + kCacheGroup));
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

void lane_scores_q8(const LaneScoresQ8Args& a) {
  const int64_t groups = (a.elements + kCacheGroup - 1) / kCacheGroup;
  const int64_t stride = groups * (kCacheGroup + 2);
  Ahead ahead(a.ahead, (a.keys + kQ8Keys - 1) / kQ8Keys);
  for (int64_t key = 0; key < a.keys; key += kQ8Keys) {
    // Keys past the end repeat the last one; their scores are cleared below.
    const std::byte* codes[kQ8Keys];
    const std::byte* halves[kQ8Keys];
    LATHE_UNROLL
    for (int i = 0; i < kQ8Keys; ++i) {
      const std::byte* row = a.rows + (key + i < a.keys ? key + i : a.keys - 1) * stride;
      codes[i] = row + a.first;
      halves[i] = row + groups * kCacheGroup + a.first / kCacheGroup * 2;
    }
    ahead.next();
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
          score_q8_rows(codes, scales, begin, end, q, scores);
        } else {
          score_q8_words(words, scales, begin, end, q, scores);
        }
      }
    }
  }
  for (int64_t g = 0; g < a.groups; ++g) {
    for (int64_t key = a.keys; key < (a.keys + 15) / 16 * 16; ++key) {
      store(a.scores + g * kLaneScores + key * kLaneGroup, zero());
    }
  }
}

}  // namespace
}  // namespace lathe
