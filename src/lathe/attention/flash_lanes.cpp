#include <algorithm>
#include <array>

#include "lathe/attention/flash_task.h"
#include "lathe/attention/lanes.h"

namespace lathe {

namespace {

// Calls visit(lane, task, row) for every row of the tasks, which fill the lanes one after the other.
template <class Visit>
void for_lanes(std::span<const FlashTask* const> tasks, const Visit& visit) {
  int64_t lane = 0;
  for (const FlashTask* task : tasks) {
    for (int64_t row = task->row_begin; row < task->row_end; ++row) visit(lane++, *task, row);
  }
}

// Sets the positions of every lane that has a row.
void load_positions(std::span<const FlashTask* const> tasks, const LaneBlock& block) {
  for_lanes(tasks,
            [&](int64_t lane, const FlashTask& task, int64_t row) { block.position_GL[lane] = task.position(row); });
}

// Sets the queries of all lanes.
void load_queries(const KernelTable& kernels,
                  const FlashProblem& p,
                  std::span<const FlashTask* const> tasks,
                  const LaneBlock& block) {
  std::array<const float*, kLaneRows> q{};
  for_lanes(tasks, [&](int64_t lane, const FlashTask& task, int64_t row) {
    q[static_cast<size_t>(lane)] = p.q + task.pair(p, row) * p.key_cols;
  });
  for (int64_t g = 0; g < block.groups; ++g) {
    kernels.rows_to_lanes(q.data() + g * kLaneGroup, p.key_cols, block.q_GKL + g * kLaneGroup * p.key_cols);
  }
}

void store_rows(const KernelTable& kernels,
                std::span<const FlashTask* const> tasks,
                const LaneBlock& block,
                const FlashResults& out) {
  std::array<float*, kLaneRows> rows{};
  for_lanes(tasks, [&](int64_t lane, const FlashTask& task, int64_t row) {
    const int64_t partial = task.partial + row - task.row_begin;
    rows[static_cast<size_t>(lane)] = out.out_PV + partial * block.value_cols;
    out.state_P[partial] = {block.maximum_GL[lane], block.sum_GL[lane]};
  });
  for (int64_t g = 0; g < block.groups; ++g) {
    const float* lanes = block.out_GVL + g * kLaneGroup * lane_columns(block.value_cols);
    kernels.lanes_to_rows(lanes, block.value_cols, rows.data() + g * kLaneGroup);
  }
}

// Whether scores are taken in integers: a matter of the cache and the model's shape only.
bool in_integers(const CacheView& cache, const FlashGroup& group, int64_t key_cols) {
  const bool ends_a_block = key_cols % kCacheGroup == 0 || group.key_first + key_cols == cache.row_elements;
  return cache.format == CacheFormat::kQ8 && group.key_first % kCacheGroup == 0 && ends_a_block;
}

// The rows of a task in the page from `page` on, where all of them will be read: where rows belong to one group.
SoonRead rows_of_page(const FlashProblem& p, const FlashTask& task, int64_t page) {
  const CacheView& cache = task.segment->cache;
  const int64_t start = std::max(page, task.segment->first_key);
  const int64_t end = std::min(page + kPageTokens, task.keys_end());
  if (p.groups.size() != 1 || start >= end) return {};
  return {cache.row(start), (end - start) * cache.row_bytes()};
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

void flash_by_lanes(const KernelTable& kernels,
                    const FlashProblem& p,
                    std::span<const FlashTask* const> tasks,
                    const FlashTask* after,
                    LaneThread& thread,
                    const FlashResults& out) {
  int64_t rows = 0;
  for (const FlashTask* task : tasks) rows += task->rows();
  const int64_t groups = (rows + kLaneGroup - 1) / kLaneGroup;
  LaneBlock block = make_lane_block(thread.scratch, p.key_cols, p.value_cols, groups);
  float* quantised = thread.scratch + block_floats(p.key_cols, p.value_cols, groups);
  float* tile_scratch = quantised + q8_floats(p.key_cols, groups);
  load_positions(tasks, block);
  const FlashTask& first = *tasks.front();  // the others read the same and see all of it
  const CacheView& cache = first.segment->cache;
  const bool loaded = tasks.size() == 1 && thread.loaded != nullptr && thread.loaded->same_rows(first);
  if (!loaded) load_queries(kernels, p, tasks, block);
  if (in_integers(cache, *first.group, p.key_cols)) {
    auto* memory = reinterpret_cast<std::byte*>(quantised);
    if (loaded) {
      block.q8_GK = memory;
    } else {
      quantise_queries(kernels, block, memory);
    }
  }
  thread.loaded = tasks.size() == 1 ? &first : nullptr;
  const int64_t keys_end = first.keys_end();
  for (int64_t page = split_begin(first.split); page < keys_end; page += kPageTokens) {
    const int64_t start = std::max(page, first.segment->first_key);
    LaneTile tile{.format = cache.format,
                  .data = cache.row(start),
                  .elements = cache.row_elements,
                  .key_first = first.group->key_first,
                  .value_first = first.group->value_first,
                  .start = start,
                  .keys = std::min(page + kPageTokens, keys_end) - start};
    if (const int64_t next = page + kPageTokens; next < keys_end) {
      tile.ahead = rows_of_page(p, first, next);
    } else if (after != nullptr) {
      tile.ahead = rows_of_page(p, *after, split_begin(after->split));
    }
    const int64_t first_group = tasks.size() > 1 ? 0 : (first.first_row_at(start) - first.row_begin) / kLaneGroup;
    attend_tile(kernels, block, first_group, groups, tile, p.scale, tile_scratch);
  }
  store_rows(kernels, tasks, block, out);
}

}  // namespace lathe
