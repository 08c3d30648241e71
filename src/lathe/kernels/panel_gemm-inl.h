// Products of packed block formats (tensor/panels.h) with int8 activations, written once for every ISA unit (see
// vec16-inl.h). Lane r of a vector is row r of a panel: an output is one lane, so there are no horizontal sums. Integer
// sums are exact and may be taken in any order; the fp32 operations on them follow the order of PanelGemmArgs, one
// chain per output, so every tile size gives the same bits.
#pragma once

#include "lathe/kernels/gemm-inl.h"
#include "lathe/kernels/int16-inl.h"
#include "lathe/tensor/panels.h"

namespace lathe {
namespace {

// Tokens of a register tile: one int32 and one fp32 accumulator each.
#if defined(__AVX512F__)
constexpr int kPanelTileTokens = 12;
#else
constexpr int kPanelTileTokens = 4;
#endif
constexpr int64_t kPanelBlockTokens = 192;  // tokens whose activations stay in the second-level cache over all panels
constexpr int kPanelPrefetch = 4096;        // bytes ahead, single tokens only: the memory latency in bytes

// One row of QuantisedRows.
struct ActivationRow {
  const std::byte* q;
  const float* scale;
  const int32_t* sum;
  const int32_t* half_sum;
  const float* scaled_sum;
};

LATHE_INLINE int64_t activation_bytes(int64_t cols) {
  return ((cols + cols / 32 * 16 + 63) / 64 | 1) * 64;
}

LATHE_INLINE ActivationRow activation_row(const std::byte* data, int64_t cols, int64_t row) {
  const std::byte* q = data + row * activation_bytes(cols);
  const auto* scale = reinterpret_cast<const float*>(q + cols);
  const int64_t blocks = cols / 32;
  const auto* sum = reinterpret_cast<const int32_t*>(scale + blocks);
  return {q, scale, sum, sum + blocks, reinterpret_cast<const float*>(sum + 2 * blocks)};
}

constexpr bool has_minimum(DType format) {
  return format == DType::kQ4_1 || format == DType::kQ5_1 || format == DType::kQ4_K || format == DType::kQ5_K;
}

// Groups g and g + 4 (only g < 4 is asked for) of a block's integers, unsigned.
template <int64_t kBits>
LATHE_INLINE void unpack_groups(const std::byte* block, int g, GroupBytes& low, GroupBytes& high) {
  if constexpr (kBits == 8) {
    low = group_load(block + g * 64);
    high = group_load(block + (g + 4) * 64);
    return;
  }
  group_split_nibbles(group_load(block + g * 64), low, high);
  if constexpr (kBits == 5) {
    group_add_fifth_bits(low, block + 256 + g * 8);
    group_add_fifth_bits(high, block + 256 + (g + 4) * 8);
  } else if constexpr (kBits == 6) {
    group_add_upper_pairs(low, block + 256, g);
    group_add_upper_pairs(high, block + 256 + 64, g);
  }
}

// Scales of one block of 16 rows.
struct BlockScales {
  F32x16 scale;    // d, or d * sc
  F32x16 minimum;  // m, or -(dmin * m)
  I32x16 half[2];  // Q6_K: sc of the two halves
};

template <DType kFormat>
LATHE_INLINE void load_scales(const std::byte* chunk, int64_t b, BlockScales& out) {
  if constexpr (kFormat == DType::kQ6_K) {
    out.scale = decode<DType::kF16>(chunk);
    out.half[0] = i32_from_signed_bytes(chunk + 64 + 2 * b * 16);
    out.half[1] = i32_from_signed_bytes(chunk + 64 + (2 * b + 1) * 16);
  } else if constexpr (kFormat == DType::kQ4_K || kFormat == DType::kQ5_K) {
    out.scale = mul(decode<DType::kF16>(chunk), to_f32(i32_from_unsigned_bytes(chunk + 64 + b * 16)));
    const F32x16 minimum = mul(decode<DType::kF16>(chunk + 32), to_f32(i32_from_unsigned_bytes(chunk + 192 + b * 16)));
    out.minimum = sub(broadcast(-0.0f), minimum);
  } else {
    out.scale = decode<DType::kF16>(chunk + b * 32);
    if constexpr (has_minimum(kFormat)) out.minimum = decode<DType::kF16>(chunk + 64 + b * 32);
  }
}

// What the int32 accumulator of a block starts from: -offset * (sum of q), given -128 * (sum of q).
template <DType kFormat>
LATHE_INLINE int32_t offset_sum(int32_t sum) {
  constexpr int kOffset = panel_layout(kFormat).offset;
  if constexpr (kOffset == 0) return 0;
  if constexpr (kOffset == 128) return kOffsetInDot ? 0 : sum;
  return sum / (128 / kOffset);
}

// sum[t] += what block `b` of the chunk adds for every token. k: the block's first column; block: its index in the row.
template <DType kFormat, int kTokens>
LATHE_INLINE void panel_block(
    const std::byte* chunk, int64_t b, int64_t index, const ActivationRow (&x)[kTokens], F32x16 (&sum)[kTokens]) {
  constexpr PanelLayout kLayout = panel_layout(kFormat);
  constexpr bool kHalves = kFormat == DType::kQ6_K;
  constexpr bool kSigned = kLayout.bits == 8;
  const std::byte* integers = chunk + kLayout.scale_bytes + b * kLayout.block_bytes;
  // A single token has two chains of products, so that their latency does not bound the rate.
  constexpr int kChains = kHalves || kTokens == 1 ? 2 : 1;
  I32x16 dot[kTokens][kChains];
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    if constexpr (kHalves) {
      const int32_t half = x[t].half_sum[index];
      dot[t][0] = i32_set(offset_sum<kFormat>(half));
      dot[t][1] = i32_set(offset_sum<kFormat>(x[t].sum[index] - half));
    } else {
      dot[t][0] = i32_set(offset_sum<kFormat>(x[t].sum[index]));
      if constexpr (kChains == 2) dot[t][1] = i32_set(0);
    }
  }
  LATHE_UNROLL
  for (int g = 0; g < 4; ++g) {
    GroupBytes low;
    GroupBytes high;
    unpack_groups<kLayout.bits>(integers, g, low, high);
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const std::byte* q = x[t].q + index * 32 + g * 4;
      group_dot<kSigned>(dot[t][0], low, q);
      group_dot<kSigned>(dot[t][kChains - 1], high, q + 16);
    }
  }
  BlockScales scales;
  load_scales<kFormat>(chunk, b, scales);
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    I32x16 whole = dot[t][0];
    if constexpr (kHalves) {
      whole = i32_add(i32_mul(dot[t][0], scales.half[0]), i32_mul(dot[t][1], scales.half[1]));
    } else if constexpr (kChains == 2) {
      whole = i32_add(dot[t][0], dot[t][1]);
    }
    sum[t] = fma(to_f32(whole), mul(scales.scale, broadcast(x[t].scale[index])), sum[t]);
    if constexpr (has_minimum(kFormat)) sum[t] = fma(scales.minimum, broadcast(x[t].scaled_sum[index]), sum[t]);
  }
}

