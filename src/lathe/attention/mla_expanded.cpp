// Shape letters as in mla.cpp; a row of expanded keys and values (E) is [zeros | k^R | k^C | v]. With a quantised cache
// these rows are q8 rows too, and products with them integers, where values are whole groups; the zeros make keys whole
// groups then. Otherwise there are none.
#include "lathe/attention/mla_expanded.h"

#include <algorithm>
#include <array>

#include "lathe/attention/lanes.h"
#include "lathe/attention/mla_heads.h"
#include "lathe/tensor/blocks.h"

namespace lathe {

namespace {

constexpr int64_t kQueryBlock = 2048;  // most queries that share one expansion of a tile
constexpr int64_t kSpanTiles = 4;      // tiles expanded at a time: a block's queries pass by once for all of them

int64_t lane_groups(int64_t tokens) {
  return (tokens + kLaneGroup - 1) / kLaneGroup;
}

// Most lane groups that share one expansion when a batch has `tokens` tokens: every segment begins a group of its own.
int64_t most_groups(int64_t tokens) {
  return std::min(lane_groups(kQueryBlock), lane_groups(tokens) + std::min<int64_t>(tokens, kExpandedSegments));
}

// What an expanded row has: a matter of the cache and the model's shape only.
struct ExpandedRow {
  bool integers = false;
  int64_t zeros = 0;
  int64_t key_cols = 0;  // with the zeros
  int64_t elements = 0;

  ExpandedRow(const MlaShape& s, CacheFormat cache)
      : integers(is_quantised(cache) && s.v_head_dim % kCacheGroup == 0),
        zeros(integers ? cache_groups(s.qk_head_dim()) * kCacheGroup - s.qk_head_dim() : 0),
        key_cols(zeros + s.qk_head_dim()),
        elements(key_cols + s.v_head_dim) {}
};

// Where the scratch of one thread lies.
struct Layout {
  int64_t latents = 0;    // [64, C] in fp32
  int64_t quantised = 0;  // the same in int8
  int64_t expanded = 0;   // [4 tiles, 64, E]
  int64_t coded = 0;      // the same in q8
  int64_t tile = 0;       // of attend_tile
  int64_t block = 0;      // lane groups of the queries
  int64_t queries = 0;    // of these, in int8
  int64_t total = 0;
};

// For a quantised cache, which takes most.
Layout layout_of(const MlaShape& s, int64_t groups) {
  const auto padded = Workspace::padded;
  const ExpandedRow row(s, CacheFormat::kQ8);
  Layout at;
  at.quantised = at.latents + padded(kPageTokens * s.kv_lora_rank);
  at.expanded = at.quantised + quantised_floats(kPageTokens, s.kv_lora_rank / kBlock * kBlock);
  const auto floats_for = [&](int64_t bytes) { return padded((bytes + 3) / 4); };
  at.coded = at.expanded + padded(kSpanTiles * kPageTokens * row.elements);
  at.tile = at.coded + floats_for(kSpanTiles * kPageTokens * cache_row_bytes(CacheFormat::kQ8, row.elements));
  at.block = at.tile + padded(lane_scratch_floats());
  at.queries = at.block + padded(lane_block_floats(row.key_cols, s.v_head_dim, groups));
  at.total = at.queries + floats_for(groups * lane_q8_bytes(row.key_cols));
  return at;
}

// Where the latents of a tile go before they are expanded.
struct LatentScratch {
  float* latents_SC;
  QuantisedRows quantised;  // where the weights are packed
};

// Rows of one head for the positions [start, start + keys): zeros, k^R as cached, then what the latents expand to.
void expand_tile(const MlaHead& head,
                 const CacheView& cache,
                 int64_t start,
                 int64_t keys,
                 const LatentScratch& scratch,
                 const ExpandedRow& row,
                 float* out_SE) {
  const MlaShape& s = head.shape;
  const bool quantised = reads_quantised_latents(head.weights);
  for (int64_t i = 0; i < keys; ++i) {
    float* latent_C = scratch.latents_SC + i * s.kv_lora_rank;
    cache.load(head.kernels, start + i, 0, s.kv_lora_rank, latent_C);
    float* out_E = out_SE + i * row.elements;
    std::fill_n(out_E, row.zeros, 0.0F);
    cache.load(head.kernels, start + i, s.kv_lora_rank, s.qk_rope_head_dim, out_E + row.zeros);
    if (quantised) head.kernels.quantise(latent_C, 0, s.kv_lora_rank / kBlock, scratch.quantised, i);
  }
  float* out_kv = out_SE + row.zeros + s.qk_rope_head_dim;
  expand_latents(head, keys, scratch.latents_SC, scratch.quantised, {out_kv, row.elements});
}

// Head h of the queries of segments whose caches begin with the same `shared` positions, whole pages that all of these
// queries see. One segment shares nothing.
struct Unit {
  std::span<const AttentionSegment> segments;
  int64_t shared = 0;
  int64_t h = 0;

