// Values of q8 cache rows with (query, head) pairs in the lanes (kernels/lane_tile.h): softmax weights as words, two
// keys in a lane, against the codes of these keys, broadcast two at a time. Written once for every ISA unit; exact
// integers, so all of them agree: 64 products of 15 and 7 bits stay below 2^28.
#pragma once

#include "lathe/kernels/attention-inl.h"
#include "lathe/kernels/attention_q8-inl.h"
#include "lathe/kernels/half_lanes-inl.h"
#include "lathe/kernels/int16-inl.h"
#include "lathe/kernels/kernel_table.h"

namespace lathe {
namespace {

constexpr int64_t kTilePairs = kTileKeys / 2;                  // pairs of keys
constexpr int64_t kPairBytes = kCacheGroup * 4;                // codes of a pair in one block
constexpr int64_t kWeightBytes = kTilePairs * kLaneGroup * 4;  // words of one lane group
#if defined(__AVX512F__)
constexpr int kValueColumns = 16;  // accumulators of one lane group
constexpr int kPassColumns = 8;    // of each of two
#else
constexpr int kValueColumns = 4;
constexpr int kPassColumns = 4;
#endif

// What multiplies the integer sums of one lane group and block.
struct LaneSteps {
  F32x16 step;    // m D / 32767
  F32x16 factor;  // what was accumulated before
};

// The largest weight of every lane and whatever makes a lane NaN; the weights are divided by the largest.
LATHE_INLINE void normalise_weights(float* weights, int64_t keys, float* largest, float* spoiled) {
  F32x16 most = zero();
  F32x16 bad = zero();
  for (int64_t key = 0; key < keys; ++key) {
    const F32x16 w = load(weights + key * kLaneGroup);
    most = max(w, most);
    bad = add(bad, mul(w, zero()));
  }
  const F32x16 least = broadcast(kLeastLaneWeight);
  const F32x16 inverse = select_below(most, least, zero(), div(broadcast(1.0f), most));
  for (int64_t key = 0; key < keys; ++key) {
    float* w = weights + key * kLaneGroup;
    store(w, mul(load(w), inverse));
  }
  store(largest, most);
  store(spoiled, bad);
}

// Scales of blocks [begin, end) of the keys of a tile, and what lanes that see all of these keys need: every scale as a
// multiple of the largest of its block, D = 32767.
struct TileScales {
  alignas(64) float d[kTileKeys][kScaleBlocks];
  alignas(64) float ratio[kTileKeys][kScaleBlocks];
  alignas(64) float step[kScaleBlocks];     // D / 32767
  alignas(64) float spoiled[kScaleBlocks];  // NaN where a scale is not finite
};

LATHE_INLINE F32x16 ratio_of_largest(F32x16 largest) {
  return select_below(zero(), largest, div(broadcast(kMostLaneWeight), largest), zero());
}

LATHE_INLINE void load_tile_scales(
    const std::byte* halves, int64_t stride, int64_t keys, int64_t begin, int64_t end, TileScales& out) {
  F32x16 most = zero();
  F32x16 bad = zero();
  for (int64_t key = 0; key < keys; ++key) {
    const std::byte* from = halves + key * stride + begin * 2;
    const F32x16 d = decode_some<DType::kF16>(from, end - begin);
    most = max(d, most);
    bad = add(bad, mul(d, zero()));
    store(out.d[key], d);
  }
  const F32x16 to_integer = ratio_of_largest(most);
  for (int64_t key = 0; key < keys; ++key) store(out.ratio[key], mul(load(out.d[key]), to_integer));
  store(out.step, div(most, broadcast(kMostLaneWeight)));
  store(out.spoiled, bad);
}

// Words of a lane group, two keys in a lane, an odd last key with 0 beside it. ratio(key): in every lane.
template <class Ratio>
LATHE_INLINE void make_words(const float* weights, int64_t keys, const Ratio& ratio, std::byte* words) {
  for (int64_t key = 0; key < keys; key += 2, words += kLaneGroup * 4) {
    const float* w = weights + key * kLaneGroup;
    const I32x16 first = to_i32(mul(load(w), ratio(key)));
    const I32x16 second = key + 1 < keys ? to_i32(mul(load(w + kLaneGroup), ratio(key + 1))) : i32_set(0);
    group_store(words, pack_words(first, second));
  }
}

// D / 32767 of block `block`, and NaN where a scale is not finite.
struct BlockStep {
  F32x16 step;
  F32x16 spoiled;
};

// The words of a block for lanes that see all keys.
LATHE_INLINE BlockStep
make_full_words(const float* weights, const TileScales& scales, int64_t block, int64_t keys, std::byte* words) {
  const auto ratio = [&](int64_t key) __attribute__((always_inline)) {
    return broadcast(scales.ratio[key][block]);
  };
  make_words(weights, keys, ratio, words);
  return {broadcast(scales.step[block]), broadcast(scales.spoiled[block])};
}

// The same where D depends on the lane: of the keys below `visible`, so that those which it does not see change
// nothing.
LATHE_INLINE BlockStep make_partial_words(
    const float* weights, const TileScales& scales, int64_t block, int64_t keys, F32x16 visible, std::byte* words) {
  F32x16 most = zero();
  F32x16 bad = zero();
  for (int64_t key = 0; key < keys; ++key) {
    const F32x16 d = broadcast(scales.d[key][block]);
    const F32x16 seen = select_below(broadcast(static_cast<float>(key)), visible, d, zero());
    most = max(seen, most);
    bad = add(bad, mul(seen, zero()));
  }
  const F32x16 to_integer = ratio_of_largest(most);
  const auto ratio = [&](int64_t key) __attribute__((always_inline)) {
    return mul(broadcast(scales.d[key][block]), to_integer);
  };
  make_words(weights, keys, ratio, words);
  return {div(most, broadcast(kMostLaneWeight)), bad};
}

// kColumns columns of kGroups lane groups, in the first kUsed parts of the lanes.
template <int kColumns, int kGroups, int kUsed>
LATHE_INLINE void add_columns_q8(const std::byte* codes,
                                 const std::byte* words,
                                 int64_t pairs,
                                 const LaneSteps (&steps)[kGroups],
                                 float* out,
                                 int64_t out_stride) {
  I32x16 sum[kColumns][kGroups];
  LATHE_UNROLL
  for (int i = 0; i < kColumns; ++i) {
    LATHE_UNROLL
    for (int g = 0; g < kGroups; ++g) sum[i][g] = i32_set(0);
  }
  for (int64_t pair = 0; pair < pairs; ++pair) {
    GroupBytes w[kGroups];
    LATHE_UNROLL
    for (int g = 0; g < kGroups; ++g) w[g] = group_load(words + g * kWeightBytes + pair * kLaneGroup * 4);
    LATHE_UNROLL
    for (int i = 0; i < kColumns; ++i) {
      const IntRegister code = part_broadcast_four(codes + pair * kPairBytes + i * 4);
      LATHE_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        LATHE_UNROLL
        for (int p = 0; p < kUsed; ++p) part_words_dot(sum[i][g].part[p], w[g].part[p], code);
      }
    }
  }
  LATHE_UNROLL
  for (int i = 0; i < kColumns; ++i) {
    LATHE_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      float* to = out + g * out_stride + i * kLaneGroup;
      store(to, fma(to_f32(sum[i][g]), steps[g].step, mul(load(to), steps[g].factor)));
    }
  }
}

