// Shape letters as in mla.cpp; a row of expanded keys and values (E) is [k^R | k^C | v], R + N + V columns.
#include "lathe/attention/mla_expanded.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "lathe/attention/lanes.h"
#include "lathe/attention/mla_heads.h"
#include "lathe/tensor/blocks.h"

namespace lathe {

namespace {

constexpr int64_t kQueryBlock = 2048;  // most queries that share one expansion of a tile
constexpr int64_t kSpanTiles = 4;      // tiles expanded at a time: a block's queries pass by once for all of them

int64_t block_groups(int64_t tokens) {
  return (std::min(tokens, kQueryBlock) + kLaneGroup - 1) / kLaneGroup;
}

int64_t expanded_row(const MlaShape& s) {
  return s.qk_rope_head_dim + s.qk_nope_head_dim + s.v_head_dim;
}

// Where the scratch of one thread lies.
struct Layout {
  int64_t latents = 0;    // [64, C] in fp32
  int64_t quantised = 0;  // the same in int8
  int64_t expanded = 0;   // [4 tiles, 64, E]
  int64_t tile = 0;       // of attend_tile
  int64_t block = 0;      // lane groups of the queries
  int64_t total = 0;
};

Layout layout_of(const MlaShape& s, int64_t tokens) {
  const auto padded = Workspace::padded;
  Layout at;
  at.quantised = at.latents + padded(kPageTokens * s.kv_lora_rank);
  at.expanded = at.quantised + quantised_floats(kPageTokens, s.kv_lora_rank / kBlock * kBlock);
  at.tile = at.expanded + padded(kSpanTiles * kPageTokens * expanded_row(s));
  at.block = at.tile + padded(lane_scratch_floats());
  at.total = at.block + padded(lane_block_floats(s.qk_head_dim(), s.v_head_dim, block_groups(tokens)));
  return at;
}

// Where the latents of a tile go before they are expanded.
struct LatentScratch {
  float* latents_SC;
  QuantisedRows quantised;  // where the weights are packed
};

// Rows of one head for the positions [start, start + keys): k^R as cached, then what the latents expand to.
void expand_tile(const MlaHead& head,
                 const CacheView& cache,
                 int64_t start,
                 int64_t keys,
                 const LatentScratch& scratch,
                 float* out_SE) {
  const MlaShape& s = head.shape;
  const int64_t stride = expanded_row(s);
  const bool quantised = reads_quantised_latents(head.weights);
  for (int64_t i = 0; i < keys; ++i) {
    float* latent_C = scratch.latents_SC + i * s.kv_lora_rank;
    cache.load(head.kernels, start + i, 0, s.kv_lora_rank, latent_C);
    cache.load(head.kernels, start + i, s.kv_lora_rank, s.qk_rope_head_dim, out_SE + i * stride);
    if (quantised) head.kernels.quantise(latent_C, 0, s.kv_lora_rank / kBlock, scratch.quantised, i);
  }
  expand_latents(head, keys, scratch.latents_SC, scratch.quantised, {out_SE + s.qk_rope_head_dim, stride});
}

// Head h of queries [begin, end) of a segment.
struct Unit {
  const AttentionSegment& segment;
  int64_t h;
  int64_t begin;
  int64_t end;

  int64_t queries() const { return end - begin; }

  int64_t first_position() const { return segment.position + begin; }