  // Index of query t of a segment among the (token, head) pairs of the batch.
  int64_t pair(const MlaShape& s, const AttentionSegment& segment, int64_t t) const {
    return (segment.first_row + t) * s.num_heads + h;
  }
};

int64_t groups_of(std::span<const AttentionSegment> segments) {
  int64_t groups = 0;
  for (const AttentionSegment& segment : segments) groups += lane_groups(segment.tokens);
  return groups;
}

// Queries of a segment as [zeros | q^R | q^C] in lanes from group g0 on, with their positions.
void load_queries(const KernelTable& kernels,
                  const MlaShape& s,
                  const Unit& unit,
                  const AttentionSegment& segment,
                  const float* q_THK,
                  int64_t g0,
                  const LaneBlock& block) {
  for (int64_t g = 0; g < lane_groups(segment.tokens); ++g) {
    std::array<const float*, kLaneGroup> rope{};
    std::array<const float*, kLaneGroup> nope{};
    for (int64_t i = 0; i < std::min(kLaneGroup, segment.tokens - g * kLaneGroup); ++i) {
      const int64_t t = g * kLaneGroup + i;
      const float* q = q_THK + unit.pair(s, segment, t) * s.qk_head_dim();
      nope[static_cast<size_t>(i)] = q;
      rope[static_cast<size_t>(i)] = q + s.qk_nope_head_dim;
      block.position_GL[g0 * kLaneGroup + t] = segment.position + t;
    }
    float* lanes = block.q_GKL + (g0 + g) * kLaneGroup * block.key_cols;
    const int64_t zeros = block.key_cols - s.qk_head_dim();
    std::fill_n(lanes, zeros * kLaneGroup, 0.0F);
    kernels.rows_to_lanes(rope.data(), s.qk_rope_head_dim, lanes + zeros * kLaneGroup);
    kernels.rows_to_lanes(nope.data(), s.qk_nope_head_dim, lanes + (zeros + s.qk_rope_head_dim) * kLaneGroup);
  }
}

void store_outputs(const KernelTable& kernels,
                   const MlaShape& s,
                   const Unit& unit,
                   const AttentionSegment& segment,
                   int64_t g0,
                   const LaneBlock& block,
                   float* out_THV) {
  for (int64_t g = 0; g < lane_groups(segment.tokens); ++g) {
    const int64_t count = std::min(kLaneGroup, segment.tokens - g * kLaneGroup);
    std::array<float*, kLaneGroup> rows{};
    for (int64_t i = 0; i < count; ++i) {
      rows[static_cast<size_t>(i)] = out_THV + unit.pair(s, segment, g * kLaneGroup + i) * s.v_head_dim;
    }
    const int64_t from = g0 + g;
    kernels.lanes_to_rows(block.out_GVL + from * kLaneGroup * lane_columns(s.v_head_dim), s.v_head_dim, rows.data());
    for (int64_t i = 0; i < count; ++i) {
      kernels.scale(rows[static_cast<size_t>(i)], 1.0F / block.sum_GL[from * kLaneGroup + i], s.v_head_dim);
    }
  }
}

// One unit at work: its queries in lanes, and the scratch that tiles are expanded into.
struct UnitRun {
  const CpuContext& cpu;
  const MlaShape& s;
  const MlaHead& head;
  ExpandedRow row;
  LatentScratch latents;
  float* expanded;
  std::byte* coded;
  float* tile_scratch;
  LaneBlock block;

