// Products of packed block formats (tensor/panels.h) with int8 activations, and the quantisation of those: the entries
// of the table. Single tokens and, with VNNI, many read panels where they lie; without it, many tokens share an
// unpacked copy.
#pragma once

#include <type_traits>

#include "lathe/kernels/panel_block-inl.h"
#include "lathe/kernels/panel_unpacked-inl.h"

namespace lathe {
namespace {

// One panel times one token, read where it lies.
template <DType kFormat>
void panel_row(const std::byte* panel, const ActivationRow& x, int64_t blocks, const PanelOutput& out) {
  constexpr PanelLayout kLayout = panel_layout(kFormat);
  F32x16 sum[1][1] = {{zero()}};
  const std::byte* chunk = panel;
  for (int64_t index = 0; index < blocks; chunk += kChunkBytesOf<kFormat>) {
    for (int64_t b = 0; b < kLayout.blocks && index < blocks; ++b, ++index) {
      prefetch_panel<kFormat>(chunk, b);
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
      // So few tokens are quicker than the memory that the panel comes from.
      if constexpr (kPanels == 1 && kTokens <= 3) prefetch_panel<kFormat>(chunk, b);
      panel_block<kFormat, kPanels, kTokens>(chunk, stride, b, GatheredBlock<kTokens>{gathered}, sum);
    }
  }
  LATHE_UNROLL
  for (int p = 0; p < kPanels; ++p) store_sums<kTokens>(out[p], sum[p]);
}

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
  // Few tokens do not pay for unpacking.
  constexpr int64_t kFewTokens = 4;
  for (int64_t begin = 0; begin < args.tokens; begin += kGatherTokens) {
    const int64_t rest = args.tokens - begin;
    const int64_t end = begin + (rest < kGatherTokens ? rest : kGatherTokens);
    if (kHasByteDot || end - begin < kFewTokens) {
      panel_gemm_tokens<kFormat>(args, begin, end);
    } else if constexpr (!kHasByteDot) {
      unpacked_gemm_tokens<kFormat>(args, begin, end);
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
