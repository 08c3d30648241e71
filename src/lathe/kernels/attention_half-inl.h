// lane_scores and lane_values for at most eight pairs of each lane group with AVX-512 (half_lanes-inl.h): the
// neighbouring lanes of a pair belong to two keys, or to two columns of values. Every sum is the chain that it is
// everywhere.
#pragma once

#include "lathe/kernels/ahead-inl.h"
#include "lathe/kernels/half_lanes-inl.h"

#if defined(__AVX512F__)

namespace lathe {
namespace {

constexpr int kHalfSums = 8;                  // registers of sums, of two keys or columns each
constexpr int64_t kHalfRows = 2 * kHalfSums;  // keys or columns taken together

// sums[i] += floats 2 i and 2 i + 1 at `two`, in turns, times x.
LATHE_INLINE void add_products(__m512 (&sums)[kHalfSums], const float* two, int64_t step, __m512 x) {
  LATHE_UNROLL
  for (int i = 0; i < kHalfSums; ++i) {
    sums[i] = _mm512_fmadd_ps(_mm512_castsi512_ps(broadcast_eight(two + i * step)), x, sums[i]);
  }
}

// Columns of two rows of a strip in turns.
LATHE_INLINE void join_rows(const float* strip, int64_t cols, float* out) {
  for (int64_t c = 0; c < cols; c += kLaneGroup, out += 2 * kLaneGroup) {
    store_in_turns(out, _mm512_loadu_si512(strip + c), _mm512_loadu_si512(strip + kStripColumns + c));
  }
}

LATHE_INLINE void half_lane_scores(const LaneScoresArgs& a) {
  alignas(64) float joined[kHalfSums * 2 * kStripColumns];
  Ahead ahead(a.ahead, (a.keys + kHalfRows - 1) / kHalfRows);
  for (int64_t key = 0; key < a.keys; key += kHalfRows) {
    ahead.next();
    for (int64_t i = 0; i < kHalfSums; ++i) {
      join_rows(a.strip + (key + 2 * i) * kStripColumns, a.cols, joined + i * 2 * kStripColumns);
    }
    for (int64_t group = 0; group < a.groups; ++group) {
      float* scores = a.scores + group * kLaneScores + key * kLaneGroup;
      __m512 sums[kHalfSums];
      LATHE_UNROLL
      for (int i = 0; i < kHalfSums; ++i) {
        sums[i] = a.accumulate ? load_two_rows(scores + 2 * i * kLaneGroup) : _mm512_setzero_ps();
      }
      const float* q = a.q + group * a.q_stride;
      for (int64_t c = 0; c < a.cols; ++c) {
        add_products(sums, joined + 2 * c, 2 * kStripColumns, each_twice(_mm512_loadu_ps(q + c * kLaneGroup)));
      }
      LATHE_UNROLL
      for (int i = 0; i < kHalfSums; ++i) store_two_rows(scores + 2 * i * kLaneGroup, sums[i]);
    }
  }
}

LATHE_INLINE void half_lane_values(const LaneValuesArgs& a) {
  const int64_t keys = (a.keys + 15) / 16 * 16;
  Ahead ahead(a.ahead, (a.cols + kHalfRows - 1) / kHalfRows * a.groups);
  for (int64_t group = 0; group < a.groups; ++group) {
    const __m512 factor = each_twice(_mm512_loadu_ps(a.factor + group * kLaneGroup));
    const float* weights = a.weights + group * kLaneScores;
    for (int64_t column = 0; column < a.cols; column += kHalfRows) {
      ahead.next();
      float* out = a.out + group * a.out_stride + column * kLaneGroup;
      __m512 sums[kHalfSums];
      LATHE_UNROLL
      for (int i = 0; i < kHalfSums; ++i) sums[i] = _mm512_mul_ps(load_two_rows(out + 2 * i * kLaneGroup), factor);
      for (int64_t key = 0; key < keys; ++key) {
        add_products(
            sums, a.strip + key * kStripColumns + column, 2, each_twice(_mm512_loadu_ps(weights + key * kLaneGroup)));
      }
      LATHE_UNROLL
      for (int i = 0; i < kHalfSums; ++i) store_two_rows(out + 2 * i * kLaneGroup, sums[i]);
    }
  }
}

}  // namespace
}  // namespace lathe

#endif
