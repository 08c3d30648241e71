// Products of packed block formats with several tokens where there is no byte product with four terms (no VNNI). A
// stretch of a panel is unpacked once, into the first-level cache, and serves all gathered tokens; each format takes
// the form in which its exact integers need the fewest instructions:
//   4 and 5 bits  unsigned bytes; pairs of products are summed as int16 and widened once or twice a block
//   6 and 8 bits  signed words (for Q6_K times the scale of their half); pairs of products are int32
// The fp32 operations and their order are those of PanelGemmArgs.
#pragma once

#include "lathe/kernels/panel_block-inl.h"

namespace lathe {
namespace {

constexpr int64_t kUnpackBlocks = 8;
constexpr int kUnpackedTile = 6;  // tokens: twelve accumulators of half a panel with AVX2

template <DType kFormat>
constexpr bool kAsWords = panel_layout(kFormat).bits >= 6;

template <DType kFormat>
constexpr int64_t kUnpackedBytes = kAsWords<kFormat> ? 1024 : 512;  // of one block

// kUnpackBlocks blocks of one panel. Integers, 64 bytes each: groups 0..7, or their even and odd words in turn.
template <DType kFormat>
struct UnpackedPanel {
  alignas(64) std::byte integers[kUnpackBlocks * kUnpackedBytes<kFormat>];
  alignas(64) float scale[kUnpackBlocks * kLanes];
  alignas(64) float minimum[has_minimum(kFormat) ? kUnpackBlocks * kLanes : 1];
};

template <DType kFormat>
LATHE_INLINE void store_unpacked(std::byte* to, int g, const GroupBytes& bytes, const BlockScales& scales) {
  if constexpr (!kAsWords<kFormat>) {
    group_store(to + g * 64, bytes);
  } else {
    GroupBytes even;
    GroupBytes odd;
    group_to_words(group_subtract<panel_layout(kFormat).offset>(bytes), even, odd);
    if constexpr (kFormat == DType::kQ6_K) {
      const I32x16 factor = word_in_both_halves(scales.half[g / 4]);
      even = words_mul(even, factor);
      odd = words_mul(odd, factor);
    }
    group_store(to + g * 128, even);
    group_store(to + g * 128 + 64, odd);
  }
}

// Blocks [first, last) of a panel; first is the first of a chunk.
template <DType kFormat>
void unpack_panel(const std::byte* panel, int64_t first, int64_t last, UnpackedPanel<kFormat>& out) {
  constexpr PanelLayout kLayout = panel_layout(kFormat);
  const std::byte* chunk = panel + first / kLayout.blocks * kLayout.chunk_bytes();
  std::byte* to = out.integers;
  for (int64_t index = first; index < last; chunk += kLayout.chunk_bytes()) {
    for (int64_t b = 0; b < kLayout.blocks && index < last; ++b, ++index, to += kUnpackedBytes<kFormat>) {
      prefetch_panel<kFormat>(chunk, b);
      const std::byte* integers = chunk + kLayout.scale_bytes + b * kLayout.block_bytes;
      BlockScales scales;
      load_scales<kFormat>(chunk, b, scales);
      store(out.scale + (index - first) * kLanes, scales.scale);
      if constexpr (has_minimum(kFormat)) store(out.minimum + (index - first) * kLanes, scales.minimum);
      LATHE_UNROLL
      for (int g = 0; g < 4; ++g) {
        GroupBytes low;
        GroupBytes high;
        unpack_groups<kLayout.bits>(integers, g, low, high);
        store_unpacked<kFormat>(to, g, low, scales);
        store_unpacked<kFormat>(to, g + 4, high, scales);
      }
    }
  }
}

// Gathered activations of one block and kTokens tokens. As bytes: GatheredBlock. As words: 68 bytes per token,
//   words[8 groups][even, odd][kTokens][2] | scale[kTokens]
constexpr int64_t kWordBytes = 68;

template <DType kFormat>
constexpr int64_t kGatheredTokenBytes = kAsWords<kFormat> ? kWordBytes : kGatheredBytes;

template <int kTokens>
void gather_words(const PanelGemmArgs& args, int64_t token, int64_t first, int64_t last, std::byte* out) {
  for (int t = 0; t < kTokens; ++t) {
    const ActivationRow x = activation_row(args.x.data, args.x.cols, gathered_row(args, token + t));
    std::byte* to = out + t * 4;
    for (int64_t b = first; b < last; ++b, to += kTokens * kWordBytes) {
      std::byte words[64];  // eight even pairs, eight odd ones
      block_to_words(x.q + b * 32, words);
      LATHE_UNROLL
      for (int g = 0; g < 8; ++g) {
        __builtin_memcpy(to + (2 * g) * kTokens * 4, words + g * 4, 4);
        __builtin_memcpy(to + (2 * g + 1) * kTokens * 4, words + 32 + g * 4, 4);
      }
      __builtin_memcpy(to + kTokens * 64, x.scale + b, 4);
    }
  }
}

// Integer sums of one unpacked block and kTokens tokens.
template <DType kFormat, int kTokens>
LATHE_INLINE void unpacked_dots(const std::byte* w, const std::byte* x, I32x16 (&dot)[kTokens]) {
  if constexpr (kAsWords<kFormat>) {
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) dot[t] = i32_set(0);
    LATHE_UNROLL
    for (int v = 0; v < 16; ++v) {
      const GroupBytes words = group_load(w + v * 64);
      LATHE_UNROLL
      for (int t = 0; t < kTokens; ++t) words_dot(dot[t], words, part_broadcast_four(x + (v * kTokens + t) * 4));
    }
  } else {
    constexpr int kGroups = panel_layout(kFormat).bits == 4 ? 8 : 4;  // whose pairs of products fit int16
    const GatheredBlock<kTokens> block{x};
    LATHE_UNROLL
    for (int first = 0; first < 8; first += kGroups) {
      GroupBytes pairs[kTokens];
      LATHE_UNROLL
      for (int g = first; g < first + kGroups; ++g) {
        const GroupBytes bytes = group_load(w + g * 64);
        LATHE_UNROLL
        for (int t = 0; t < kTokens; ++t) {
          const GroupBytes products = group_pairs(bytes, part_broadcast_four(block.q(t, g)));
          if (g == first) {
            pairs[t] = products;
          } else {
            pairs_add(pairs[t], products);
          }
        }
      }
      LATHE_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const I32x16 before = first == 0 ? i32_set(offset_sum<kFormat>(block.sum(t))) : dot[t];
        dot[t] = i32_add(before, pairs_sum(pairs[t]));
      }
    }
  }
}

