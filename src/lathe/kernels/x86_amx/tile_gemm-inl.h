// Products of packed block formats (tensor/panels.h) with many tokens on tile registers. Sixteen tokens times the
// sixteen rows of a panel are one tile of int32 sums. A block has scales of its own, so its sums have to leave the tile
// after 32 columns (Q6_K: 16): they go through memory into vector registers, where the fp32 operations of PanelGemmArgs
// follow, one chain per output, with the bits of all other tables. That takes longer than the products, so several
// blocks are under way at a time: while one is converted, the tiles of the next ones are at work.
//
// Integers of weights are unpacked to signed bytes once for up to kTiledTokens tokens; group g of a block (four columns
// of sixteen rows) is row g of its tile as it lies. What is below is written for any `Tiles` like HardwareTiles.
#pragma once

#include "lathe/kernels/panel_block-inl.h"
#include "lathe/kernels/x86_amx/tile_shapes-inl.h"

namespace lathe {
namespace {

constexpr int kTokensOfTile = 16;
constexpr int64_t kTiledTokens = 128;      // gathered at a time: with kTiledBlocks, 320 KiB for the second-level cache
constexpr int64_t kTiledBlocks = 64;       // gathered at a time
constexpr int64_t kTileUnpackBlocks = 16;  // 11 KiB of weights stay in the first-level cache for all gathered tokens
// Below, a tile would be mostly padding. Estimated from instruction counts, not measured: a full tile should take about
// as long as six tokens do without tiles.
constexpr int64_t kFewestTileTokens = 8;

enum class TileForm {
  kPlain,    // fma(i, scale * xs)
  kMinimum,  // and fma(minimum, s)
  kHalves,   // the integers of both halves have factors
};

constexpr TileForm tile_form(DType format) {
  return format == DType::kQ6_K ? TileForm::kHalves : has_minimum(format) ? TileForm::kMinimum : TileForm::kPlain;
}

// Registers 0..3 take sums, 4 and 5 activations, 6 and 7 weights.
constexpr int kSumTiles = 4;

template <TileForm kForm>
constexpr int kSumsPerBlock = kForm == TileForm::kHalves ? 2 : 1;

template <TileForm kForm>
constexpr int kBlocksInFlight = kSumTiles / kSumsPerBlock<kForm>;

constexpr int64_t kSumTileBytes = int64_t{kTokensOfTile} * kLanes * 4;

template <TileForm kForm>
constexpr int64_t kSumsBytes = kSumsPerBlock<kForm> * kSumTileBytes;

constexpr TileShapes tile_shapes(TileForm form) {
  const int columns = form == TileForm::kHalves ? 16 : 32;
  TileShapes out;
  for (int i = 0; i < 8; ++i) {
    out.rows[i] = static_cast<uint8_t>(i < 6 ? kTokensOfTile : columns / 4);
    out.row_bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? columns : 64);
  }
  return out;
}

// ---- what is read: gathered activations and unpacked weights -------------------------------------------------------

// One block of sixteen tokens: q[16][32] | scale[16] | scaled_sum[16]. Tokens that do not exist are zero.
constexpr int64_t kTiledBlockBytes = int64_t{kTokensOfTile} * 40;

// Copies blocks [first, last) of `count` tokens from `token` on.
inline void gather_tile(
    const PanelGemmArgs& args, int64_t token, int64_t count, int64_t first, int64_t last, std::byte* out) {
  for (int64_t t = 0; t < kTokensOfTile; ++t) {
    std::byte* q = out + t * 32;
    std::byte* scale = out + kTokensOfTile * 32 + t * 4;
    if (t >= count) {
      for (int64_t b = first; b < last; ++b, q += kTiledBlockBytes, scale += kTiledBlockBytes) {
        __builtin_memset(q, 0, 32);
        __builtin_memset(scale, 0, 4);
        __builtin_memset(scale + kTokensOfTile * 4, 0, 4);
      }
      continue;
    }
    const ActivationRow x = activation_row(args.x.data, args.x.cols, gathered_row(args, token + t));
    for (int64_t b = first; b < last; ++b, q += kTiledBlockBytes, scale += kTiledBlockBytes) {
      __builtin_memcpy(q, x.q + b * 32, 32);
      __builtin_memcpy(scale, x.scale + b, 4);
      __builtin_memcpy(scale + kTokensOfTile * 4, x.scaled_sum + b, 4);
    }
  }
}

// One block of sixteen rows: groups[8][64], signed | scale[16] | minimum[16], or the factors of both halves, [2][16].
constexpr int64_t kUnpackedTileBytes = 512 + 3 * 64;

LATHE_INLINE const float* unpacked_floats(const std::byte* block, int array) {
  return reinterpret_cast<const float*>(block + 512) + array * kLanes;
}

// Blocks [first, last) of a panel; first is the first of a chunk. Asks for as many that follow.
template <DType kFormat>
void unpack_tiles(const std::byte* panel, int64_t first, int64_t last, std::byte* out) {
  constexpr PanelLayout kLayout = panel_layout(kFormat);
  constexpr int64_t kChunkBytes = kChunkBytesOf<kFormat>;
  constexpr int64_t kAhead = (kChunkBytes / kLayout.blocks + 63) / 64 * 64;
  static_assert(kTileUnpackBlocks % kLayout.blocks == 0 && kTiledBlocks % kTileUnpackBlocks == 0);
  const std::byte* chunk = panel + first / kLayout.blocks * kChunkBytes;
  for (int64_t index = first; index < last; chunk += kChunkBytes) {
    for (int64_t b = 0; b < kLayout.blocks && index < last; ++b, ++index, out += kUnpackedTileBytes) {
      const auto ahead = reinterpret_cast<uintptr_t>(chunk + kChunkBytes * b / kLayout.blocks) +
                         static_cast<uintptr_t>(kTileUnpackBlocks / kLayout.blocks * kChunkBytes);
      LATHE_UNROLL
      for (int64_t line = 0; line < kAhead; line += 64) prefetch(ahead + static_cast<uintptr_t>(line));
      const std::byte* integers = chunk + kLayout.scale_bytes + b * kLayout.block_bytes;
      LATHE_UNROLL
      for (int g = 0; g < 4; ++g) {
        GroupBytes low;
        GroupBytes high;
        unpack_groups<kLayout.bits>(integers, g, low, high);
        group_store(out + g * 64, group_subtract<kLayout.offset>(low));
        group_store(out + (g + 4) * 64, group_subtract<kLayout.offset>(high));
      }
      BlockScales scales;
      load_scales<kFormat>(chunk, b, scales);
      auto* floats = reinterpret_cast<float*>(out + 512);
      store(floats, scales.scale);
      if constexpr (has_minimum(kFormat)) store(floats + kLanes, scales.minimum);
      if constexpr (kFormat == DType::kQ6_K) {
        store(floats + kLanes, to_f32(scales.half[0]));
        store(floats + 2 * kLanes, to_f32(scales.half[1]));
      }
    }
  }
}

// ---- one panel times sixteen tokens --------------------------------------------------------------------------------

// Lets the tiles of a block begin: its sums are those from tile kSlot * kSumsPerBlock on.
template <TileForm kForm, int kSlot, class Tiles>
LATHE_INLINE void start_block(Tiles& tiles, const std::byte* w, const std::byte* x) {
  if constexpr (kForm == TileForm::kHalves) {
    tiles.template load<4>(x, 32);
    tiles.template load<6>(w, 64);
    tiles.template zero<2 * kSlot>();
    tiles.template dot<2 * kSlot, 4, 6>();
    tiles.template load<5>(x + 16, 32);
    tiles.template load<7>(w + 256, 64);
    tiles.template zero<2 * kSlot + 1>();
    tiles.template dot<2 * kSlot + 1, 5, 7>();
  } else {
    constexpr int kPair = kSlot % 2;
    tiles.template load<4 + kPair>(x, 32);
    tiles.template load<6 + kPair>(w, 64);
    tiles.template zero<kSlot>();
    tiles.template dot<kSlot, 4 + kPair, 6 + kPair>();
  }
}

template <TileForm kForm, int kSlot, class Tiles>
LATHE_INLINE void store_block(Tiles& tiles, std::byte* sums) {
  if constexpr (kForm == TileForm::kHalves) {
    tiles.template store<2 * kSlot>(sums, kLanes * 4);
    tiles.template store<2 * kSlot + 1>(sums + kSumTileBytes, kLanes * 4);
  } else {
    tiles.template store<kSlot>(sums, kLanes * 4);
  }
}

LATHE_INLINE F32x16 integers_to_f32(const std::byte* integers) {
  const GroupBytes bytes = group_load(integers);
  I32x16 out;
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) out.part[p] = bytes.part[p];
  return to_f32(out);
}

