// y = W^T x on stored weights, written once for every ISA unit (see vec16-inl.h). An output element is one chain of
// fused multiply-adds over rows in ascending order; tiles of columns x tokens only decide how many chains run together.
#pragma once

#include "lathe/kernels/gemm-inl.h"
#include "lathe/kernels/int16-inl.h"
#include "lathe/kernels/token_tiles-inl.h"

namespace lathe {
namespace {

constexpr int64_t kRowsAhead = 8;  // rows prefetched in front of the one being read

// Bytes per element in whole numbers, rounded up: for prefetching.
constexpr int64_t stored_bytes(DType type) {
  return type == DType::kQ8_0 ? 2 : element_bytes(type);
}

// Bytes from the start of a row to column `c`, which is a multiple of 16: in rows of Q8_0 behind the scale of its
// block.
template <DType kType>
LATHE_INLINE int64_t column_offset(int64_t c) {
  if constexpr (kType == DType::kQ8_0) return c / 32 * 34 + 2 + c % 32;
  return c * element_bytes(kType);
}

// Sixteen columns from `c` of the row that starts at `row`.
template <DType kType>
LATHE_INLINE F32x16 decode_columns(const std::byte* row, int64_t c) {
  if constexpr (kType == DType::kQ8_0) {
    const std::byte* block = row + c / 32 * 34;
    return mul(half_at(block), to_f32(i32_from_signed_bytes(block + 2 + c % 32)));
  } else {
    return decode<kType>(row + c * element_bytes(kType));
  }
}

// Columns [column, column + 16 * kVectors) of y for kTokens tokens; with kPartial one vector of `count` < 16 columns.
template <DType kType, int kVectors, int kTokens, bool kPartial>
LATHE_INLINE void transposed_tile(
    const GemmTransposedArgs& args, const Weights& weights, int64_t column, int64_t count, int64_t token) {
  constexpr int kLines = static_cast<int>((kVectors * kLanes * stored_bytes(kType) + 63) / 64);
  F32x16 sum[kTokens][kVectors];
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    LATHE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const float* from = args.y + (token + t) * args.y_stride + column + v * kLanes;
      sum[t][v] = !args.accumulate ? zero() : kPartial ? load_first(from, count) : load(from);
    }
  }
  const float* x = args.x + token * args.x_stride;
  const std::byte* w = weights.data + args.row_begin * weights.stride;
  for (int64_t row = args.row_begin; row < args.row_end; ++row, w += weights.stride, ++x) {
    if (row + kRowsAhead < args.row_end) {
      const uintptr_t address = reinterpret_cast<uintptr_t>(w) +
                                static_cast<uintptr_t>(kRowsAhead * weights.stride + column_offset<kType>(column));
      LATHE_UNROLL
      for (int line = 0; line < kLines; ++line) prefetch(address + static_cast<uintptr_t>(64 * line));
    }
    F32x16 weight[kVectors];
    LATHE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kPartial) {
        weight[v] = decode_first<kType>(w + (column + v * kLanes) * element_bytes(kType), count);
      } else {
        weight[v] = decode_columns<kType>(w, column + v * kLanes);
      }
      if constexpr (kType == DType::kF8E4M3) {
        weight[v] = mul(weight[v], broadcast(block_scale(weights, row, column + v * kLanes)));
      }
    }
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const F32x16 value = broadcast(x[t * args.x_stride]);
      LATHE_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[t][v] = fma(weight[v], value, sum[t][v]);
    }
  }
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    LATHE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      float* to = args.y + (token + t) * args.y_stride + column + v * kLanes;
      if constexpr (kPartial) {
        store_first(to, sum[t][v], count);
      } else {
        store(to, sum[t][v]);
      }
    }
  }
}

// All columns for kTokens tokens, kVectors vectors at a time, then single vectors, then the rest.
template <DType kType, int kVectors, int kTokens>
void transposed_tokens(const GemmTransposedArgs& args, const Weights& weights, int64_t token) {
  int64_t column = 0;
  for (; column + kVectors * kLanes <= args.w.cols; column += kVectors * kLanes) {
    transposed_tile<kType, kVectors, kTokens, false>(args, weights, column, 0, token);
  }
  for (; column + kLanes <= args.w.cols; column += kLanes) {
    transposed_tile<kType, 1, kTokens, false>(args, weights, column, 0, token);
  }
  if (column < args.w.cols) {
    transposed_tile<kType, 1, kTokens, true>(args, weights, column, args.w.cols - column, token);
  }
}

