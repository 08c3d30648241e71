// y = W x on stored weights, written once for every ISA unit (see vec16-inl.h). An output element is one 16-lane
// accumulator to which lane k mod 16 adds element k in ascending k; tiles of rows x tokens only decide how many such
// accumulators are alive together, so every blocking gives the same bits.
#pragma once

#include "lathe/kernels/kernel_table.h"
#include "lathe/kernels/vec16-inl.h"

namespace lathe {
namespace {

// Tile sizes: as many accumulators as registers hold beside the operands.
#if defined(__AVX512F__)
constexpr int kTileRows = 4;
constexpr int kTileTokens = 6;
constexpr int kVectorRows = 4;   // rows in flight for a single token
constexpr int kTileColumns = 4;  // vectors of columns in gemm_transposed
#else
constexpr int kTileRows = 3;
constexpr int kTileTokens = 2;
constexpr int kVectorRows = 4;
constexpr int kTileColumns = 2;
#endif
constexpr int64_t kPanelDepth = 512;  // columns of a decoded panel: kTileRows of them stay in the first-level cache
constexpr int64_t kPanelTokens = 48;  // tokens that share one decoded panel; a multiple of every kTileTokens
static_assert(kPanelTokens % kTileTokens == 0 && kPanelDepth % kFp8Block == 0);

// What kernels need of a WeightMatrix, without its inline members (no project function may be emitted here).
struct Weights {
  const std::byte* data;
  int64_t stride;  // bytes from row to row
  const float* scales;
  int64_t scale_cols;
};

template <DType kType>
LATHE_INLINE Weights read_weights(const WeightMatrix& w) {
  return {w.data,
          w.stride != 0           ? w.stride
          : kType == DType::kQ8_0 ? w.cols / 32 * 34
                                  : w.cols * element_bytes(kType),
          kType == DType::kF8E4M3 ? w.scales : nullptr,
          (w.cols + kFp8Block - 1) / kFp8Block};
}

// Scale of the 128 x 128 block around an element; 1 where no scales are stored.
LATHE_INLINE float block_scale(const Weights& w, int64_t row, int64_t column) {
  return w.scales == nullptr ? 1.0f : w.scales[(row / kFp8Block) * w.scale_cols + column / kFp8Block];
}

template <int kRows, int kTokens>
struct Tile {
  F32x16 sum[kRows][kTokens];
};

// tile.sum[i][t] += elements [k, k + 16) of rows i times those of tokens t. w: the rows at column k.
template <DType kType, int kRows, int kTokens>
LATHE_INLINE void tile_step(Tile<kRows, kTokens>& tile,
                            const std::byte* const (&w)[kRows],
                            int64_t offset,
                            const PartRegister (&scale)[kRows],
                            const float* x,
                            int64_t x_stride) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) {
    PartRegister weight[kRows];
    LATHE_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const std::byte* from = w[i] + offset + p * kPartLanes * element_bytes(kType);
      if constexpr (kType == DType::kF8E4M3) {
        weight[i] = part_mul(part_decode_finite_e4m3(from), scale[i]);
      } else {
        weight[i] = part_decode<kType>(from);
      }
      if constexpr (kTokens > 1) keep(weight[i]);
    }
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const PartRegister value = part_load(x + t * x_stride + p * kPartLanes);
      LATHE_UNROLL
      for (int i = 0; i < kRows; ++i) tile.sum[i][t].part[p] = part_fma(weight[i], value, tile.sum[i][t].part[p]);
    }
  }
}

// The same for the last `count` < 16 columns; missing lanes add 0 * 0.
template <DType kType, int kRows, int kTokens>
LATHE_INLINE void tile_step_first(Tile<kRows, kTokens>& tile,
                                  const std::byte* const (&w)[kRows],
                                  int64_t offset,
                                  const PartRegister (&scale)[kRows],
                                  const float* x,
                                  int64_t x_stride,
                                  int64_t count) {
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) {
    F32x16 weight;
    LATHE_UNROLL
    for (int p = 0; p < kParts; ++p) {
      const std::byte* from = w[i] + offset + p * kPartLanes * element_bytes(kType);
      const int64_t lanes = lanes_in_part(count, p);
      if constexpr (kType == DType::kF8E4M3) {
        const PartRegister codes =
            lanes == kPartLanes ? part_decode_finite_e4m3(from) : part_decode_finite_e4m3_first(from, lanes);
        // Zero codes times an infinite or NaN scale must not reach the lanes that hold nothing.
        weight.part[p] = part_select_first(lanes, part_mul(codes, scale[i]), part_zero());
      } else {
        weight.part[p] = lanes == kPartLanes ? part_decode<kType>(from) : part_decode_first<kType>(from, lanes);
      }
    }
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) tile.sum[i][t] = fma(weight, load_first(x + t * x_stride, count), tile.sum[i][t]);
  }
}

