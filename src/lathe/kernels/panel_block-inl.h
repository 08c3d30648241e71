// What products of packed block formats (tensor/panels.h) with int8 activations are made of, written once for every ISA
// unit (see vec16-inl.h): scales, unpacking, gathered activations, outputs, and one block of a register tile. Lane r of
// a vector is row r of a panel: an output is one lane, so there are no horizontal sums. Integer sums are exact and may
// be taken in any order; the fp32 operations on them follow the order of PanelGemmArgs, one chain per output, so every
// tile size gives the same bits.
#pragma once

#include "lathe/kernels/int16-inl.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/kernels/token_tiles-inl.h"
#include "lathe/tensor/panels.h"

namespace lathe {
namespace {

// A register tile: one int32 and one fp32 accumulator for each panel and token.
#if defined(__AVX512F__)
constexpr int kTilePanels = 2;  // so that every activation that is loaded serves two products
constexpr int kPanelTileTokens = 6;
#else
constexpr int kTilePanels = 1;
constexpr int kPanelTileTokens = 4;
#endif
// Activations are gathered into tiles, this many blocks of this many tokens at a time: they stay in the second-level
// cache while all panels pass by.
constexpr int64_t kGatherBlocks = 64;
constexpr int64_t kGatherTokens = 48;
static_assert(kGatherTokens % kPanelTileTokens == 0);

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

// Activations of one block of a single token, as they lie in its row.
struct RowBlock {
  const ActivationRow& row;
  int64_t index;

  LATHE_INLINE const std::byte* q(int /*t*/, int g) const { return row.q + index * 32 + g * 4; }

  LATHE_INLINE float scale(int /*t*/) const { return row.scale[index]; }

  LATHE_INLINE int32_t sum(int /*t*/) const { return row.sum[index]; }

  LATHE_INLINE int32_t half_sum(int /*t*/) const { return row.half_sum[index]; }

  LATHE_INLINE float scaled_sum(int /*t*/) const { return row.scaled_sum[index]; }
};

// The same of kTokens tokens, gathered so that one pointer reaches all of it: with a pointer per token, reloading
// spilled pointers costs as much as the products. 48 bytes per token:
//   q[8 groups][kTokens][4] | scale[kTokens] | sum[kTokens] | half_sum[kTokens] | scaled_sum[kTokens]
constexpr int64_t kGatheredBytes = 48;

template <int kTokens>
struct GatheredBlock {
  const std::byte* data;

  LATHE_INLINE const std::byte* q(int t, int g) const { return data + (g * kTokens + t) * 4; }

  LATHE_INLINE const float* floats(int array, int t) const {
    return reinterpret_cast<const float*>(data + kTokens * (32 + 4 * array) + 4 * t);
  }

  LATHE_INLINE float scale(int t) const { return *floats(0, t); }

  LATHE_INLINE int32_t sum(int t) const { return *reinterpret_cast<const int32_t*>(floats(1, t)); }

  LATHE_INLINE int32_t half_sum(int t) const { return *reinterpret_cast<const int32_t*>(floats(2, t)); }

  LATHE_INLINE float scaled_sum(int t) const { return *floats(3, t); }
};

// The row of x that `token` of the call reads.
LATHE_INLINE int64_t gathered_row(const PanelGemmArgs& args, int64_t token) {
  return args.x_rows != nullptr ? args.x_rows[token] : token;
}

// Copies blocks [first, last) of kTokens rows to `out`.
template <int kTokens>
void gather_blocks(const PanelGemmArgs& args, int64_t token, int64_t first, int64_t last, std::byte* out) {
  for (int t = 0; t < kTokens; ++t) {
    const ActivationRow x = activation_row(args.x.data, args.x.cols, gathered_row(args, token + t));
    std::byte* to = out + t * 4;
    for (int64_t b = first; b < last; ++b, to += kTokens * kGatheredBytes) {
      LATHE_UNROLL
      for (int g = 0; g < 8; ++g) __builtin_memcpy(to + g * kTokens * 4, x.q + b * 32 + g * 4, 4);
      __builtin_memcpy(to + kTokens * 32, x.scale + b, 4);
      __builtin_memcpy(to + kTokens * 36, x.sum + b, 4);
      __builtin_memcpy(to + kTokens * 40, x.half_sum + b, 4);
      __builtin_memcpy(to + kTokens * 44, x.scaled_sum + b, 4);
    }
  }
}

// sum[p][t] += what block `b` of a chunk adds for every panel and token; panels lie `stride` bytes apart.
template <DType kFormat, int kPanels, int kTokens, class Block>
LATHE_INLINE void panel_block(
    const std::byte* chunk, int64_t stride, int64_t b, const Block& x, F32x16 (&sum)[kPanels][kTokens]) {
  constexpr PanelLayout kLayout = panel_layout(kFormat);
  constexpr bool kHalves = kFormat == DType::kQ6_K;
  constexpr bool kSigned = kLayout.bits == 8;
  const std::byte* integers = chunk + kLayout.scale_bytes + b * kLayout.block_bytes;
  // Without byte products, pairs of products are summed as int16 first: four groups of 5 bits fit, two of 6.
  constexpr bool kInPairs = !kHasByteDot && !kSigned;
  constexpr int kPairGroups = kLayout.bits == 6 ? 2 : 4;
  // A single token has two chains of products, so that their latency does not bound the rate.
  constexpr int kChains = kHalves || kTokens == 1 || kInPairs ? 2 : 1;
  I32x16 dot[kPanels][kTokens][kChains];
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    LATHE_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      if constexpr (kHalves) {
        dot[p][t][0] = i32_set(offset_sum<kFormat>(x.half_sum(t)));
        dot[p][t][1] = i32_set(offset_sum<kFormat>(x.sum(t) - x.half_sum(t)));
      } else {
        dot[p][t][0] = i32_set(offset_sum<kFormat>(x.sum(t)));
        if constexpr (kChains == 2) dot[p][t][1] = i32_set(0);
      }
    }
  }
  GroupBytes pairs[kPanels][kTokens][kChains];
  const auto add = [&](int p, int t, int chain, int g, const GroupBytes& w, IntRegister x_four)
      __attribute__((always_inline)) {
    if constexpr (kInPairs) {
      const GroupBytes products = group_pairs(w, x_four);
      GroupBytes& sums = pairs[p][t][chain];
      if (g % kPairGroups == 0) {
        sums = products;
      } else {
        pairs_add(sums, products);
      }
      if (g % kPairGroups == kPairGroups - 1) dot[p][t][chain] = i32_add(dot[p][t][chain], pairs_sum(sums));
    } else {
      group_dot<kSigned>(dot[p][t][chain], w, x_four);
    }
  };
  LATHE_UNROLL
  for (int g = 0; g < 4; ++g) {
    GroupBytes low[kPanels];
    GroupBytes high[kPanels];
    LATHE_UNROLL
    for (int p = 0; p < kPanels; ++p) unpack_groups<kLayout.bits>(integers + p * stride, g, low[p], high[p]);
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const IntRegister four = part_broadcast_four(x.q(t, g));
      LATHE_UNROLL
      for (int p = 0; p < kPanels; ++p) add(p, t, 0, g, low[p], four);
    }
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const IntRegister four = part_broadcast_four(x.q(t, g + 4));
      LATHE_UNROLL
      for (int p = 0; p < kPanels; ++p) add(p, t, kChains - 1, g, high[p], four);
    }
  }
  LATHE_UNROLL
  for (int p = 0; p < kPanels; ++p) {
    BlockScales scales;
    load_scales<kFormat>(chunk + p * stride, b, scales);
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      I32x16 whole = dot[p][t][0];
      if constexpr (kHalves) {
        whole = i32_add(i32_mul(dot[p][t][0], scales.half[0]), i32_mul(dot[p][t][1], scales.half[1]));
      } else if constexpr (kChains == 2) {
        whole = i32_add(dot[p][t][0], dot[p][t][1]);
      }
      sum[p][t] = fma(to_f32(whole), mul(scales.scale, broadcast(x.scale(t))), sum[p][t]);
      if constexpr (has_minimum(kFormat)) {
        sum[p][t] = fma(scales.minimum, broadcast(x.scaled_sum(t)), sum[p][t]);
      }
    }
  }
}

