// Attention with (query, head) pairs in the lanes (kernels/lane_tile.h), written once for every ISA unit (see
// vec16-inl.h). A score and an output column are one accumulator per lane group; how many of them are alive together
// changes no bit.
#pragma once

#include "lathe/kernels/ahead-inl.h"
#include "lathe/kernels/attention_half-inl.h"
#include "lathe/kernels/cache_rows-inl.h"
#include "lathe/kernels/int16-inl.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/kernels/ops-inl.h"

namespace lathe {
namespace {

// Accumulators (keys or columns) x lane groups that fill the registers.
#if defined(__AVX512F__)
constexpr int kPairRows = 8;  // with two lane groups
#endif
constexpr int kHalfParts = kParts > 1 ? kParts / 2 : 1;

// Calls block<kRows, kGroups, kUsed>(group, row) for all `rows` (a multiple of 16) of `groups` lane groups, as many
// rows and groups together as fill the registers; kUsed parts of the lanes are in use. Between the calls it asks for
// `soon`.
template <class Block>
LATHE_INLINE void for_lane_blocks(
    int64_t groups, int64_t rows, int64_t lanes, const SoonRead& soon, const Block& block) {
  const int64_t tiles = rows / 16;
  if (kParts > 1 && lanes <= kLaneGroup / 2) {
    Ahead ahead(soon, groups * tiles * 2);
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t row = 0; row < rows; row += 8) {
        ahead.next();
        block.template operator()<8, 1, kHalfParts>(group, row);
      }
    }
    return;
  }
  int64_t group = 0;
#if defined(__AVX512F__)
  Ahead ahead(soon, tiles * (groups / 2 * (16 / kPairRows) + groups % 2));
  for (; group + 2 <= groups; group += 2) {
    for (int64_t row = 0; row < rows; row += kPairRows) {
      ahead.next();
      block.template operator()<kPairRows, 2, kParts>(group, row);
    }
  }
#else
  Ahead ahead(soon, tiles * groups * 3);
#endif
  for (; group < groups; ++group) {
    for (int64_t row = 0; row < rows; row += 16) {
      ahead.next();
#if defined(__AVX512F__)
      block.template operator()<16, 1, kParts>(group, row);
#else
      block.template operator()<6, 1, kParts>(group, row);
      ahead.next();
      block.template operator()<6, 1, kParts>(group, row + 6);
      ahead.next();
      block.template operator()<4, 1, kParts>(group, row + 12);
#endif
    }
  }
}

// acc[i][g] += sum over k of b[i * row_step + k * step] * x[g * x_stride + 16 k + lane] in ascending k, in the
// first kUsed parts of the lanes.
template <int kRows, int kGroups, int kUsed, int64_t kRowStep, int64_t kStep>
LATHE_INLINE void lane_products(
    F32x16 (&acc)[kRows][kGroups], const float* b, const float* x, int64_t x_stride, int64_t n) {
  for (int64_t k = 0; k < n; ++k) {
    F32x16 lanes[kGroups];
    LATHE_UNROLL
    for (int g = 0; g < kGroups; ++g) lanes[g] = load(x + g * x_stride + k * kLaneGroup);
    LATHE_UNROLL
    for (int i = 0; i < kRows; ++i) {
      PartRegister value = part_set(b[i * kRowStep + k * kStep]);
      // A broadcast that only one product uses is folded into it.
      if constexpr (kGroups * kUsed > 1) keep(value);
      LATHE_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        LATHE_UNROLL
        for (int p = 0; p < kUsed; ++p) {
          acc[i][g].part[p] = part_fma(value, lanes[g].part[p], acc[i][g].part[p]);
        }
      }
    }
  }
}

// Scores of kRows keys from `key`, kGroups lane groups from `group`.
template <int kRows, int kGroups, int kUsed>
LATHE_INLINE void score_block(const LaneScoresArgs& a, int64_t group, int64_t key) {
  F32x16 acc[kRows][kGroups];
  float* scores = a.scores + group * kLaneScores + key * kLaneGroup;
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) {
    LATHE_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      acc[i][g] = a.accumulate ? load(scores + g * kLaneScores + i * kLaneGroup) : zero();
    }
  }
  lane_products<kRows, kGroups, kUsed, kStripColumns, 1>(
      acc, a.strip + key * kStripColumns, a.q + group * a.q_stride, a.q_stride, a.cols);
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) {
    LATHE_UNROLL
    for (int g = 0; g < kGroups; ++g) store(scores + g * kLaneScores + i * kLaneGroup, acc[i][g]);
  }
}