#if defined(__AVX512F__)

constexpr int kHalfColumns = 16;                 // accumulators of half a lane group
constexpr int64_t kQuadBytes = kCacheGroup * 8;  // codes of four keys in one block

// The codes of a pair of keys and those of the next pair, as interleave_codes makes them, column by column.
LATHE_INLINE void join_pairs(std::byte* pairs) {
  const __m512i a = _mm512_load_si512(pairs);
  const __m512i b = _mm512_load_si512(pairs + 64);
  const __m512i c = _mm512_load_si512(pairs + kPairBytes);
  const __m512i d = _mm512_load_si512(pairs + kPairBytes + 64);
  store_in_turns(pairs, a, c);
  store_in_turns(pairs + 128, b, d);
}

// kHalfColumns columns; words as make_words makes them.
LATHE_INLINE void add_half_columns_q8(
    const std::byte* codes, const std::byte* words, int64_t quads, __m512 step, __m512 factor, float* out) {
  __m512i sum[kHalfColumns];
  LATHE_UNROLL
  for (int i = 0; i < kHalfColumns; ++i) sum[i] = _mm512_setzero_si512();
  for (int64_t quad = 0; quad < quads; ++quad) {
    const std::byte* from = words + quad * 8 * kLaneGroup;
    const __m512i w = in_turns(_mm512_load_si512(from), _mm512_load_si512(from + 4 * kLaneGroup));
    LATHE_UNROLL
    for (int i = 0; i < kHalfColumns; ++i) {
      part_words_dot(sum[i], w, broadcast_eight(codes + quad * kQuadBytes + i * 8));
    }
  }
  LATHE_UNROLL
  for (int i = 0; i < kHalfColumns; i += 2) {
    float* to = out + i * kLaneGroup;
    const __m512 sums = _mm512_cvtepi32_ps(neighbour_sums(sum[i], sum[i + 1]));
    store_two_rows(to, _mm512_fmadd_ps(sums, step, _mm512_mul_ps(load_two_rows(to), factor)));
  }
}

