// Products of packed block formats (tensor/panels.h) with int8 activations, written once for every ISA unit (see
// vec16-inl.h). Lane r of a vector is row r of a panel: an output is one lane, so there are no horizontal sums. Integer
// sums are exact and may be taken in any order; the fp32 operations on them follow the order of PanelGemmArgs, one
// chain per output, so every tile size gives the same bits.
#pragma once

#include <type_traits>

#include "lathe/kernels/gemm-inl.h"
#include "lathe/kernels/int16-inl.h"
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
constexpr int kPanelPrefetch = 4096;  // bytes ahead, single tokens only: the memory latency in bytes

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

// Copies blocks [first, last) of kTokens rows to `out`.
template <int kTokens>
void gather_blocks(const PanelGemmArgs& args, int64_t token, int64_t first, int64_t last, std::byte* out) {
  for (int t = 0; t < kTokens; ++t) {
    const int64_t row = args.x_rows != nullptr ? args.x_rows[token + t] : token + t;
    const ActivationRow x = activation_row(args.x.data, args.x.cols, row);
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
  // A single token has two chains of products, so that their latency does not bound the rate.
  constexpr int kChains = kHalves || kTokens == 1 ? 2 : 1;
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
      for (int p = 0; p < kPanels; ++p) group_dot<kSigned>(dot[p][t][0], low[p], four);
    }
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const IntRegister four = part_broadcast_four(x.q(t, g + 4));
      LATHE_UNROLL
      for (int p = 0; p < kPanels; ++p) group_dot<kSigned>(dot[p][t][kChains - 1], high[p], four);
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

// One panel times one token, read where it lies.
template <DType kFormat>
void panel_row(const std::byte* panel, const ActivationRow& x, int64_t blocks, const PanelOutput& out) {
  constexpr PanelLayout kLayout = panel_layout(kFormat);
  F32x16 sum[1][1] = {{zero()}};
  const std::byte* chunk = panel;
  for (int64_t index = 0; index < blocks; chunk += kChunkBytesOf<kFormat>) {
    LATHE_UNROLL
    for (int64_t line = 0; line < kChunkBytesOf<kFormat>; line += 64) {
      prefetch(reinterpret_cast<uintptr_t>(chunk) + static_cast<uintptr_t>(kPanelPrefetch + line));
    }
    for (int64_t b = 0; b < kLayout.blocks && index < blocks; ++b, ++index) {
      panel_block<kFormat, 1, 1>(chunk, 0, b, RowBlock{x, index}, sum);
    }
  }
  store_sums<1>(out, sum[0]);
}

// Blocks [first, last) of kPanels neighbouring panels times kTokens gathered tokens; first is the first of a chunk.
template <DType kFormat, int kPanels, int kTokens>
__attribute__((noinline)) void packed_tile(const std::byte* panel,
                                           int64_t stride,
                                           const std::byte* gathered,
                                           int64_t first,
                                           int64_t last,
                                           const PanelOutput (&out)[kPanels]) {
  constexpr PanelLayout kLayout = panel_layout(kFormat);
  F32x16 sum[kPanels][kTokens];
  LATHE_UNROLL
  for (int p = 0; p < kPanels; ++p) load_sums<kTokens>(out[p], first == 0, sum[p]);
  const std::byte* chunk = panel + first / kLayout.blocks * kChunkBytesOf<kFormat>;
  for (int64_t index = first; index < last; chunk += kChunkBytesOf<kFormat>) {
    for (int64_t b = 0; b < kLayout.blocks && index < last; ++b, ++index, gathered += kTokens * kGatheredBytes) {
      panel_block<kFormat, kPanels, kTokens>(chunk, stride, b, GatheredBlock<kTokens>{gathered}, sum);
    }
  }
  LATHE_UNROLL
  for (int p = 0; p < kPanels; ++p) store_sums<kTokens>(out[p], sum[p]);
}

// Calls body.template operator()<n>(token) for tiles of n tokens that cover [begin, end), large ones first.
template <int kTile, class Body>
LATHE_INLINE void for_token_tiles(int64_t begin, int64_t end, const Body& body) {
  int64_t token = begin;
  for (; end - token >= kTile; token += kTile) body.template operator()<kTile>(token);
  if constexpr (kTile > 3) {
    if (end - token >= 3) {
      body.template operator()<3>(token);
      token += 3;
    }
  }
  if (end - token >= 2) {
    body.template operator()<2>(token);
    token += 2;
  }
  if (end > token) body.template operator()<1>(token);
}

// All panels of the call.
template <DType kFormat>
struct Panels {
  const PanelGemmArgs& args;

  LATHE_INLINE int64_t stride() const {
    constexpr int64_t kChunkCols = panel_layout(kFormat).blocks * 32;
    return (args.w.cols + kChunkCols - 1) / kChunkCols * kChunkBytesOf<kFormat>;
  }

  LATHE_INLINE const std::byte* panel(int64_t p) const { return args.w.data + p * stride(); }

  LATHE_INLINE PanelOutput output(int64_t p, int64_t token) const {
    const int64_t left = args.w.rows - p * kLanes;
    return {
        args.y + token * args.y_stride + (p - args.panel_begin) * kLanes, args.y_stride, left < kLanes ? left : kLanes};
  }
};

// Tokens [begin, end), at most kGatherTokens.
template <DType kFormat>
void panel_gemm_tokens(const PanelGemmArgs& args, int64_t begin, int64_t end) {
  // Two int32 accumulators per output leave room for half as many.
  constexpr int kMost = kFormat == DType::kQ6_K ? 1 : kTilePanels;
  constexpr int kTile = kFormat == DType::kQ6_K && kTilePanels == 1 ? kPanelTileTokens / 2 : kPanelTileTokens;
  alignas(64) std::byte gathered[kGatherTokens * kGatherBlocks * kGatheredBytes];
  const Panels<kFormat> panels{args};
  const int64_t blocks = args.x.cols / 32;
  for (int64_t first = 0; first < blocks; first += kGatherBlocks) {
    const int64_t last = first + kGatherBlocks < blocks ? first + kGatherBlocks : blocks;
    const auto place = [&](int64_t token) { return gathered + (token - begin) * (last - first) * kGatheredBytes; };
    for_token_tiles<kTile>(begin, end, [&]<int kTokens>(int64_t token) {
      gather_blocks<kTokens>(args, token, first, last, place(token));
    });
    int64_t p = args.panel_begin;
    const auto run = [&]<int kPanels>(std::integral_constant<int, kPanels>) __attribute__((always_inline)) {
      for (; p + kPanels <= args.panel_end; p += kPanels) {
        for_token_tiles<kTile>(begin, end, [&]<int kTokens>(int64_t token) {
          PanelOutput out[kPanels];
          for (int i = 0; i < kPanels; ++i) out[i] = panels.output(p + i, token);
          packed_tile<kFormat, kPanels, kTokens>(panels.panel(p), panels.stride(), place(token), first, last, out);
        });
      }
    };
    run(std::integral_constant<int, kMost>{});
    if constexpr (kMost > 1) run(std::integral_constant<int, 1>{});
  }
}

template <DType kFormat>
void panel_gemm_format(const PanelGemmArgs& args) {
  if (args.tokens == 1) {
    const Panels<kFormat> panels{args};
    const ActivationRow x = activation_row(args.x.data, args.x.cols, args.x_rows != nullptr ? args.x_rows[0] : 0);
    for (int64_t p = args.panel_begin; p < args.panel_end; ++p) {
      panel_row<kFormat>(panels.panel(p), x, args.x.cols / 32, panels.output(p, 0));
    }
    return;
  }
  for (int64_t begin = 0; begin < args.tokens; begin += kGatherTokens) {
    const int64_t rest = args.tokens - begin;
    panel_gemm_tokens<kFormat>(args, begin, begin + (rest < kGatherTokens ? rest : kGatherTokens));
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
