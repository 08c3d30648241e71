// The unit of work of flash_attention and the two ways to do it; internal to attention/. Both walk the keys of one
// split tile by tile and leave, for every row, the accumulated values (not divided by the sum) and the softmax state.
#pragma once

#include <span>

#include "lathe/attention/flash.h"

namespace lathe {

// Rows [row_begin, row_end) of a segment and a group, one split. A row is a (token, head) pair, token-major: row r is
// token r / heads of the segment and head r % heads of the group.
struct FlashTask {
  const AttentionSegment* segment = nullptr;
  const FlashGroup* group = nullptr;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t split = 0;
  int64_t partial = 0;  // index of the first of its results

  int64_t rows() const { return row_end - row_begin; }

  int64_t first_token() const { return row_begin / group->heads; }

  int64_t last_token() const { return (row_end - 1) / group->heads; }

  // Position of the query of a row.
  int64_t position(int64_t row) const { return segment->position + row / group->heads; }

  // Index of a row among the (token, head) pairs of the batch.
  int64_t pair(const FlashProblem& p, int64_t row) const {
    return (segment->first_row + row / group->heads) * p.num_heads + group->first_head + row % group->heads;
  }

  // Number of splits that its last query sees.
  int64_t splits() const { return split_of(position(row_end - 1)) + 1; }

  // The keys of its split that any of its queries sees end here.
  int64_t keys_end() const {
    const int64_t seen = position(row_end - 1) + 1;
    return seen < split_begin(split + 1) ? seen : split_begin(split + 1);
  }

  // Whether every row sees every key of the split.
  bool sees_all() const { return position(row_begin) + 1 >= split_begin(split + 1); }

  // Of its split.
  const std::byte* first_page() const {
    return segment->cache.pages[static_cast<size_t>(split_begin(split) / kPageTokens)];
  }

  // Whether both have the same queries.
  bool same_rows(const FlashTask& other) const {
    return segment == other.segment && group == other.group && row_begin == other.row_begin && row_end == other.row_end;
  }

  // Whether both read the same rows of the same pages.
  bool same_keys(const FlashTask& other) const {
    if (split != other.split || group != other.group || segment->first_key != other.segment->first_key || !sees_all() ||
        !other.sees_all())
      return false;
    for (auto page = static_cast<size_t>(split_begin(split) / kPageTokens);
         page < static_cast<size_t>(split_begin(split + 1) / kPageTokens);
         ++page) {
      if (segment->cache.pages[page] != other.segment->cache.pages[page]) return false;
    }
    return true;
  }

  // The first row that sees keys at `start`.
  int64_t first_row_at(int64_t start) const {
    const int64_t row = (start - segment->position) * group->heads;
    return row > row_begin ? row : row_begin;
  }
};

// Results of all tasks, borrowed: of row r of a task at task.partial + r.
struct FlashResults {
  float* out_PV = nullptr;  // [partials, value_cols]
  SoftmaxState* state_P = nullptr;
};

// One dot product per score, columns in the lanes: for few heads.
inline constexpr int64_t kDotRows = 32;  // most rows of a task
// Floats of the scratch of one thread, likewise below.
int64_t dots_scratch_floats(int64_t key_cols, int64_t value_cols);
void flash_by_dots(
    const KernelTable& kernels, const FlashProblem& p, const FlashTask& task, float* scratch, const FlashResults& out);

// What a thread keeps from task to task for flash_by_lanes.
struct LaneThread {
  float* scratch = nullptr;  // lanes_scratch_floats()
  // Whose queries the scratch holds, or null: tasks of the same rows often follow one another, one for each split.
  const FlashTask* loaded = nullptr;
};

// Rows in the lanes: for groups of many heads. Several tasks at a time where same_keys() holds between the first and
// each of the others. `after`: what the thread will probably do next, or null; its keys are asked for in time.
inline constexpr int64_t kLaneRows = 128;  // most rows of all tasks
int64_t lanes_scratch_floats(int64_t key_cols, int64_t value_cols);
void flash_by_lanes(const KernelTable& kernels,
                    const FlashProblem& p,
                    std::span<const FlashTask* const> tasks,
                    const FlashTask* after,
                    LaneThread& thread,
                    const FlashResults& out);

}  // namespace lathe
