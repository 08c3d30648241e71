#include "lathe/attention/lanes.h"

#include <algorithm>
#include <limits>
#include <span>

namespace lathe {

namespace {

// What is read after a tile, handed out to the steps of the work on it.
struct AheadShares {
  SoonRead whole;
  int64_t all = 0;   // shares
  int64_t done = 0;  // of them

  SoonRead take(int64_t count) {
    const int64_t begin = whole.bytes * done / all;
    done += count;
    return {whole.data + begin, whole.bytes * done / all - begin};
  }
};

constexpr int64_t strips_of(int64_t cols) {
  return (cols + kStripColumns - 1) / kStripColumns;
}

struct TileScratch {
  float* strip;         // [64, 64]
  float* scores_GS;     // [8, 64, 16]
  float* factor_GL;     // [8, 16]
  int32_t* visible_GL;  // [8, 16]
};

TileScratch split_scratch(float* memory) {
  float* scores = memory + kStripFloats;
  float* factors = scores + kLaneBatch * kLaneScores;
  return {memory, scores, factors, reinterpret_cast<int32_t*>(factors + kLaneBatch * kLaneGroup)};
}

// Runs product(column, cols, ahead) for the strips of `total` columns from `first` on, each loaded before.
template <class Product>
void for_strips(const KernelTable& kernels,
                const LaneTile& tile,
                int64_t first,
                int64_t total,
                float* strip,
                AheadShares& ahead,
                const Product& product) {
  for (int64_t column = 0; column < total; column += kStripColumns) {
    const int64_t cols = std::min(kStripColumns, total - column);
    kernels.load_strip({.format = tile.format,
                        .data = tile.data,
                        .elements = tile.elements,
                        .stride = cache_row_bytes(tile.format, tile.elements),
                        .first = first + column,
                        .rows = tile.keys,
                        .cols = cols},
                       strip);
    product(column, cols, ahead.take(1));
  }
}

// Lanes that have a row, as far as it saves work to know: of several groups all.
int64_t lanes_in_use(const LaneBlock& b, int64_t first, int64_t groups) {
  const auto lanes = std::span(b.position_GL + first * kLaneGroup, kLaneGroup);
  const bool half = groups == 1 && std::ranges::all_of(lanes.last(kLaneGroup / 2), [](int64_t p) { return p < 0; });
  return half ? kLaneGroup / 2 : kLaneGroup;
}

// Lane groups [first, first + groups) of a block and the tile that they take in.
struct Batch {
  const KernelTable& kernels;
  const LaneBlock& block;
  const LaneTile& tile;
  const TileScratch& scratch;
  int64_t first;
  int64_t groups;
  int64_t lanes;  // of every group, the others have no row