// One panel times kTokens tokens, the first being `token`. rows: how many rows of the panel exist.
template <DType kFormat, int kTokens>
void panel_tile(const PanelGemmArgs& args, const std::byte* panel, int64_t token, float* y, int64_t rows) {
  constexpr PanelLayout kLayout = panel_layout(kFormat);
  constexpr int64_t kChunkBytes = kLayout.scale_bytes + kLayout.blocks * kLayout.block_bytes;
  const int64_t cols = args.x.cols;
  ActivationRow x[kTokens];
  F32x16 sum[kTokens];
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const int64_t row = args.x_rows != nullptr ? args.x_rows[token + t] : token + t;
    x[t] = activation_row(args.x.data, cols, row);
    sum[t] = zero();
  }
  const int64_t blocks = cols / 32;
  const std::byte* chunk = panel;
  for (int64_t index = 0; index < blocks; chunk += kChunkBytes) {
    if constexpr (kTokens == 1) {
      LATHE_UNROLL
      for (int64_t line = 0; line < kChunkBytes; line += 64) {
        prefetch(reinterpret_cast<uintptr_t>(chunk) + static_cast<uintptr_t>(kPanelPrefetch + line));
      }
    }
    for (int64_t b = 0; b < kLayout.blocks && index < blocks; ++b, ++index) {
      panel_block<kFormat, kTokens>(chunk, b, index, x, sum);
    }
  }
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    float* out = y + t * args.y_stride;
    if (rows == kPanelRows) {
      store(out, sum[t]);
    } else {
      store_first(out, sum[t], rows);
    }
  }
}