#endif

// Lane groups that share a block's codes: at most so many.
constexpr int64_t kSharedGroups = 8;

// What is kept of the weights of up to kSharedGroups lane groups.
struct WeightRanges {
  alignas(64) float largest[kSharedGroups][kLaneGroup];
  alignas(64) float spoiled[kSharedGroups][kLaneGroup];  // NaN where a weight is not finite
  bool full[kSharedGroups];                              // lanes see all keys or none
};

LATHE_INLINE bool see_all_or_none(const int32_t* visible, int64_t keys) {
  bool all = true;
  for (int64_t lane = 0; lane < kLaneGroup; ++lane) all = all && (visible[lane] == 0 || visible[lane] == keys);
  return all;
}

// The words of a block for one lane group, and what their sums stand for.
LATHE_INLINE LaneSteps make_group_words(const LaneValuesQ8Args& a,
                                        int64_t first_group,
                                        int64_t group,
                                        const WeightRanges& ranges,
                                        const TileScales& scales,
                                        int64_t block,
                                        std::byte* words) {
  const int64_t in_chunk = block % kScaleBlocks;
  const int64_t at = first_group + group;
  const float* weights = a.weights + at * kLaneScores;
  const BlockStep block_step =
      ranges.full[group]
          ? make_full_words(weights, scales, in_chunk, a.keys, words)
          : make_partial_words(weights, scales, in_chunk, a.keys, load_integers(a.visible + at * kLaneGroup), words);
  return {add(mul(load(ranges.largest[group]), block_step.step), add(block_step.spoiled, load(ranges.spoiled[group]))),
          load(a.factor + at * kLaneGroup)};
}

// All columns of a block of kGroups lane groups from `group` on.
template <int kColumns, int kGroups, int kUsed>
LATHE_INLINE void add_groups_q8(const LaneValuesQ8Args& a,
                                int64_t first_group,
                                int64_t group,
                                const WeightRanges& ranges,
                                const TileScales& scales,
                                int64_t block,
                                const std::byte* codes) {
  alignas(64) std::byte words[kGroups * kWeightBytes];
  LaneSteps steps[kGroups];
  LATHE_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    steps[g] = make_group_words(a, first_group, group + g, ranges, scales, block, words + g * kWeightBytes);
  }
  float* out = a.out + (first_group + group) * a.out_stride + block * kCacheGroup * kLaneGroup;
  for (int64_t c = 0; c < kCacheGroup; c += kColumns) {
    add_columns_q8<kColumns, kGroups, kUsed>(
        codes + c * 4, words, (a.keys + 1) / 2, steps, out + c * kLaneGroup, a.out_stride);
  }
}

