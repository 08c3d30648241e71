// Shapes: T packed tokens, S cached positions, H heads of a group, rows = (token, head) pairs, token-major.
#include "lathe/attention/flash.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

namespace lathe {

namespace {

constexpr int64_t kTaskRows = 32;       // (token, head) pairs that one task takes together
constexpr int64_t kMaxPartials = 2048;  // (split, token, head) results held at once

// Tokens [token_begin, token_end) of a segment, `heads` heads, one split of positions.
struct Task {
  const AttentionSegment* segment = nullptr;
  int64_t token_begin = 0;
  int64_t token_end = 0;
  int64_t first_head = 0;
  int64_t heads = 0;
  int64_t key_first = 0;
  int64_t value_first = 0;
  int64_t split = 0;
  int64_t partial = 0;  // index of the first of its (token, head) results
};

// Buffers of one thread.
struct TaskScratch {
  float* q_RK;       // rows of the task, gathered
  float* scores_RS;  // [rows, 64]
};

struct Partials {
  float* out_PV;
  SoftmaxState* state_P;
};

// Whether one split holds all keys of the task's tokens; its result is then final.
bool is_only_split(const Task& task) {
  return task.segment->position + task.token_end <= kSplitTokens;
}

// Ends a (token, head) result: out = accumulated / sum.
void normalise(const KernelTable& kernels, float* out_V, const SoftmaxState& state, int64_t n) {
  kernels.scale(out_V, 1.0F / state.sum, n);
}

void run_task(
    const CpuContext& cpu, const FlashProblem& p, const Task& task, const TaskScratch& scratch, const Partials& out) {
  const AttentionSegment& segment = *task.segment;
  const int64_t heads = task.heads;
  const int64_t tokens = task.token_end - task.token_begin;
  const int64_t rows = tokens * heads;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t row = segment.first_row + task.token_begin + t;
    std::memcpy(scratch.q_RK + t * heads * p.key_cols,
                p.q + (row * p.num_heads + task.first_head) * p.key_cols,
                static_cast<size_t>(heads * p.key_cols) * sizeof(float));
  }
  float* out_RV = out.out_PV + task.partial * p.value_cols;
  SoftmaxState* state_R = out.state_P + task.partial;
  std::fill_n(out_RV, rows * p.value_cols, 0.0F);
  std::fill_n(state_R, rows, SoftmaxState{-std::numeric_limits<float>::infinity(), 0.0F});

  const int64_t first_position = segment.position + task.token_begin;
  const int64_t keys_end = std::min(first_position + tokens, (task.split + 1) * kSplitTokens);
  for (int64_t start = task.split * kSplitTokens; start < keys_end; start += kPageTokens) {
    const int64_t keys = std::min(kPageTokens, keys_end - start);
    const int64_t token = std::max(int64_t{0}, start - first_position);  // earlier tokens see nothing of this tile
    const int64_t row0 = token * heads;
    cpu.kernels.gemm({.w = segment.cache.columns(start, keys, task.key_first, p.key_cols),
                      .row_begin = 0,
                      .row_end = keys,
                      .x = scratch.q_RK + row0 * p.key_cols,
                      .x_stride = p.key_cols,
                      .tokens = rows - row0,
                      .y = scratch.scores_RS + row0 * kPageTokens,
                      .y_stride = kPageTokens,
                      .accumulate = false});
    for (int64_t r = row0; r < rows; ++r) {
      const int64_t visible = std::min(keys, first_position + r / heads + 1 - start);
      const float factor =
          cpu.kernels.softmax_step(scratch.scores_RS + r * kPageTokens, visible, keys, p.scale, state_R[r]);
      cpu.kernels.scale(out_RV + r * p.value_cols, factor, p.value_cols);
    }
    cpu.kernels.gemm_transposed({.w = segment.cache.columns(start, keys, task.value_first, p.value_cols),
                                 .row_begin = 0,
                                 .row_end = keys,
                                 .x = scratch.scores_RS + row0 * kPageTokens,
                                 .x_stride = kPageTokens,
                                 .tokens = rows - row0,
                                 .y = out_RV + row0 * p.value_cols,
                                 .y_stride = p.value_cols,
                                 .accumulate = true});
  }
  if (!is_only_split(task)) return;
  for (int64_t r = 0; r < rows; ++r) {
    normalise(cpu.kernels, out_RV + r * p.value_cols, state_R[r], p.value_cols);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t row = segment.first_row + task.token_begin + t;
    std::memcpy(p.out + (row * p.num_heads + task.first_head) * p.value_cols,
                out_RV + t * heads * p.value_cols,
                static_cast<size_t>(heads * p.value_cols) * sizeof(float));
  }
}

// Adds the result of the next split to the one before it: out and state become those of both.
void combine(const KernelTable& kernels,
             float* out_V,
             SoftmaxState& state,
             const float* next_V,
             const SoftmaxState& next,
             int64_t n) {
  if (next.sum == 0.0F && next.maximum == -std::numeric_limits<float>::infinity())
    return;  // the split lies in the future
  float next_factor = next.maximum;
  SoftmaxState both{state.maximum, 0.0F};
  const float factor = kernels.softmax_step(&next_factor, 1, 1, 1.0F, both);
  kernels.scale(out_V, factor, n);
  kernels.axpy(out_V, next_factor, next_V, n);
  state = {both.maximum, state.sum * factor + next.sum * next_factor};
}

}  // namespace

int64_t flash_scratch_floats(int64_t key_cols, int64_t value_cols, int threads) {
  const int64_t per_thread = Workspace::padded(kTaskRows * key_cols) + Workspace::padded(kTaskRows * kPageTokens);
  return threads * per_thread + Workspace::padded(kMaxPartials * value_cols) + Workspace::padded(kMaxPartials * 2);
}