// The rows that a tile of kRows reads after the present ones, to be asked for meanwhile. Those that touch are asked for
// in the order in which they lie, although they will be read side by side: memory gives one stream faster than several
// (docs/performance.md, "Asking for weights").
struct NextRows {
  uintptr_t first = 0;  // 0: none
  int64_t row = 0;      // bytes from the line asked for with row i to the one with row i + 1
  int64_t column = 0;   // bytes further for every byte of a row that has been read
};

template <DType kType, int kRows>
LATHE_INLINE NextRows next_rows(const Weights& weights, int64_t row, const GemmArgs& args) {
  if (row + 2 * kRows > args.row_end) return {};
  const auto first = reinterpret_cast<uintptr_t>(weights.data + (row + kRows) * weights.stride);
  const bool touch = weights.stride == args.w.cols * element_bytes(kType);
  return touch ? NextRows{first, 64, kRows} : NextRows{first, weights.stride, 1};
}

// Adds columns [begin, end) of rows row, row + 1, ... times tokens to the tile; begin is a multiple of 128, and end is
// too unless it is the last column. x: the first token at column 0. E4M3 needs scales that scales_are_moderate()
// accepts.
template <DType kType, int kRows, int kTokens>
LATHE_INLINE void tile_run(Tile<kRows, kTokens>& tile,
                           const Weights& weights,
                           int64_t row,
                           int64_t begin,
                           int64_t end,
                           const float* x,
                           int64_t x_stride,
                           const NextRows& next) {
  constexpr int64_t kBytes = element_bytes(kType);
  constexpr int kStepsPerLine = static_cast<int>(64 / (kLanes * kBytes));
  const std::byte* w[kRows];
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) w[i] = weights.data + (row + i) * weights.stride;
  PartRegister scale[kRows] = {};
  int64_t k = begin;
  while (k < end) {
    int64_t stop = end;
    if constexpr (kType == DType::kF8E4M3) {
      stop = (k / kFp8Block + 1) * kFp8Block;
      stop = stop < end ? stop : end;
      LATHE_UNROLL
      for (int i = 0; i < kRows; ++i) {
        // A NaN code spoils the row's result whatever stands beside it, so the whole block may become NaN.
        const float whole = any_e4m3_nan(w[i] + k, stop - k) ? __builtin_nanf("") : block_scale(weights, row + i, k);
        scale[i] = part_set(256.0f * whole);
      }
    }
    for (; k + kStepsPerLine * kLanes <= stop; k += kStepsPerLine * kLanes) {
      if (next.first != 0) {
        LATHE_UNROLL
        for (int i = 0; i < kRows; ++i) {
          const uintptr_t line = next.first + static_cast<uintptr_t>(k * kBytes * next.column + i * next.row);
          if constexpr (kTokens == 1 && kParts == 1) {
            prefetch(line);
          } else {
            prefetch_farther(line);  // the first level holds the tokens
          }
        }
      }
      LATHE_UNROLL
      for (int s = 0; s < kStepsPerLine; ++s) {
        tile_step<kType>(tile, w, (k + s * kLanes) * kBytes, scale, x + k + s * kLanes, x_stride);
      }
    }
    for (; k + kLanes <= stop; k += kLanes) tile_step<kType>(tile, w, k * kBytes, scale, x + k, x_stride);
    if (k < stop) {
      tile_step_first<kType>(tile, w, k * kBytes, scale, x + k, x_stride, stop - k);
      k = stop;
    }
  }
}

template <int kRows, int kTokens>
LATHE_INLINE void tile_finish(const Tile<kRows, kTokens>& tile, float* y, int64_t y_stride, bool accumulate) {
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    LATHE_UNROLL
    for (int i = 0; i < kRows; ++i) {
      float& out = y[t * y_stride + i];
      const float sum = reduce_add(tile.sum[i][t]);
      out = accumulate ? out + sum : sum;
    }
  }
}