// sum[t] += what a block adds, given its integer sums.
template <TileForm kForm>
LATHE_INLINE void finish_block(const std::byte* sums,
                               const std::byte* w,
                               const std::byte* x,
                               F32x16 (&sum)[kTokensOfTile]) {
  const auto* x_scale = reinterpret_cast<const float*>(x + kTokensOfTile * 32);
  const F32x16 scale = load(unpacked_floats(w, 0));
  LATHE_UNROLL
  for (int t = 0; t < kTokensOfTile; ++t) {
    F32x16 whole = integers_to_f32(sums + t * kLanes * 4);
    if constexpr (kForm == TileForm::kHalves) {
      // All of these are integers below 2^24, so nothing is rounded: 2 * 128 * (16 * 32 * 127).
      whole = mul(whole, load(unpacked_floats(w, 1)));
      whole = fma(integers_to_f32(sums + kSumTileBytes + t * kLanes * 4), load(unpacked_floats(w, 2)), whole);
    }
    sum[t] = fma(whole, mul(scale, broadcast(x_scale[t])), sum[t]);
    if constexpr (kForm == TileForm::kMinimum) {
      sum[t] = fma(load(unpacked_floats(w, 1)), broadcast(x_scale[kTokensOfTile + t]), sum[t]);
    }
  }
}