  // Index of query t of the unit among the (token, head) pairs of the batch.
  int64_t pair(const MlaShape& s, int64_t t) const { return (segment.first_row + begin + t) * s.num_heads + h; }
};

// Queries as [q^R | q^C] in lanes, with their positions.
void load_queries(
    const KernelTable& kernels, const MlaShape& s, const Unit& unit, const float* q_THK, const LaneBlock& block) {
  for (int64_t g = 0; g < block.groups; ++g) {
    std::array<const float*, kLaneGroup> rope{};
    std::array<const float*, kLaneGroup> nope{};
    for (int64_t i = 0; i < std::min(kLaneGroup, unit.queries() - g * kLaneGroup); ++i) {
      const int64_t t = g * kLaneGroup + i;
      const float* q = q_THK + unit.pair(s, t) * s.qk_head_dim();
      nope[static_cast<size_t>(i)] = q;
      rope[static_cast<size_t>(i)] = q + s.qk_nope_head_dim;
      block.position_GL[t] = unit.first_position() + t;
    }
    float* lanes = block.q_GKL + g * kLaneGroup * block.key_cols;
    kernels.rows_to_lanes(rope.data(), s.qk_rope_head_dim, lanes);
    kernels.rows_to_lanes(nope.data(), s.qk_nope_head_dim, lanes + s.qk_rope_head_dim * kLaneGroup);
  }
}

void store_outputs(
    const KernelTable& kernels, const MlaShape& s, const Unit& unit, const LaneBlock& block, float* out_THV) {
  for (int64_t g = 0; g < block.groups; ++g) {
    const int64_t count = std::min(kLaneGroup, unit.queries() - g * kLaneGroup);
    std::array<float*, kLaneGroup> rows{};
    for (int64_t i = 0; i < count; ++i) {
      rows[static_cast<size_t>(i)] = out_THV + unit.pair(s, g * kLaneGroup + i) * s.v_head_dim;
    }
    kernels.lanes_to_rows(block.out_GVL + g * kLaneGroup * lane_columns(s.v_head_dim), s.v_head_dim, rows.data());
    for (int64_t i = 0; i < count; ++i) {
      kernels.scale(rows[static_cast<size_t>(i)], 1.0F / block.sum_GL[g * kLaneGroup + i], s.v_head_dim);
    }
  }
}

// Eq. 16-17 for one unit: the tiles are expanded a few at a time, and the queries, a few lane groups at a time, go
// through all of these. What a query cannot see is skipped by whole tiles and lane groups.
void run_unit(
    const CpuContext& cpu, const MlaArgs& a, const Unit& unit, const float* q_THK, float* out_THV, float* scratch) {
  const MlaShape& s = a.shape;
  const Layout at = layout_of(s, unit.queries());
  const LaneBlock block =
      make_lane_block(scratch + at.block, s.qk_head_dim(), s.v_head_dim, block_groups(unit.queries()));
  load_queries(cpu.kernels, s, unit, q_THK, block);
  const MlaHead head{cpu.kernels, a.weights, s, unit.h, nullptr};
  const LatentScratch latents{scratch + at.latents,
                              {reinterpret_cast<std::byte*>(scratch + at.quantised), s.kv_lora_rank}};
  const int64_t keys_end = unit.first_position() + unit.queries();
  std::array<LaneTile, kSpanTiles> tiles{};
  for (int64_t span = 0; span < keys_end; span += kSpanTiles * kPageTokens) {
    size_t count = 0;
    for (int64_t start = span; start < std::min(keys_end, span + kSpanTiles * kPageTokens); start += kPageTokens) {
      const int64_t keys = std::min(kPageTokens, keys_end - start);
      float* rows = scratch + at.expanded + (start - span) * expanded_row(s);
      expand_tile(head, unit.segment.cache, start, keys, latents, rows);
      tiles[count++] = {.format = CacheFormat::kF32,
                        .data = reinterpret_cast<const std::byte*>(rows),
                        .elements = expanded_row(s),
                        .key_first = 0,
                        .value_first = s.qk_head_dim(),
                        .start = start,
                        .keys = keys};
    }
    for (int64_t g = 0; g < block.groups; g += kLaneBatch) {
      const int64_t last = std::min(g + kLaneBatch, block.groups);
      for (const LaneTile& tile : std::span(tiles).first(count)) {
        const int64_t first = std::max(g, (tile.start - unit.first_position()) / kLaneGroup);
        if (first < last) attend_tile(cpu.kernels, block, first, last, tile, s.softmax_scale, scratch + at.tile);
      }
    }
  }
  store_outputs(cpu.kernels, s, unit, block, out_THV);
}

// Blocks of queries per head: one where that keeps the threads busy, since every block expands the latents anew.
int64_t query_blocks(int64_t tokens, int64_t heads, int threads) {
  const int64_t least = (tokens + kQueryBlock - 1) / kQueryBlock;
  if (heads >= 4 * static_cast<int64_t>(threads) || heads % threads == 0) return least;
  const int64_t wanted = (4 * static_cast<int64_t>(threads) + heads - 1) / heads;
  return std::max(least, std::min(wanted, tokens / (2 * kPageTokens)));
}

}  // namespace

int64_t mla_expanded_scratch_floats(const MlaShape& s, int64_t tokens, int threads) {
  return threads * layout_of(s, tokens).total;
}

void mla_expanded(
    const CpuContext& cpu, const MlaArgs& a, const AttentionSegment& segment, const float* q_THK, float* out_THV) {
  const Workspace::Scope scope(cpu.workspace);
  const int threads = cpu.pool.threads();
  const int64_t heads = a.shape.num_heads;
  const int64_t blocks = query_blocks(segment.tokens, heads, threads);
  const int64_t block = (segment.tokens + blocks - 1) / blocks;
  const int64_t floats = layout_of(a.shape, block).total;
  float* scratch = cpu.workspace.take(threads * floats);
  std::atomic<int64_t> next{0};
  cpu.pool.run(std::min<int64_t>(heads * blocks, threads), 1, [&](int64_t, int64_t, int thread) {
    for (int64_t i = next++; i < heads * blocks; i = next++) {
      const int64_t begin = (blocks - 1 - i / heads) * block;  // the last queries see most and come first
      const Unit unit{segment, i % heads, begin, std::min(begin + block, segment.tokens)};
      if (unit.queries() > 0) run_unit(cpu, a, unit, q_THK, out_THV, scratch + thread * floats);
    }
  });
}

}  // namespace lathe