  // Whether products with the tile are taken in integers.
  bool in_integers() const { return block.q8_GK != nullptr && tile.format == CacheFormat::kQ8; }
};

// Raw scores.
void take_scores(const Batch& batch, AheadShares& ahead) {
  const LaneBlock& b = batch.block;
  const LaneTile& tile = batch.tile;
  if (batch.in_integers()) {
    batch.kernels.lane_scores_q8({.rows = tile.data,
                                  .elements = tile.elements,
                                  .first = tile.key_first,
                                  .keys = tile.keys,
                                  .blocks = cache_groups(b.key_cols),
                                  .q = b.q8_GK + batch.first * lane_q8_bytes(b.key_cols),
                                  .q_stride = lane_q8_bytes(b.key_cols),
                                  .scores = batch.scratch.scores_GS,
                                  .groups = batch.groups,
                                  .lanes = batch.lanes,
                                  .ahead = ahead.take(strips_of(b.key_cols))});
    return;
  }
  const int64_t q_stride = b.key_cols * kLaneGroup;
  const auto score = [&](int64_t column, int64_t cols, SoonRead soon) {
    batch.kernels.lane_scores({.strip = batch.scratch.strip,
                               .keys = tile.keys,
                               .cols = cols,
                               .q = b.q_GKL + batch.first * q_stride + column * kLaneGroup,
                               .q_stride = q_stride,
                               .scores = batch.scratch.scores_GS,
                               .groups = batch.groups,
                               .accumulate = column > 0,
                               .lanes = batch.lanes,
                               .ahead = soon});
  };
  for_strips(batch.kernels, tile, tile.key_first, b.key_cols, batch.scratch.strip, ahead, score);
}

// Adds the tile's values, weighted by what the scores have become.
void add_values(const Batch& batch, AheadShares& ahead) {
  const LaneBlock& b = batch.block;
  const LaneTile& tile = batch.tile;
  const int64_t out_stride = lane_columns(b.value_cols) * kLaneGroup;
  if (batch.in_integers() && tile.value_first % kCacheGroup == 0 && b.value_cols % kCacheGroup == 0) {
    batch.kernels.lane_values_q8({.rows = tile.data,
                                  .elements = tile.elements,
                                  .first = tile.value_first,
                                  .keys = tile.keys,
                                  .blocks = b.value_cols / kCacheGroup,
                                  .weights = batch.scratch.scores_GS,
                                  .visible = batch.scratch.visible_GL,
                                  .factor = batch.scratch.factor_GL,
                                  .out = b.out_GVL + batch.first * out_stride,
                                  .out_stride = out_stride,
                                  .groups = batch.groups,
                                  .lanes = batch.lanes,
                                  .ahead = ahead.take(strips_of(b.value_cols))});
    return;
  }
  const auto add = [&](int64_t column, int64_t cols, SoonRead soon) {
    batch.kernels.lane_values({.strip = batch.scratch.strip,
                               .keys = tile.keys,
                               .cols = cols,
                               .weights = batch.scratch.scores_GS,
                               .factor = batch.scratch.factor_GL,
                               .out = b.out_GVL + batch.first * out_stride + column * kLaneGroup,
                               .out_stride = out_stride,
                               .groups = batch.groups,
                               .lanes = batch.lanes,
                               .ahead = soon});
  };
  for_strips(batch.kernels, tile, tile.value_first, b.value_cols, batch.scratch.strip, ahead, add);
}

// At most kLaneBatch groups. Each strip is converted once for the scores and once for the values: cheaper than to keep
// the converted tile, which is larger than the first-level cache.
void attend_batch(const Batch& batch, float scale) {
  const LaneBlock& b = batch.block;
  const LaneTile& tile = batch.tile;
  const TileScratch& scratch = batch.scratch;
  AheadShares ahead{.whole = tile.ahead, .all = strips_of(b.key_cols) + strips_of(b.value_cols)};
  take_scores(batch, ahead);
  for (int64_t g = 0; g < batch.groups; ++g) {
    const int64_t lane = (batch.first + g) * kLaneGroup;
    int32_t* visible = scratch.visible_GL + g * kLaneGroup;
    for (int64_t i = 0; i < kLaneGroup; ++i) {
      visible[i] = static_cast<int32_t>(std::clamp(b.position_GL[lane + i] + 1 - tile.start, int64_t{0}, tile.keys));
    }
    batch.kernels.lane_softmax({.scores = scratch.scores_GS + g * kLaneScores,
                                .keys = tile.keys,
                                .visible = visible,
                                .scale = scale,
                                .maximum = b.maximum_GL + lane,
                                .sum = b.sum_GL + lane,
                                .factor = scratch.factor_GL + g * kLaneGroup});
  }
  add_values(batch, ahead);
}

}  // namespace

int64_t lane_block_floats(int64_t key_cols, int64_t value_cols, int64_t groups) {
  constexpr int64_t kPerLane = 2 + static_cast<int64_t>(sizeof(int64_t) / sizeof(float));
  return groups * kLaneGroup * (key_cols + lane_columns(value_cols) + kPerLane);
}

LaneBlock make_lane_block(float* memory, int64_t key_cols, int64_t value_cols, int64_t groups) {
  const int64_t lanes = groups * kLaneGroup;
  LaneBlock block{.key_cols = key_cols,
                  .value_cols = value_cols,
                  .groups = groups,
                  .q_GKL = memory,
                  .out_GVL = memory + lanes * key_cols,
                  .maximum_GL = nullptr,
                  .sum_GL = nullptr,
                  .position_GL = nullptr,
                  .q8_GK = nullptr};
  block.maximum_GL = block.out_GVL + lanes * lane_columns(value_cols);
  block.sum_GL = block.maximum_GL + lanes;
  block.position_GL = reinterpret_cast<int64_t*>(block.sum_GL + lanes);
  std::fill_n(block.out_GVL, lanes * lane_columns(value_cols), 0.0F);
  std::fill_n(block.maximum_GL, lanes, -std::numeric_limits<float>::infinity());
  std::fill_n(block.sum_GL, lanes, 0.0F);
  std::fill_n(block.position_GL, lanes, int64_t{-1});
  return block;
}

int64_t lane_q8_bytes(int64_t key_cols) {
  return cache_groups(key_cols) * kLaneBlockBytes;
}

void quantise_queries(const KernelTable& kernels, LaneBlock& block, std::byte* memory) {
  block.q8_GK = memory;
  for (int64_t g = 0; g < block.groups; ++g) {
    kernels.lane_quantise({.q = block.q_GKL + g * kLaneGroup * block.key_cols,
                           .cols = block.key_cols,
                           .out = memory + g * lane_q8_bytes(block.key_cols)});
  }
}

int64_t lane_scratch_floats() {
  static_assert(sizeof(int32_t) == sizeof(float));
  return kStripFloats + kLaneBatch * (kLaneScores + 2 * kLaneGroup);
}

void attend_tile(const KernelTable& kernels,
                 const LaneBlock& block,
                 int64_t first,
                 int64_t last,
                 const LaneTile& tile,
                 float scale,
                 float* scratch) {
  const TileScratch parts = split_scratch(scratch);
  for (int64_t g = first; g < last; g += kLaneBatch) {
    const int64_t groups = std::min(kLaneBatch, last - g);
    attend_batch({.kernels = kernels,
                  .block = block,
                  .tile = tile,
                  .scratch = parts,
                  .first = g,
                  .groups = groups,
                  .lanes = lanes_in_use(block, g, groups)},
                 scale);
  }
}

}  // namespace lathe