  // The rows of one head for the positions [start, start + keys), stored from row `first` on.
  LaneTile expand(const CacheView& cache, int64_t start, int64_t keys, int64_t first) {
    float* rows = expanded + first * row.elements;
    expand_tile(head, cache, start, keys, latents, row, rows);
    LaneTile tile{.format = CacheFormat::kF32,
                  .data = reinterpret_cast<const std::byte*>(rows),
                  .elements = row.elements,
                  .key_first = 0,
                  .value_first = row.key_cols,
                  .start = start,
                  .keys = keys};
    if (!row.integers) return tile;
    const int64_t row_bytes = cache_row_bytes(CacheFormat::kQ8, row.elements);
    for (int64_t i = 0; i < keys; ++i) {
      cpu.kernels.encode_q8(rows + i * row.elements, row.elements, coded + (first + i) * row_bytes);
    }
    tile.format = CacheFormat::kQ8;
    tile.data = coded + first * row_bytes;
    return tile;
  }

  // Lane groups [g0, g1), whose first query has position `first_position`, go through the positions [begin, end) of
  // the cache: the tiles are expanded a few at a time, and the queries, a few lane groups at a time, go through all
  // of these. What a query cannot see is skipped by whole tiles and lane groups.
  void attend(const CacheView& cache, int64_t begin, int64_t end, int64_t g0, int64_t g1, int64_t first_position) {
    std::array<LaneTile, kSpanTiles> tiles{};
    for (int64_t span = begin; span < end; span += kSpanTiles * kPageTokens) {
      size_t count = 0;
      for (int64_t start = span; start < std::min(end, span + kSpanTiles * kPageTokens); start += kPageTokens) {
        tiles[count++] = expand(cache, start, std::min(kPageTokens, end - start), start - span);
      }
      for (int64_t g = g0; g < g1; g += kLaneBatch) {
        const int64_t last = std::min(g + kLaneBatch, g1);
        for (const LaneTile& tile : std::span(tiles).first(count)) {
          const int64_t first = std::max(g, g0 + (tile.start - first_position) / kLaneGroup);
          if (first < last) attend_tile(cpu.kernels, block, first, last, tile, s.softmax_scale, tile_scratch);
        }
      }
    }
  }
};

// Eq. 16-17 for one unit: what the segments share is expanded once for all their queries, the rest for each.
void run_unit(
    const CpuContext& cpu, const MlaArgs& a, const Unit& unit, const float* q_THK, float* out_THV, float* scratch) {
  const MlaShape& s = a.shape;
  const int64_t groups = groups_of(unit.segments);
  const Layout at = layout_of(s, groups);
  const ExpandedRow row(s, unit.segments.front().cache.format);
  const MlaHead head{cpu.kernels, a.weights, s, unit.h, nullptr};
  UnitRun run{.cpu = cpu,
              .s = s,
              .head = head,
              .row = row,
              .latents = {scratch + at.latents, {reinterpret_cast<std::byte*>(scratch + at.quantised), s.kv_lora_rank}},
              .expanded = scratch + at.expanded,
              .coded = reinterpret_cast<std::byte*>(scratch + at.coded),
              .tile_scratch = scratch + at.tile,
              .block = make_lane_block(scratch + at.block, row.key_cols, s.v_head_dim, groups)};
  int64_t g = 0;
  for (const AttentionSegment& segment : unit.segments) {
    load_queries(cpu.kernels, s, unit, segment, q_THK, g, run.block);
    g += lane_groups(segment.tokens);
  }
  if (row.integers) quantise_queries(cpu.kernels, run.block, reinterpret_cast<std::byte*>(scratch + at.queries));
  // Nobody's first query is before the end of what is shared.
  run.attend(unit.segments.front().cache, 0, unit.shared, 0, groups, unit.shared);
  g = 0;
  for (const AttentionSegment& segment : unit.segments) {
    const int64_t end = g + lane_groups(segment.tokens);
    run.attend(segment.cache, unit.shared, segment.position + segment.tokens, g, end, segment.position);
    store_outputs(cpu.kernels, s, unit, segment, g, run.block, out_THV);
    g = end;
  }
}

// Blocks of queries per head: one where that keeps the threads busy, since every block expands the latents anew.
int64_t query_blocks(int64_t tokens, int64_t heads, int threads) {
  const int64_t least = (tokens + kQueryBlock - 1) / kQueryBlock;
  if (heads >= 4 * static_cast<int64_t>(threads) || heads % threads == 0) return least;
  const int64_t wanted = (4 * static_cast<int64_t>(threads) + heads - 1) / heads;
  return std::max(least, std::min(wanted, tokens / (2 * kPageTokens)));
}

// Positions at the beginning of both caches that lie in the same pages and before the queries of both.
int64_t shared_positions(const AttentionSegment& a, const AttentionSegment& b) {
  const auto most = static_cast<size_t>(std::min(a.position, b.position) / kPageTokens);
  size_t pages = 0;
  while (pages < most && a.cache.pages[pages] == b.cache.pages[pages]) ++pages;
  return static_cast<int64_t>(pages) * kPageTokens;
}

// Neighbouring segments that share an expansion, or one, cut into blocks of queries.
struct Group {
  std::span<const AttentionSegment> segments;
  int64_t shared = 0;
  int64_t blocks = 1;