// Output columns [column, column + kRows) of kGroups lane groups from `group`.
template <int kRows, int kGroups, int kUsed>
LATHE_INLINE void value_block(const LaneValuesArgs& a, int64_t group, int64_t column) {
  F32x16 acc[kRows][kGroups];
  float* out = a.out + group * a.out_stride + column * kLaneGroup;
  LATHE_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    const F32x16 factor = load(a.factor + (group + g) * kLaneGroup);
    LATHE_UNROLL
    for (int i = 0; i < kRows; ++i) acc[i][g] = mul(load(out + g * a.out_stride + i * kLaneGroup), factor);
  }
  lane_products<kRows, kGroups, kUsed, 1, kStripColumns>(
      acc, a.strip + column, a.weights + group * kLaneScores, kLaneScores, (a.keys + 15) / 16 * 16);
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) {
    LATHE_UNROLL
    for (int g = 0; g < kGroups; ++g) store(out + g * a.out_stride + i * kLaneGroup, acc[i][g]);
  }
}

void lane_scores(const LaneScoresArgs& a) {
#if defined(__AVX512F__)
  if (a.lanes <= kLaneGroup / 2) return half_lane_scores(a);
#endif
  const auto block = [&]<int kRows, int kGroups, int kUsed>(int64_t group, int64_t key) __attribute__((always_inline)) {
    score_block<kRows, kGroups, kUsed>(a, group, key);
  };
  for_lane_blocks(a.groups, (a.keys + 15) / 16 * 16, a.lanes, a.ahead, block);
}

void lane_values(const LaneValuesArgs& a) {
#if defined(__AVX512F__)
  if (a.lanes <= kLaneGroup / 2) return half_lane_values(a);
#endif
  const auto block = [&]<int kRows, int kGroups, int kUsed>(int64_t group, int64_t column)
      __attribute__((always_inline)) {
    value_block<kRows, kGroups, kUsed>(a, group, column);
  };
  for_lane_blocks(a.groups, (a.cols + 15) / 16 * 16, a.lanes, a.ahead, block);
}

// Sixteen small integers as fp32.
LATHE_INLINE F32x16 load_integers(const int32_t* a) {
  F32x16 out;
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    out.part[p] = part_to_f32(part_bytes_load(reinterpret_cast<const std::byte*>(a + p * kPartLanes)));
  }
  return out;
}

void lane_softmax(const LaneSoftmaxArgs& a) {
  const int64_t keys = (a.keys + 15) / 16 * 16;
  const F32x16 lowest = broadcast(-kInfinity);
  const F32x16 scale = broadcast(a.scale);
  const F32x16 visible = load_integers(a.visible);
  const F32x16 old_maximum = load(a.maximum);
  F32x16 highest = lowest;
  for (int64_t key = 0; key < keys; ++key) {
    const F32x16 v = mul(load(a.scores + key * kLaneGroup), scale);
    const F32x16 seen = select_below(broadcast(static_cast<float>(key)), visible, v, lowest);
    store(a.scores + key * kLaneGroup, seen);
    highest = max(seen, highest);  // never NaN: max returns its second operand
  }
  const F32x16 maximum = max(highest, old_maximum);
  // While every score is -infinity the shift is 0, so that they become 0 and not NaN.
  const F32x16 shift = select_below(maximum, broadcast(-3.402823466e38f), zero(), maximum);
  F32x16 sums[4] = {zero(), zero(), zero(), zero()};
  for (int64_t key = 0; key < keys; key += 4) {
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) {
      float* score = a.scores + (key + i) * kLaneGroup;
      const F32x16 weight = exp(sub(load(score), shift));
      sums[i] = add(sums[i], weight);
      store(score, weight);
    }
  }
  const F32x16 factor = exp(sub(old_maximum, shift));
  store(a.maximum, maximum);
  store(a.sum, add(mul(load(a.sum), factor), add(add(sums[0], sums[1]), add(sums[2], sums[3]))));
  store(a.factor, factor);
}

void cache_to_float(CacheFormat format, const std::byte* row, int64_t elements, int64_t first, int64_t n, float* out) {
  const int64_t groups = (elements + kCacheGroup - 1) / kCacheGroup;
  switch (format) {
    case CacheFormat::kF32:
      return decode_all<DType::kF32>(row + 4 * first, out, n);
    case CacheFormat::kF16:
      return decode_all<DType::kF16>(row + 2 * first, out, n);
    case CacheFormat::kBF16:
      return decode_all<DType::kBF16>(row + 2 * first, out, n);
    case CacheFormat::kQ8:
      return decode_groups<CacheFormat::kQ8>(row, groups, first, n, out);
    case CacheFormat::kQ6:
      return decode_groups<CacheFormat::kQ6>(row, groups, first, n, out);
  }
}