// Rows row ... row + kRows - 1 times kTokens tokens from the stored weights.
template <DType kType, int kRows, int kTokens>
void gemm_tile(const GemmArgs& args, const Weights& weights, int64_t row, int64_t token) {
  Tile<kRows, kTokens> tile;
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) {
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) tile.sum[i][t] = zero();
  }
  const float* x = args.x + token * args.x_stride;
  tile_run<kType>(tile, weights, row, 0, args.w.cols, x, args.x_stride, next_rows<kType, kRows>(weights, row, args));
  tile_finish(tile, args.y + token * args.y_stride + (row - args.row_begin), args.y_stride, args.accumulate);
}

// Calls body(row) for groups of kRows rows, then rest(row) for single ones.
template <int kRows, class Body, class Rest>
LATHE_INLINE void for_rows(const GemmArgs& args, Body body, Rest rest) {
  int64_t row = args.row_begin;
  for (; row + kRows <= args.row_end; row += kRows) body(row);
  for (; row < args.row_end; ++row) rest(row);
}

template <DType kType, int kTokens, int kRows = kTokens == 1 ? kVectorRows : kTileRows>
void gemm_few(const GemmArgs& args, const Weights& weights) {
  for_rows<kRows>(
      args,
      [&](int64_t row) { gemm_tile<kType, kRows, kTokens>(args, weights, row, 0); },
      [&](int64_t row) { gemm_tile<kType, 1, kTokens>(args, weights, row, 0); });
}

// Does the product when a single tile takes all tokens.
template <DType kType, int kTokens = kTileTokens>
LATHE_INLINE bool gemm_if_few(const GemmArgs& args, const Weights& weights) {
  if constexpr (kTokens > 0) {
    if (args.tokens != kTokens) return gemm_if_few<kType, kTokens - 1>(args, weights);
    gemm_few<kType, kTokens>(args, weights);
    return true;
  }
  return false;
}

// Whether 256 times every scale of these rows is finite unless the scale itself is not.
LATHE_INLINE bool scales_are_moderate(const Weights& weights, const GemmArgs& args) {
  if (weights.scales == nullptr) return true;
  const int64_t begin = (args.row_begin / kFp8Block) * weights.scale_cols;
  const int64_t end = ((args.row_end - 1) / kFp8Block + 1) * weights.scale_cols;
  bool moderate = true;
  for (int64_t i = begin; i < end; ++i) {
    const float size = __builtin_fabsf(weights.scales[i]);
    moderate &= !(size > 0x1p119f && size <= 0x1.fffffep127f);
  }
  return moderate;
}

// ---- many tokens: rows are decoded once into an fp32 panel that all tokens of a group share ------------------------

template <int kRows>
struct Panel {
  alignas(64) float weight[kRows][kPanelDepth];
  // Unfinished tiles; one more than groups have, so that the place of an absent last one exists too.
  alignas(64) float sum[kPanelTokens / kTileTokens + 1][kRows * kTileTokens * kLanes];
};

template <DType kType, int kRows>
LATHE_INLINE void fill_panel(Panel<kRows>& panel, const Weights& weights, int64_t row, int64_t begin, int64_t end) {
  for (int i = 0; i < kRows; ++i) {
    const std::byte* w = weights.data + (row + i) * weights.stride;
    for (int64_t block = begin; block < end; block += kFp8Block) {
      const int64_t stop = block + kFp8Block < end ? block + kFp8Block : end;
      const PartRegister scale = part_set(kType == DType::kF8E4M3 ? block_scale(weights, row + i, block) : 1.0f);
      for (int64_t k = block; k < stop; k += kLanes) {
        const std::byte* from = w + k * element_bytes(kType);
        F32x16 v = decode_some<kType>(from, stop - k);
        if constexpr (kType == DType::kF8E4M3) {
          LATHE_UNROLL
          for (int p = 0; p < kParts; ++p) v.part[p] = part_mul(v.part[p], scale);
        }
        store(&panel.weight[i][k - begin], v);
      }
    }
  }
}

// Columns [begin, end) of some rows, decoded; `weights` counts columns from begin and rows from `row`.
struct PanelSlice {
  Weights weights;
  int64_t row;
  int64_t begin;
  int64_t end;
};