// One panel, sixteen tokens, and the blocks of both that are multiplied.
struct TileWork {
  const std::byte* w;  // unpacked
  const std::byte* x;  // gathered
  int64_t blocks;
};

template <TileForm kForm, int kSlot, class Tiles>
LATHE_INLINE void start(Tiles& tiles, const TileWork& work, int64_t b) {
  if (b >= work.blocks) return;
  start_block<kForm, kSlot>(tiles, work.w + b * kUnpackedTileBytes, work.x + b * kTiledBlockBytes);
}

template <TileForm kForm>
LATHE_INLINE void finish(const std::byte* sums, const TileWork& work, int64_t b, F32x16 (&sum)[kTokensOfTile]) {
  finish_block<kForm>(sums, work.w + b * kUnpackedTileBytes, work.x + b * kTiledBlockBytes, sum);
}

// Stores the integer sums of block b, gives its tiles to a later one, and finishes the block before, whose sums have
// reached the cache by now. Functions rather than lambdas: with those, g++ 12 keeps `sum` in memory.
template <TileForm kForm, int kSlot, class Tiles>
LATHE_INLINE void step(Tiles& tiles, std::byte* sums, const TileWork& work, int64_t b, F32x16 (&sum)[kTokensOfTile]) {
  constexpr int kBefore = (kSlot + kBlocksInFlight<kForm> - 1) % kBlocksInFlight<kForm>;
  if (b >= work.blocks) return;
  store_block<kForm, kSlot>(tiles, sums + kSlot * kSumsBytes<kForm>);
  start<kForm, kSlot>(tiles, work, b + kBlocksInFlight<kForm>);
  if (b > 0) finish<kForm>(sums + kBefore * kSumsBytes<kForm>, work, b - 1, sum);
}

// Adds the product to y, [16][16], rows `stride` floats apart; or sets it, where it is the first.
template <TileForm kForm, class Tiles>
__attribute__((noinline)) void tile_product(Tiles& tiles, const TileWork& work, bool first, float* y, int64_t stride) {
  constexpr int kInFlight = kBlocksInFlight<kForm>;
  alignas(64) std::byte sums[kInFlight * kSumsBytes<kForm>];
  F32x16 sum[kTokensOfTile];
  LATHE_UNROLL
  for (int t = 0; t < kTokensOfTile; ++t) sum[t] = first ? zero() : load(y + t * stride);
  start<kForm, 0>(tiles, work, 0);
  start<kForm, 1>(tiles, work, 1);
  if constexpr (kInFlight == 4) {
    start<kForm, 2>(tiles, work, 2);
    start<kForm, 3>(tiles, work, 3);
  }
  for (int64_t b = 0; b < work.blocks; b += kInFlight) {
    step<kForm, 0>(tiles, sums, work, b, sum);
    step<kForm, 1>(tiles, sums, work, b + 1, sum);
    if constexpr (kInFlight == 4) {
      step<kForm, 2>(tiles, sums, work, b + 2, sum);
      step<kForm, 3>(tiles, sums, work, b + 3, sum);
    }
  }
  const int64_t last = work.blocks - 1;
  finish<kForm>(sums + last % kInFlight * kSumsBytes<kForm>, work, last, sum);
  LATHE_UNROLL
  for (int t = 0; t < kTokensOfTile; ++t) store(y + t * stride, sum[t]);
}

// The same where only `tokens` tokens and out.rows rows exist.
template <TileForm kForm, class Tiles>
void tile_product_at_edge(Tiles& tiles, const TileWork& work, bool first, int64_t tokens, const PanelOutput& out) {
  alignas(64) float y[kTokensOfTile * kLanes] = {};
  for (int64_t t = 0; t < tokens && !first; ++t) store(y + t * kLanes, load_first(out.y + t * out.stride, out.rows));
  tile_product<kForm>(tiles, work, first, y, kLanes);
  for (int64_t t = 0; t < tokens; ++t) store_first(out.y + t * out.stride, load(y + t * kLanes), out.rows);
}

// ---- the call ------------------------------------------------------------------------------------------------------