constexpr int64_t kDecodedRows = 256;
constexpr int kDecodedTokens = 6;  // of a tile: with AVX2 twelve accumulators of half a vector

// Sixteen columns from `column`, decoded, `rows` of them, times kTokens tokens, added to y (or set).
template <int kTokens>
LATHE_INLINE void decoded_tile(
    const GemmTransposedArgs& args, const float* decoded, const float* x, int64_t rows, bool set, float* y) {
  F32x16 sum[kTokens];
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) sum[t] = set ? zero() : load(y + t * args.y_stride);
  for (int64_t row = 0; row < rows; ++row, ++x) {
    const F32x16 weight = load(decoded + row * kLanes);
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) sum[t] = fma(weight, broadcast(x[t * args.x_stride]), sum[t]);
  }
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) store(y + t * args.y_stride, sum[t]);
}

// Many tokens: sixteen columns at a time are decoded once for all of them, a stretch of rows that stays in the first
// cache.
template <DType kType>
void transposed_decoded(const GemmTransposedArgs& args, const Weights& weights) {
  alignas(64) float decoded[kDecodedRows * kLanes];
  const int64_t whole = args.w.cols / kLanes * kLanes;
  for (int64_t column = 0; column < whole; column += kLanes) {
    for (int64_t first = args.row_begin; first < args.row_end; first += kDecodedRows) {
      const int64_t rows = args.row_end - first < kDecodedRows ? args.row_end - first : kDecodedRows;
      const std::byte* w = weights.data + first * weights.stride;
      for (int64_t row = 0; row < rows; ++row, w += weights.stride) {
        F32x16 weight = decode_columns<kType>(w, column);
        if constexpr (kType == DType::kF8E4M3) {
          weight = mul(weight, broadcast(block_scale(weights, first + row, column)));
        }
        store(decoded + row * kLanes, weight);
      }
      const float* x = args.x + (first - args.row_begin);
      const bool set = first == args.row_begin && !args.accumulate;
      for_token_tiles<kDecodedTokens>(0, args.tokens, [&]<int kTokens>(int64_t token) {
        decoded_tile<kTokens>(
            args, decoded, x + token * args.x_stride, rows, set, args.y + token * args.y_stride + column);
      });
    }
  }
  if (whole == args.w.cols) return;
  for (int64_t token = 0; token < args.tokens; ++token) {
    transposed_tile<kType, 1, 1, true>(args, weights, whole, args.w.cols - whole, token);
  }
}

template <DType kType>
LATHE_INLINE void gemm_transposed_typed(const GemmTransposedArgs& args) {
  const Weights weights = read_weights<kType>(args.w);
  if (args.tokens >= 2 * kDecodedTokens && args.row_end > args.row_begin) {
    transposed_decoded<kType>(args, weights);
    return;
  }
  int64_t token = 0;
  for (; token + kTileTokens <= args.tokens; token += kTileTokens) {
    transposed_tokens<kType, kTileColumns, kTileTokens>(args, weights, token);
  }
  for (; token < args.tokens; ++token) transposed_tokens<kType, 2 * kTileColumns, 1>(args, weights, token);
}

void gemm_transposed(const GemmTransposedArgs& args) {
  switch (args.w.dtype) {
    case DType::kF32:
      return gemm_transposed_typed<DType::kF32>(args);
    case DType::kBF16:
      return gemm_transposed_typed<DType::kBF16>(args);
    case DType::kF16:
      return gemm_transposed_typed<DType::kF16>(args);
    case DType::kF8E4M3:
      return gemm_transposed_typed<DType::kF8E4M3>(args);
    case DType::kQ8_0:
      return gemm_transposed_typed<DType::kQ8_0>(args);
    default:
      __builtin_trap();  // not a type that a WeightMatrix may have
  }
}

}  // namespace
}  // namespace lathe