// One tile over the slice, continuing from and leaving its sums in `sum`, or finishing into y.
template <int kRows, int kTokens>
void panel_tile(const GemmArgs& args, const PanelSlice& slice, float* sum, int64_t token) {
  Tile<kRows, kTokens> tile;
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) {
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t)
      tile.sum[i][t] = slice.begin == 0 ? zero() : load(sum + (i * kTokens + t) * kLanes);
  }
  const float* x = args.x + token * args.x_stride + slice.begin;
  tile_run<DType::kF32>(tile, slice.weights, 0, 0, slice.end - slice.begin, x, args.x_stride, {});
  if (slice.end == args.w.cols) {
    tile_finish(tile, args.y + token * args.y_stride + (slice.row - args.row_begin), args.y_stride, args.accumulate);
    return;
  }
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) {
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) store(sum + (i * kTokens + t) * kLanes, tile.sum[i][t]);
  }
}

// The last `count` < kTileTokens tokens of a group.
template <int kRows, int kTokens = kTileTokens - 1>
LATHE_INLINE void panel_rest(const GemmArgs& args, const PanelSlice& slice, float* sum, int64_t token, int64_t count) {
  if constexpr (kTokens > 0) {
    if (count == kTokens) return panel_tile<kRows, kTokens>(args, slice, sum, token);
    panel_rest<kRows, kTokens - 1>(args, slice, sum, token, count);
  }
}

template <DType kType, int kRows>
void gemm_panel(const GemmArgs& args, const Weights& weights, int64_t row) {
  Panel<kRows> panel;
  for (int64_t group = 0; group < args.tokens; group += kPanelTokens) {
    const int64_t group_end = group + kPanelTokens < args.tokens ? group + kPanelTokens : args.tokens;
    for (int64_t begin = 0; begin < args.w.cols; begin += kPanelDepth) {
      const int64_t end = begin + kPanelDepth < args.w.cols ? begin + kPanelDepth : args.w.cols;
      const auto* decoded = reinterpret_cast<const std::byte*>(panel.weight);
      PanelSlice slice{{decoded, sizeof(panel.weight[0]), nullptr, 0}, row, begin, end};
      if constexpr (kType == DType::kF32) {
        slice.weights.data = weights.data + row * weights.stride + begin * element_bytes(kType);
        slice.weights.stride = weights.stride;
      } else {
        fill_panel<kType>(panel, weights, row, begin, end);
      }
      int64_t token = group;
      for (; token + kTileTokens <= group_end; token += kTileTokens) {
        float* sum = panel.sum[(token - group) / kTileTokens];
        panel_tile<kRows, kTileTokens>(args, slice, sum, token);
      }
      float* sum = panel.sum[(token - group) / kTileTokens];
      panel_rest<kRows>(args, slice, sum, token, group_end - token);
    }
  }
}

// ---- entry ---------------------------------------------------------------------------------------------------------

template <DType kType>
LATHE_INLINE void gemm_typed(const GemmArgs& args) {
  const Weights weights = read_weights<kType>(args.w);
  if (args.tokens <= 0 || args.row_begin >= args.row_end) return;
  if (args.w.cols == 0) {  // an empty sum
    if (args.accumulate) return;
    for (int64_t t = 0; t < args.tokens; ++t) {
      for (int64_t i = 0; i < args.row_end - args.row_begin; ++i) args.y[t * args.y_stride + i] = 0.0f;
    }
    return;
  }
  if (kType != DType::kF8E4M3 || scales_are_moderate(weights, args)) {
    if (gemm_if_few<kType>(args, weights)) return;
  }
  for_rows<kTileRows>(
      args,
      [&](int64_t row) { gemm_panel<kType, kTileRows>(args, weights, row); },
      [&](int64_t row) { gemm_panel<kType, 1>(args, weights, row); });
}

void gemm(const GemmArgs& args) {
  switch (args.w.dtype) {
    case DType::kF32:
      return gemm_typed<DType::kF32>(args);
    case DType::kBF16:
      return gemm_typed<DType::kBF16>(args);
    case DType::kF16:
      return gemm_typed<DType::kF16>(args);
    case DType::kF8E4M3:
      return gemm_typed<DType::kF8E4M3>(args);
    default:
      __builtin_trap();  // not a type that a WeightMatrix may have
  }
}

}  // namespace
}  // namespace lathe