// Tokens [begin, end), at most kTiledTokens.
template <DType kFormat, class Tiles>
void tile_gemm_tokens(Tiles& tiles, const PanelGemmArgs& args, int64_t begin, int64_t end) {
  alignas(64) std::byte gathered[kTiledTokens / kTokensOfTile * kTiledBlocks * kTiledBlockBytes];
  alignas(64) std::byte unpacked[kTileUnpackBlocks * kUnpackedTileBytes];
  const Panels<kFormat> panels{args};
  const int64_t blocks = args.x.cols / 32;
  for (int64_t first = 0; first < blocks; first += kTiledBlocks) {
    const int64_t last = first + kTiledBlocks < blocks ? first + kTiledBlocks : blocks;
    // Calls body(token, count, its gathered blocks) for every sixteen tokens.
    const auto for_tiles = [&](const auto& body) __attribute__((always_inline)) {
      for (int64_t token = begin; token < end; token += kTokensOfTile) {
        const int64_t count = end - token < kTokensOfTile ? end - token : kTokensOfTile;
        body(token, count, gathered + (token - begin) / kTokensOfTile * (last - first) * kTiledBlockBytes);
      }
    };
    for_tiles([&](int64_t token, int64_t count, std::byte* x) { gather_tile(args, token, count, first, last, x); });
    for (int64_t p = args.panel_begin; p < args.panel_end; ++p) {
      for (int64_t from = first; from < last; from += kTileUnpackBlocks) {
        const int64_t to = from + kTileUnpackBlocks < last ? from + kTileUnpackBlocks : last;
        unpack_tiles<kFormat>(panels.panel(p), from, to, unpacked);
        for_tiles([&](int64_t token, int64_t count, const std::byte* x) {
          const TileWork work{unpacked, x + (from - first) * kTiledBlockBytes, to - from};
          const PanelOutput out = panels.output(p, token);
          if (count == kTokensOfTile && out.rows == kLanes) {
            tile_product<tile_form(kFormat)>(tiles, work, from == 0, out.y, out.stride);
          } else {
            tile_product_at_edge<tile_form(kFormat)>(tiles, work, from == 0, count, out);
          }
        });
      }
    }
  }
}

template <DType kFormat, class Tiles>
void tile_gemm_format(Tiles& tiles, const PanelGemmArgs& args, int64_t tokens) {
  constexpr TileShapes kShapes = tile_shapes(tile_form(kFormat));
  tiles.configure(kShapes);
  for (int64_t begin = 0; begin < tokens; begin += kTiledTokens) {
    tile_gemm_tokens<kFormat>(tiles, args, begin, begin + kTiledTokens < tokens ? begin + kTiledTokens : tokens);
  }
  tiles.release();
}

// The first `tokens` tokens of the call.
template <class Tiles>
void tile_gemm(Tiles& tiles, const PanelGemmArgs& args, int64_t tokens) {
  switch (args.w.dtype) {
    case DType::kQ4_0:
      return tile_gemm_format<DType::kQ4_0>(tiles, args, tokens);
    case DType::kQ4_1:
      return tile_gemm_format<DType::kQ4_1>(tiles, args, tokens);
    case DType::kQ5_0:
      return tile_gemm_format<DType::kQ5_0>(tiles, args, tokens);
    case DType::kQ5_1:
      return tile_gemm_format<DType::kQ5_1>(tiles, args, tokens);
    case DType::kQ8_0:
      return tile_gemm_format<DType::kQ8_0>(tiles, args, tokens);
    case DType::kQ4_K:
      return tile_gemm_format<DType::kQ4_K>(tiles, args, tokens);
    case DType::kQ5_K:
      return tile_gemm_format<DType::kQ5_K>(tiles, args, tokens);
    case DType::kQ6_K:
      return tile_gemm_format<DType::kQ6_K>(tiles, args, tokens);
    default:
      __builtin_trap();  // not a format that this table promises
  }
}

// The whole call. Tokens that would leave a tile mostly empty go to `few`, which computes them from panels as they lie.
template <class Tiles>
void tile_panel_gemm(Tiles& tiles, const PanelGemmArgs& args, void (*few)(const PanelGemmArgs&)) {
  const int64_t rest = args.tokens % kTokensOfTile;
  const int64_t tiled = rest >= kFewestTileTokens ? args.tokens : args.tokens - rest;
  if (tiled > 0) tile_gemm(tiles, args, tiled);
  if (tiled == args.tokens) return;
  PanelGemmArgs others = args;
  others.tokens -= tiled;
  others.y += tiled * args.y_stride;
  if (args.x_rows != nullptr) {
    others.x_rows += tiled;
  } else {
    others.x.data += tiled * activation_bytes(args.x.cols);
  }
  few(others);
}

}  // namespace
}  // namespace lathe