template <DType kFormat>
void panel_tokens(
    const PanelGemmArgs& args, const std::byte* panel, int64_t token, int64_t end, float* y, int64_t rows) {
  // Two int32 accumulators per token leave room for half as many tokens.
  constexpr int kTile = kFormat == DType::kQ6_K ? kPanelTileTokens / 2 : kPanelTileTokens;
  const auto next = [&](int64_t count) __attribute__((always_inline)) {
    token += count;
    y += count * args.y_stride;
  };
  while (end - token >= kTile) {
    panel_tile<kFormat, kTile>(args, panel, token, y, rows);
    next(kTile);
  }
  if constexpr (kTile > 6) {
    if (end - token >= 6) {
      panel_tile<kFormat, 6>(args, panel, token, y, rows);
      next(6);
    }
  }
  if constexpr (kTile > 3) {
    if (end - token >= 3) {
      panel_tile<kFormat, 3>(args, panel, token, y, rows);
      next(3);
    }
  }
  if (end - token >= 2) {
    panel_tile<kFormat, 2>(args, panel, token, y, rows);
    next(2);
  }
  if (end > token) panel_tile<kFormat, 1>(args, panel, token, y, rows);
}

template <DType kFormat>
void panel_gemm_format(const PanelGemmArgs& args) {
  constexpr PanelLayout kLayout = panel_layout(kFormat);
  constexpr int64_t kChunkCols = kLayout.blocks * 32;
  constexpr int64_t kChunkBytes = kLayout.scale_bytes + kLayout.blocks * kLayout.block_bytes;
  const int64_t bytes = (args.w.cols + kChunkCols - 1) / kChunkCols * kChunkBytes;
  for (int64_t token = 0; token < args.tokens; token += kPanelBlockTokens) {
    const int64_t rest = args.tokens - token;
    const int64_t end = token + (rest < kPanelBlockTokens ? rest : kPanelBlockTokens);
    for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
      const int64_t rows_left = args.w.rows - panel * kPanelRows;
      float* y = args.y + token * args.y_stride + (panel - args.panel_begin) * kPanelRows;
      panel_tokens<kFormat>(
          args, args.w.data + panel * bytes, token, end, y, rows_left < kPanelRows ? rows_left : kPanelRows);
    }
  }
}

void panel_gemm(const PanelGemmArgs& args) {
  switch (args.w.dtype) {
    case DType::kQ4_0:
      return panel_gemm_format<DType::kQ4_0>(args);
    case DType::kQ4_1:
      return panel_gemm_format<DType::kQ4_1>(args);
    case DType::kQ5_0:
      return panel_gemm_format<DType::kQ5_0>(args);
    case DType::kQ5_1:
      return panel_gemm_format<DType::kQ5_1>(args);
    case DType::kQ8_0:
      return panel_gemm_format<DType::kQ8_0>(args);
    case DType::kQ4_K:
      return panel_gemm_format<DType::kQ4_K>(args);
    case DType::kQ5_K:
      return panel_gemm_format<DType::kQ5_K>(args);
    case DType::kQ6_K:
      return panel_gemm_format<DType::kQ6_K>(args);
    default:
      __builtin_trap();  // not a format that this table promises
  }
}

constexpr float kSmallestQuantised = 1e-30f;  // below, 127 / |x| would overflow

void quantise(const float* x, int64_t first_block, int64_t last_block, const QuantisedRows& out, int64_t row) {
  const ActivationRow to = activation_row(out.data, out.cols, row);
  for (int64_t b = first_block; b < last_block; ++b) {
    const F32x16 low = load(x + b * 32);
    const F32x16 high = load(x + b * 32 + 16);
    // The bits of |x| order as integers do, infinity and NaN last.
    const float largest = largest_magnitude(low, high);
    const bool finite = largest < __builtin_inff();
    const bool zero_block = !finite || largest < kSmallestQuantised;
    const F32x16 factor = broadcast(zero_block ? 0.0f : 127.0f / largest);
    const float scale = !finite ? __builtin_nanf("") : zero_block ? 0.0f : largest / 127.0f;
    // A block that is not finite must not be multiplied: 0 * infinity is no integer.
    const I32x16 low_q = zero_block ? i32_set(0) : to_i32(mul(low, factor));
    const I32x16 high_q = zero_block ? i32_set(0) : to_i32(mul(high, factor));
    auto* q = const_cast<std::byte*>(to.q) + b * 32;
    store_as_bytes(q, low_q);
    store_as_bytes(q + 16, high_q);
    const int32_t half = i32_reduce_add(low_q);
    const int32_t sum = half + i32_reduce_add(high_q);
    const_cast<float*>(to.scale)[b] = scale;
    const_cast<int32_t*>(to.sum)[b] = -128 * sum;
    const_cast<int32_t*>(to.half_sum)[b] = -128 * half;
    const_cast<float*>(to.scaled_sum)[b] = scale * static_cast<float>(sum);
  }
}

}  // namespace
}  // namespace lathe