// Output rows of one panel: where they go, and how many of the sixteen exist.
struct PanelOutput {
  float* y;
  int64_t stride;
  int64_t rows;
};

template <int kTokens>
LATHE_INLINE void load_sums(const PanelOutput& out, bool first, F32x16 (&sum)[kTokens]) {
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    sum[t] = first                ? zero()
             : out.rows == kLanes ? load(out.y + t * out.stride)
                                  : load_first(out.y + t * out.stride, out.rows);
  }
}

template <int kTokens>
LATHE_INLINE void store_sums(const PanelOutput& out, const F32x16 (&sum)[kTokens]) {
  LATHE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    if (out.rows == kLanes) {
      store(out.y + t * out.stride, sum[t]);
    } else {
      store_first(out.y + t * out.stride, sum[t], out.rows);
    }
  }
}

template <DType kFormat>
constexpr int64_t kChunkBytesOf =
    panel_layout(kFormat).scale_bytes + panel_layout(kFormat).blocks * panel_layout(kFormat).block_bytes;

// Asks for what lies as far past block b of a chunk as memory's latency. Lines are asked for block by
// block, in step with their use: a processor has room for some twenty requests at a time. Where nothing is unpacked and
// a load takes a whole line, requests into the first level are in the way of the loads (docs/performance.md, "Asking
// for weights").
template <DType kFormat>
LATHE_INLINE void prefetch_panel(const std::byte* chunk, int64_t b) {
  constexpr int64_t kBlocks = panel_layout(kFormat).blocks;
  constexpr int64_t kAhead = (kChunkBytesOf<kFormat> / kBlocks + 63) / 64 * 64;
  constexpr bool kFarther = panel_layout(kFormat).bits == 8 && kParts == 1;
  constexpr int64_t kLatency = kFarther ? 2048 : 4096;  // of memory, in bytes that are read meanwhile
  const auto ahead = reinterpret_cast<uintptr_t>(chunk + kChunkBytesOf<kFormat> * b / kBlocks);
  LATHE_UNROLL
  for (int64_t line = kLatency; line < kLatency + kAhead; line += 64) {
    if constexpr (kFarther) {
      prefetch_farther(ahead + static_cast<uintptr_t>(line));
    } else {
      prefetch(ahead + static_cast<uintptr_t>(line));
    }
  }
}

// All panels of the call.
template <DType kFormat>
struct Panels {
  static constexpr int64_t kChunkCols = panel_layout(kFormat).blocks * 32;

  const PanelGemmArgs& args;

  LATHE_INLINE int64_t stride() const { return (args.w.cols + kChunkCols - 1) / kChunkCols * kChunkBytesOf<kFormat>; }

  LATHE_INLINE const std::byte* panel(int64_t p) const { return args.w.data + p * stride(); }

  LATHE_INLINE PanelOutput output(int64_t p, int64_t token) const {
    const int64_t left = args.w.rows - p * kLanes;
    return {
        args.y + token * args.y_stride + (p - args.panel_begin) * kLanes, args.y_stride, left < kLanes ? left : kLanes};
  }
};

}  // namespace
}  // namespace lathe