// The same of one group with at most eight lanes; makes other codes of `codes`.
LATHE_INLINE void add_half_group_q8(
    const LaneValuesQ8Args& a, const WeightRanges& ranges, const TileScales& scales, int64_t block, std::byte* codes) {
#if defined(__AVX512F__)
  alignas(64) std::byte words[kWeightBytes];
  const LaneSteps steps = make_group_words(a, 0, 0, ranges, scales, block, words);
  const int64_t pairs = (a.keys + 1) / 2;
  const int64_t quads = (pairs + 1) / 2;
  if (pairs % 2 != 0) _mm512_store_si512(words + pairs * kLaneGroup * 4, _mm512_setzero_si512());
  for (int64_t quad = 0; quad < quads; ++quad) join_pairs(codes + quad * kQuadBytes);
  float* out = a.out + block * kCacheGroup * kLaneGroup;
  for (int64_t c = 0; c < kCacheGroup; c += kHalfColumns) {
    add_half_columns_q8(codes + c * 8,
                        words,
                        quads,
                        each_twice(steps.step.part[0]),
                        each_twice(steps.factor.part[0]),
                        out + c * kLaneGroup);
  }
#else
  add_groups_q8<kValueColumns, 1, kHalfParts>(a, 0, 0, ranges, scales, block, codes);
#endif
}

void lane_values_q8(const LaneValuesQ8Args& a) {
  const int64_t row_groups = (a.elements + kCacheGroup - 1) / kCacheGroup;
  const int64_t stride = row_groups * (kCacheGroup + 2);
  const std::byte* halves = a.rows + row_groups * kCacheGroup + a.first / kCacheGroup * 2;
  const bool half = a.groups == 1 && a.lanes <= kLaneGroup / 2;
  alignas(64) std::byte codes[kTilePairs * kPairBytes];
  WeightRanges ranges;
  TileScales scales;
  Ahead ahead(a.ahead, (a.groups + kSharedGroups - 1) / kSharedGroups * a.blocks);
  for (int64_t first_group = 0; first_group < a.groups; first_group += kSharedGroups) {
    const int64_t count = a.groups - first_group < kSharedGroups ? a.groups - first_group : kSharedGroups;
    for (int64_t g = 0; g < count; ++g) {
      normalise_weights(a.weights + (first_group + g) * kLaneScores, a.keys, ranges.largest[g], ranges.spoiled[g]);
      ranges.full[g] = see_all_or_none(a.visible + (first_group + g) * kLaneGroup, a.keys);
    }
    for (int64_t block = 0; block < a.blocks; ++block) {
      if (block % kScaleBlocks == 0) {
        const int64_t end = block + kScaleBlocks < a.blocks ? block + kScaleBlocks : a.blocks;
        load_tile_scales(halves, stride, a.keys, block, end, scales);
      }
      ahead.next();
      for (int64_t key = 0; key < a.keys; key += 2) {
        const std::byte* row = a.rows + key * stride + a.first + block * kCacheGroup;
        interleave_codes(row, key + 1 < a.keys ? row + stride : row, codes + key / 2 * kPairBytes);
      }
      int64_t group = 0;
      for (; group + 2 <= count; group += 2) {
        add_groups_q8<kPassColumns, 2, kParts>(a, first_group, group, ranges, scales, block, codes);
      }
      if (group == count) continue;
      if (half) {
        add_half_group_q8(a, ranges, scales, block, codes);
      } else {
        add_groups_q8<kValueColumns, 1, kParts>(a, first_group, group, ranges, scales, block, codes);
      }
    }
  }
}

}  // namespace
}  // namespace lathe