namespace {

class FlashRun {
 public:
  FlashRun(const CpuContext& cpu, const FlashProblem& problem) : cpu_(cpu), problem_(problem), scope_(cpu.workspace) {
    const int threads = cpu.pool.threads();
    q_ = cpu.workspace.take(threads * Workspace::padded(kTaskRows * problem.key_cols));
    scores_ = cpu.workspace.take(threads * Workspace::padded(kTaskRows * kPageTokens));
    partials_ = {cpu.workspace.take(kMaxPartials * problem.value_cols),
                 cpu.workspace.take_as<SoftmaxState>(kMaxPartials)};
  }

  // Tasks are (token range, head range, split), the splits of one range one after the other.
  void run() {
    const int64_t most_heads = heads_per_task();
    for (const AttentionSegment& segment : problem_.segments) {
      for (const FlashGroup& group : problem_.groups) {
        for (int64_t h = 0; h < group.heads; h += most_heads) {
          const int64_t heads = std::min(most_heads, group.heads - h);
          const int64_t tokens_per_task = std::max<int64_t>(1, kTaskRows / heads);
          for (int64_t t = 0; t < segment.tokens; t += tokens_per_task) {
            add(segment, group, h, heads, t, std::min(t + tokens_per_task, segment.tokens));
          }
        }
      }
    }
    flush();
  }

 private:
  static constexpr int64_t kMaxTasks = 256;

  // Heads that a task takes together: as many as fit, fewer when that would leave threads without work (one new token
  // at a short context). Each head is computed on its own, so this changes no result.
  int64_t heads_per_task() const {
    int64_t most = 1;
    for (const FlashGroup& group : problem_.groups) most = std::max(most, group.heads);
    most = std::min(most, kTaskRows);
    int64_t tasks = 0;
    for (const AttentionSegment& segment : problem_.segments) {
      const int64_t splits = (segment.position + segment.tokens + kSplitTokens - 1) / kSplitTokens;
      tasks += splits * static_cast<int64_t>(problem_.groups.size()) *
               std::max<int64_t>(1, segment.tokens * most / kTaskRows);
    }
    const int64_t parts = (cpu_.pool.threads() + tasks - 1) / std::max<int64_t>(tasks, 1);
    return std::max<int64_t>(1, most / parts);
  }

  void add(
      const AttentionSegment& segment, const FlashGroup& group, int64_t h, int64_t heads, int64_t begin, int64_t end) {
    const int64_t splits = (segment.position + end + kSplitTokens - 1) / kSplitTokens;
    const int64_t rows = (end - begin) * heads;
    for (int64_t split = 0; split < splits; ++split) {
      if (task_count_ == kMaxTasks || partial_count_ + rows > kMaxPartials) flush();
      tasks_[static_cast<size_t>(task_count_++)] = {.segment = &segment,
                                                    .token_begin = begin,
                                                    .token_end = end,
                                                    .first_head = group.first_head + h,
                                                    .heads = heads,
                                                    .key_first = group.key_first,
                                                    .value_first = group.value_first,
                                                    .split = split,
                                                    .partial = partial_count_};
      partial_count_ += rows;
    }
  }

  // Runs the collected tasks in parallel, then folds their results into the output, splits of one query in order. A
  // query whose splits span two rounds goes on from what the first round left in `out` and `carried_`.
  void flush() {
    if (task_count_ == 0) return;
    cpu_.pool.run(task_count_, 1, [&](int64_t first, int64_t last, int thread) {
      const TaskScratch scratch{q_ + thread * Workspace::padded(kTaskRows * problem_.key_cols),
                                scores_ + thread * Workspace::padded(kTaskRows * kPageTokens)};
      for (int64_t i = first; i < last; ++i)
        run_task(cpu_, problem_, tasks_[static_cast<size_t>(i)], scratch, partials_);
    });
    for (int64_t i = 0; i < task_count_; ++i) fold(tasks_[static_cast<size_t>(i)]);
    task_count_ = 0;
    partial_count_ = 0;
  }

  void fold(const Task& task) {
    if (is_only_split(task)) return;
    const int64_t n = problem_.value_cols;
    const int64_t rows = (task.token_end - task.token_begin) * task.heads;
    const int64_t last_split = (task.segment->position + task.token_end - 1) / kSplitTokens;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t token = task.segment->first_row + task.token_begin + r / task.heads;
      float* out_V = problem_.out + (token * problem_.num_heads + task.first_head + r % task.heads) * n;
      const float* next_V = partials_.out_PV + (task.partial + r) * n;
      const SoftmaxState& next = partials_.state_P[task.partial + r];
      SoftmaxState& state = carried_[static_cast<size_t>(r)];
      if (task.split == 0) {
        std::memcpy(out_V, next_V, static_cast<size_t>(n) * sizeof(float));
        state = next;
      } else {
        combine(cpu_.kernels, out_V, state, next_V, next, n);
      }
      if (task.split == last_split) normalise(cpu_.kernels, out_V, state, n);
    }
  }

  const CpuContext& cpu_;
  const FlashProblem& problem_;
  Workspace::Scope scope_;
  float* q_ = nullptr;
  float* scores_ = nullptr;
  Partials partials_{};
  std::array<Task, kMaxTasks> tasks_{};
  int64_t task_count_ = 0;
  int64_t partial_count_ = 0;
  std::array<SoftmaxState, kTaskRows> carried_{};  // of the task whose splits are being folded
};

}  // namespace

void flash_attention(const CpuContext& cpu, const FlashProblem& problem) {
  FlashRun(cpu, problem).run();
}

}  // namespace lathe