template <DType kType>
LATHE_INLINE void fill_whole_rows(const StripSource& s, float* strip) {
  const std::byte* from = s.data + s.first * element_bytes(kType);
  for (float* out = strip; out < strip + s.rows * kStripColumns; out += kStripColumns, from += s.stride) {
    LATHE_UNROLL
    for (int64_t i = 0; i < kStripColumns; i += kLanes) store(out + i, decode<kType>(from + i * element_bytes(kType)));
  }
}

template <CacheFormat kFormat>
LATHE_INLINE void fill_whole_groups(const StripSource& s, float* strip) {
  const int64_t groups = (s.elements + kCacheGroup - 1) / kCacheGroup;
  const std::byte* from = s.data;
  for (float* out = strip; out < strip + s.rows * kStripColumns; out += kStripColumns, from += s.stride) {
    decode_group<kFormat>(from, groups, s.first / kCacheGroup, out);
    decode_group<kFormat>(from, groups, s.first / kCacheGroup + 1, out + kCacheGroup);
  }
}

// Rows that need no care at their ends.
LATHE_INLINE void fill_whole(const StripSource& s, float* strip) {
  switch (s.format) {
    case CacheFormat::kF32:
      return fill_whole_rows<DType::kF32>(s, strip);
    case CacheFormat::kF16:
      return fill_whole_rows<DType::kF16>(s, strip);
    case CacheFormat::kBF16:
      return fill_whole_rows<DType::kBF16>(s, strip);
    case CacheFormat::kQ8:
      return fill_whole_groups<CacheFormat::kQ8>(s, strip);
    case CacheFormat::kQ6:
      return fill_whole_groups<CacheFormat::kQ6>(s, strip);
  }
}

void load_strip(const StripSource& s, float* strip) {
  const bool groups = s.format == CacheFormat::kQ8 || s.format == CacheFormat::kQ6;
  if (s.cols == kStripColumns && (!groups || s.first % kCacheGroup == 0)) {
    fill_whole(s, strip);
  } else {
    for (int64_t row = 0; row < s.rows; ++row) {
      float* out = strip + row * kStripColumns;
      cache_to_float(s.format, s.data + row * s.stride, s.elements, s.first, s.cols, out);
      for (int64_t i = s.cols; i < kStripColumns; ++i) out[i] = 0.0f;
    }
  }
  for (float* out = strip + s.rows * kStripColumns; out < strip + kStripFloats; out += kLanes) store(out, zero());
}

void rows_to_lanes(const float* const* rows, int64_t n, float* lanes) {
  for (int64_t half = 0; half < kLaneGroup; half += kSquare) {
    int64_t k = 0;
    for (; k + kSquare <= n; k += kSquare) {
      SquareRow r[kSquare];
      LATHE_UNROLL
      for (int i = 0; i < kSquare; ++i) {
        r[i] = rows[half + i] != nullptr ? square_load(rows[half + i] + k) : square_zero();
      }
      transpose_square(r);
      LATHE_UNROLL
      for (int i = 0; i < kSquare; ++i) square_store(lanes + (k + i) * kLaneGroup + half, r[i]);
    }
    for (; k < n; ++k) {
      for (int64_t i = half; i < half + kSquare; ++i)
        lanes[k * kLaneGroup + i] = rows[i] != nullptr ? rows[i][k] : 0.0f;
    }
  }
}

void lanes_to_rows(const float* lanes, int64_t n, float* const* rows) {
  for (int64_t half = 0; half < kLaneGroup; half += kSquare) {
    int64_t k = 0;
    for (; k + kSquare <= n; k += kSquare) {
      SquareRow r[kSquare];
      LATHE_UNROLL
      for (int i = 0; i < kSquare; ++i) r[i] = square_load(lanes + (k + i) * kLaneGroup + half);
      transpose_square(r);
      LATHE_UNROLL
      for (int i = 0; i < kSquare; ++i) {
        if (rows[half + i] != nullptr) square_store(rows[half + i] + k, r[i]);
      }
    }
    for (; k < n; ++k) {
      for (int64_t i = half; i < half + kSquare; ++i) {
        if (rows[i] != nullptr) rows[i][k] = lanes[k * kLaneGroup + i];
      }
    }
  }
}

}  // namespace
}  // namespace lathe