// `blocks` unpacked blocks times kTokens gathered tokens, added to y (or set, where they are the first).
template <DType kFormat, int kTokens>
__attribute__((noinline)) void unpacked_tile(
    const UnpackedPanel<kFormat>& panel, const std::byte* x, int64_t blocks, bool first, const PanelOutput& out) {
  F32x16 sum[kTokens];
  load_sums<kTokens>(out, first, sum);
  for (int64_t b = 0; b < blocks; ++b, x += kTokens * kGatheredTokenBytes<kFormat>) {
    I32x16 dot[kTokens];
    unpacked_dots<kFormat, kTokens>(panel.integers + b * kUnpackedBytes<kFormat>, x, dot);
    const F32x16 scale = load(panel.scale + b * kLanes);
    const GatheredBlock<kTokens> block{x};
    const auto* word_scales = reinterpret_cast<const float*>(x + kTokens * 64);
    LATHE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const float x_scale = kAsWords<kFormat> ? word_scales[t] : block.scale(t);
      sum[t] = fma(to_f32(dot[t]), mul(scale, broadcast(x_scale)), sum[t]);
      if constexpr (has_minimum(kFormat)) {
        sum[t] = fma(load(panel.minimum + b * kLanes), broadcast(block.scaled_sum(t)), sum[t]);
      }
    }
  }
  store_sums<kTokens>(out, sum);
}

// Tokens [begin, end), at most kGatherTokens.
template <DType kFormat>
void unpacked_gemm_tokens(const PanelGemmArgs& args, int64_t begin, int64_t end) {
  constexpr int64_t kTokenBytes = kGatheredTokenBytes<kFormat>;
  alignas(64) std::byte gathered[kGatherTokens * kGatherBlocks * kTokenBytes];
  UnpackedPanel<kFormat> unpacked;
  const Panels<kFormat> panels{args};
  const int64_t blocks = args.x.cols / 32;
  for (int64_t first = 0; first < blocks; first += kGatherBlocks) {
    const int64_t last = first + kGatherBlocks < blocks ? first + kGatherBlocks : blocks;
    const auto place = [&](int64_t token) { return gathered + (token - begin) * (last - first) * kTokenBytes; };
    for_token_tiles<kUnpackedTile>(begin, end, [&]<int kTokens>(int64_t token) {
      if constexpr (kAsWords<kFormat>) {
        gather_words<kTokens>(args, token, first, last, place(token));
      } else {
        gather_blocks<kTokens>(args, token, first, last, place(token));
      }
    });
    for (int64_t p = args.panel_begin; p < args.panel_end; ++p) {
      for (int64_t from = first; from < last; from += kUnpackBlocks) {
        const int64_t to = from + kUnpackBlocks < last ? from + kUnpackBlocks : last;
        unpack_panel<kFormat>(panels.panel(p), from, to, unpacked);
        for_token_tiles<kUnpackedTile>(begin, end, [&]<int kTokens>(int64_t token) {
          const std::byte* x = place(token) + (from - first) * kTokens * kTokenBytes;
          unpacked_tile<kFormat, kTokens>(unpacked, x, to - from, from == 0, panels.output(p, token));
        });
      }
    }
  }
}

}  // namespace
}  // namespace lathe
