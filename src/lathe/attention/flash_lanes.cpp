#include <algorithm>
#include <array>

#include "lathe/attention/flash_task.h"
#include "lathe/attention/lanes.h"

namespace lathe {

namespace {

// Sets the queries and positions of every lane that has a row.
void load_rows(const KernelTable& kernels, const FlashProblem& p, const FlashTask& task, const LaneBlock& block) {
  for (int64_t g = 0; g < block.groups; ++g) {
    std::array<const float*, kLaneGroup> q{};
    for (int64_t i = 0; i < kLaneGroup; ++i) {
      const int64_t row = task.row_begin + g * kLaneGroup + i;
      if (row >= task.row_end) break;
      q[static_cast<size_t>(i)] = p.q + task.pair(p, row) * p.key_cols;
      block.position_GL[g * kLaneGroup + i] = task.position(row);
    }
    kernels.rows_to_lanes(q.data(), p.key_cols, block.q_GKL + g * kLaneGroup * p.key_cols);
  }
}

void store_rows(const KernelTable& kernels, const FlashTask& task, const LaneBlock& block, const FlashResult& out) {
  for (int64_t g = 0; g < block.groups; ++g) {
    std::array<float*, kLaneGroup> rows{};
    for (int64_t i = 0; i < kLaneGroup; ++i) {
      const int64_t r = g * kLaneGroup + i;
      if (r >= task.rows()) break;
      rows[static_cast<size_t>(i)] = out.out_RV + r * block.value_cols;
      out.state_R[r] = {block.maximum_GL[r], block.sum_GL[r]};
    }
    const float* lanes = block.out_GVL + g * kLaneGroup * lane_columns(block.value_cols);
    kernels.lanes_to_rows(lanes, block.value_cols, rows.data());
  }
}

// Whether scores are taken in integers: a matter of the cache and the model's shape only.
bool in_integers(const CacheView& cache, const FlashGroup& group, int64_t key_cols) {
  const bool ends_a_block = key_cols % kCacheGroup == 0 || group.key_first + key_cols == cache.row_elements;
  return cache.format == CacheFormat::kQ8 && group.key_first % kCacheGroup == 0 && ends_a_block;
}

int64_t block_floats(int64_t key_cols, int64_t value_cols, int64_t groups) {
  return Workspace::padded(lane_block_floats(key_cols, value_cols, groups));
}

int64_t q8_floats(int64_t key_cols, int64_t groups) {
  return groups * lane_q8_bytes(key_cols) / static_cast<int64_t>(sizeof(float));
}

}  // namespace

int64_t lanes_scratch_floats(int64_t key_cols, int64_t value_cols) {
  constexpr int64_t kGroups = kLaneRows / kLaneGroup;
  return block_floats(key_cols, value_cols, kGroups) + q8_floats(key_cols, kGroups) + lane_scratch_floats();
}

void flash_by_lanes(
    const KernelTable& kernels, const FlashProblem& p, const FlashTask& task, float* scratch, const FlashResult& out) {
  const int64_t groups = (task.rows() + kLaneGroup - 1) / kLaneGroup;
  LaneBlock block = make_lane_block(scratch, p.key_cols, p.value_cols, groups);
  float* quantised = scratch + block_floats(p.key_cols, p.value_cols, groups);
  float* tile_scratch = quantised + q8_floats(p.key_cols, groups);
  load_rows(kernels, p, task, block);
  const CacheView& cache = task.segment->cache;
  if (in_integers(cache, *task.group, p.key_cols)) {
    quantise_queries(kernels, block, reinterpret_cast<std::byte*>(quantised));
  }
  const int64_t keys_end = task.keys_end();
  for (int64_t page = task.split * kSplitTokens; page < keys_end; page += kPageTokens) {
    const int64_t start = std::max(page, task.segment->first_key);
    LaneTile tile{.format = cache.format,
                  .data = cache.row(start),
                  .elements = cache.row_elements,
                  .key_first = task.group->key_first,
                  .value_first = task.group->value_first,
                  .start = start,
                  .keys = std::min(page + kPageTokens, keys_end) - start};
    // Where rows belong to one group, all of the next page will be read.
    if (const int64_t next = page + kPageTokens; next < keys_end && p.groups.size() == 1) {
      tile.ahead = cache.row(next);
      tile.ahead_bytes = std::min(kPageTokens, keys_end - next) * cache.row_bytes();
    }
    const int64_t first_group = (task.first_row_at(start) - task.row_begin) / kLaneGroup;
    attend_tile(kernels, block, first_group, groups, tile, p.scale, tile_scratch);
  }
  store_rows(kernels, task, block, out);
}

}  // namespace lathe