  int64_t block_tokens() const { return (segments.front().tokens + blocks - 1) / blocks; }

  int64_t groups() const { return blocks > 1 ? lane_groups(block_tokens()) : groups_of(segments); }
};

// The longest group at the front of `segments`.
Group first_group(std::span<const AttentionSegment> segments, int64_t heads, int threads) {
  Group group{.segments = segments.first(1), .blocks = query_blocks(segments.front().tokens, heads, threads)};
  if (group.blocks > 1) return group;
  for (size_t count = 2; count <= segments.size(); ++count) {
    const int64_t common = shared_positions(segments.front(), segments[count - 1]);
    const int64_t shared = count == 2 ? common : std::min(common, group.shared);
    // Whoever shares little with the others would make all of them expand their own.
    if (shared == 0 || 2 * shared < group.shared) break;
    if (groups_of(segments.first(count)) > lane_groups(kQueryBlock)) break;
    group.segments = segments.first(count);
    group.shared = shared;
  }
  return group;
}

}  // namespace

int64_t mla_expanded_scratch_floats(const MlaShape& s, int64_t tokens, int threads) {
  return threads * layout_of(s, most_groups(tokens)).total;
}

void mla_expanded(const CpuContext& cpu,
                  const MlaArgs& a,
                  std::span<const AttentionSegment> segments,
                  const float* q_THK,
                  float* out_THV) {
  const Workspace::Scope scope(cpu.workspace);
  const int threads = cpu.pool.threads();
  const int64_t heads = a.shape.num_heads;
  std::array<Group, kExpandedSegments> groups{};
  size_t count = 0;
  int64_t units = 0;
  int64_t most = 0;
  for (std::span<const AttentionSegment> rest = segments; !rest.empty(); ++count) {
    groups[count] = first_group(rest, heads, threads);
    rest = rest.subspan(groups[count].segments.size());
    units += groups[count].blocks * heads;
    most = std::max(most, groups[count].groups());
  }
  const int64_t floats = layout_of(a.shape, most).total;
  float* scratch = cpu.workspace.take(threads * floats);
  const auto run = [&](int64_t index, float* memory) {
    const Group* group = groups.data();
    for (; index >= group->blocks * heads; ++group) index -= group->blocks * heads;
    const int64_t h = index % heads;
    if (group->blocks == 1) return run_unit(cpu, a, {group->segments, group->shared, h}, q_THK, out_THV, memory);
    AttentionSegment block = group->segments.front();
    const int64_t begin = (group->blocks - 1 - index / heads) * group->block_tokens();  // the last queries see most
    block.tokens = std::min(group->block_tokens(), block.tokens - begin);
    block.first_row += begin;
    block.position += begin;
    if (block.tokens > 0) run_unit(cpu, a, {{&block, 1}, 0, h}, q_THK, out_THV, memory);
  };
  cpu.pool.run_each(units,
                    [&](int thread) { return [&, memory = scratch + thread * floats](int64_t i) { run(i, memory); }; });
}

}  // namespace lathe
