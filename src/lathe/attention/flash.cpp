// Shapes: T packed tokens, S cached positions, H heads of a group, rows = (token, head) pairs, token-major.
#include "lathe/attention/flash.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <span>
#include <tuple>

#include "lathe/attention/flash_task.h"

namespace lathe {

namespace {

static_assert(kPageTokens == kTileKeys && kFirstSplitTokens % kPageTokens == 0 &&
              kSplitTokens % kFirstSplitTokens == 0);

// From this many heads with common keys on, rows go into lanes. The rule knows the model's shape only: the two ways
// round differently, and a result must not depend on the batch.
constexpr int64_t kLaneHeads = 8;

bool in_lanes(const FlashGroup& group) {
  return group.heads >= kLaneHeads;
}

// (split, row) results held at once.
int64_t max_partials(int threads) {
  return std::max<int64_t>(4096, 256 * static_cast<int64_t>(threads));
}

int64_t task_scratch_floats(int64_t key_cols, int64_t value_cols) {
  return Workspace::padded(
      std::max(dots_scratch_floats(key_cols, value_cols), lanes_scratch_floats(key_cols, value_cols)));
}

// Ends a row: out = accumulated / sum.
void normalise(const KernelTable& kernels, float* out_V, const SoftmaxState& state, int64_t n) {
  kernels.scale(out_V, 1.0F / state.sum, n);
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

class FlashRun {
 public:
  FlashRun(const CpuContext& cpu, const FlashProblem& problem)
      : cpu_(cpu),
        problem_(problem),
        scope_(cpu.workspace),
        max_partials_(max_partials(cpu.pool.threads())),
        task_floats_(task_scratch_floats(problem.key_cols, problem.value_cols)),
        scratch_(cpu.workspace.take(cpu.pool.threads() * task_floats_)),
        out_PV_(cpu.workspace.take(max_partials_ * problem.value_cols)),
        state_P_(cpu.workspace.take_as<SoftmaxState>(max_partials_)) {}

  // Tasks are (row range, split), the splits of one range one after the other.
  void run() {
    for (const AttentionSegment& segment : problem_.segments) {
      for (const FlashGroup& group : problem_.groups) {
        const int64_t rows = segment.tokens * group.heads;
        const int64_t step = rows_per_task(segment, group);
        for (int64_t r = 0; r < rows; r += step) add(segment, group, r, std::min(r + step, rows));
      }
    }
    flush();
  }

 private:
  static constexpr int64_t kMaxTasks = 512;
  static constexpr int64_t kFoldRows = 4;  // rows folded at a time

  // Rows that a task takes together: as many as share a tile with profit, fewer when that would leave threads without
  // work (one new token at a short context). Each row is computed on its own, so this changes no result.
  int64_t rows_per_task(const AttentionSegment& segment, const FlashGroup& group) const {
    const int64_t least = in_lanes(group) ? kLaneGroup : 1;
    const int64_t most = std::min(in_lanes(group) ? kLaneRows : kDotRows, segment.tokens * group.heads);
    int64_t tasks = 0;
    for (const AttentionSegment& each : problem_.segments) {
      const int64_t splits = split_of(each.position + each.tokens - 1) + 1;
      tasks += splits * static_cast<int64_t>(problem_.groups.size()) *
               std::max<int64_t>(1, each.tokens * group.heads / std::max<int64_t>(most, 1));
    }
    const int64_t parts = (cpu_.pool.threads() + tasks - 1) / std::max<int64_t>(tasks, 1);
    const int64_t rows = (most + parts - 1) / parts;
    return std::max(least, (rows + least - 1) / least * least);
  }

  void add(const AttentionSegment& segment, const FlashGroup& group, int64_t begin, int64_t end) {
    FlashTask task{.segment = &segment, .group = &group, .row_begin = begin, .row_end = end, .split = 0, .partial = 0};
    const int64_t splits = task.splits();
    for (; task.split < splits; ++task.split) {
      if (task_count_ == kMaxTasks || partial_count_ + task.rows() > max_partials_) flush();
      task.partial = partial_count_;
      tasks_[static_cast<size_t>(task_count_++)] = task;
      partial_count_ += task.rows();
      if (splits > 1 && (task.split == 0 || task_count_ == 1)) {
        ranges_[static_cast<size_t>(range_count_++)] = task_count_ - 1;
      }
    }
  }

  // Runs the collected tasks in parallel, then folds their results into the output, the splits of one row in order.
  // Threads take task after task, because tasks differ in size: the last ones first, since the first splits are short
  // and even out what is left at the end.
  void flush() {
    if (task_count_ == 0) return;
    make_bundles();
    const int64_t threads = std::min<int64_t>(bundle_count_, cpu_.pool.threads());
    cpu_.pool.run_each(bundle_count_, [&](int thread) {
      return [&, lanes = LaneThread{.scratch = scratch_ + thread * task_floats_}](int64_t item) mutable {
        const int64_t i = bundle_count_ - 1 - item;
        run_bundle(bundle(i), i >= threads ? bundle(i - threads).front() : nullptr, lanes);
      };
    });
    fold_all();
    task_count_ = 0;
    range_count_ = 0;
    partial_count_ = 0;
  }

  // Whether a task may be done together with others that have the same keys.
  static bool has_company(const FlashTask& task) {
    return in_lanes(*task.group) && task.rows() < kLaneRows && task.sees_all();
  }

  // Tasks with the same keys are done together: sequences that begin alike read them once, and few heads of each fill
  // the lanes. Each row is computed on its own, so this changes no result.
  void make_bundles() {
    const auto tasks = std::span(order_).first(static_cast<size_t>(task_count_));
    for (size_t i = 0; i < tasks.size(); ++i) tasks[i] = &tasks_[i];
    if (problem_.segments.size() > 1) {
      const auto key = [](const FlashTask* t) {  // equal keys become neighbours, those without company come first
        return std::tuple(has_company(*t) ? t->first_page() : nullptr, t->group->first_head, t);
      };
      std::ranges::sort(tasks, {}, key);
    }
    bundle_count_ = 0;
    int64_t rows = 0;
    const FlashTask* first = nullptr;  // of the bundle
    for (size_t i = 0; i < tasks.size(); ++i) {
      const FlashTask& task = *tasks[i];
      if (first == nullptr || !has_company(task) || rows + task.rows() > kLaneRows || !first->same_keys(task)) {
        bundle_begin_[static_cast<size_t>(bundle_count_++)] = static_cast<int64_t>(i);
        first = &task;
        rows = 0;
      }
      rows += task.rows();
    }
    bundle_begin_[static_cast<size_t>(bundle_count_)] = task_count_;
  }

  std::span<const FlashTask* const> bundle(int64_t i) const {
    const auto from = static_cast<size_t>(bundle_begin_[static_cast<size_t>(i)]);
    const auto to = static_cast<size_t>(bundle_begin_[static_cast<size_t>(i) + 1]);
    return std::span(order_).subspan(from, to - from);
  }

  // `after`: what the thread will do next if all tasks take the same time.
  void run_bundle(std::span<const FlashTask* const> tasks, const FlashTask* after, LaneThread& thread) {
    const FlashResults results{out_PV_, state_P_};
    if (in_lanes(*tasks.front()->group)) {
      flash_by_lanes(cpu_.kernels, problem_, tasks, after, thread, results);
    } else {
      flash_by_dots(cpu_.kernels, problem_, *tasks.front(), thread.scratch, results);
      thread.loaded = nullptr;
    }
    const int64_t n = problem_.value_cols;
    for (const FlashTask* task : tasks) {
      if (task->splits() > 1) continue;
      for (int64_t r = 0; r < task->rows(); ++r) {
        float* out_V = out_PV_ + (task->partial + r) * n;
        normalise(cpu_.kernels, out_V, state_P_[task->partial + r], n);
        float* to = problem_.out + task->pair(problem_, task->row_begin + r) * n;
        std::memcpy(to, out_V, static_cast<size_t>(n) * sizeof(float));
      }
    }
  }

  // Folds all ranges, some rows at a time.
  void fold_all() {
    const size_t from = carried_turn_;
    carried_turn_ = 1 - carried_turn_;
    int64_t most = 0;
    for (const int64_t begin : std::span(ranges_).first(static_cast<size_t>(range_count_))) {
      most = std::max(most, tasks_[static_cast<size_t>(begin)].rows());
    }
    const int64_t parts = (most + kFoldRows - 1) / kFoldRows;
    cpu_.pool.run(range_count_ * parts, 1, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) {
        fold(ranges_[static_cast<size_t>(i / parts)], i % parts * kFoldRows, from);
      }
    });
  }

  // Folds the tasks from `begin` on that have the same rows, kFoldRows of these from first_row on. Rows whose splits
  // span two rounds go on from what the round before left in the output and in carried_[from]; only the first range of
  // a round can.
  void fold(int64_t begin, int64_t first_row, size_t from) {
    const FlashTask& first = tasks_[static_cast<size_t>(begin)];
    const int64_t n = problem_.value_cols;
    const int64_t last_split = first.splits() - 1;
    const int64_t count = std::min(last_split - first.split + 1, task_count_ - begin);
    const bool ends = first.split + count - 1 == last_split;
    for (int64_t r = first_row; r < std::min(first_row + kFoldRows, first.rows()); ++r) {
      float* out_V = problem_.out + first.pair(problem_, first.row_begin + r) * n;
      SoftmaxState state = carried_[from][static_cast<size_t>(r)];
      for (int64_t i = 0; i < count; ++i) {
        const FlashTask& task = tasks_[static_cast<size_t>(begin + i)];
        const float* next_V = out_PV_ + (task.partial + r) * n;
        const SoftmaxState& next = state_P_[task.partial + r];
        if (task.split == 0) {
          std::memcpy(out_V, next_V, static_cast<size_t>(n) * sizeof(float));
          state = next;
        } else {
          combine(cpu_.kernels, out_V, state, next_V, next, n);
        }
      }
      if (ends) {
        normalise(cpu_.kernels, out_V, state, n);
      } else {
        carried_[1 - from][static_cast<size_t>(r)] = state;
      }
    }
  }

  const CpuContext& cpu_;
  const FlashProblem& problem_;
  Workspace::Scope scope_;
  int64_t max_partials_;
  int64_t task_floats_;  // scratch of a thread
  float* scratch_;
  float* out_PV_;
  SoftmaxState* state_P_;
  std::array<FlashTask, kMaxTasks> tasks_{};
  std::array<const FlashTask*, kMaxTasks> order_{};    // the tasks, bundle after bundle
  std::array<int64_t, kMaxTasks + 1> bundle_begin_{};  // indices in order_
  std::array<int64_t, kMaxTasks> ranges_{};            // first tasks of the row ranges that have several splits
  int64_t task_count_ = 0;
  int64_t bundle_count_ = 0;
  int64_t range_count_ = 0;
  int64_t partial_count_ = 0;
  std::array<std::array<SoftmaxState, kLaneRows>, 2> carried_{};
  size_t carried_turn_ = 0;
};

}  // namespace

int64_t flash_scratch_floats(int64_t key_cols, int64_t value_cols, int threads) {
  return threads * task_scratch_floats(key_cols, value_cols) + Workspace::padded(max_partials(threads) * value_cols) +
         Workspace::padded(max_partials(threads) * 2);
}

void flash_attention(const CpuContext& cpu, const FlashProblem& problem) {
  FlashRun(cpu, problem).run();
}

}  // namespace lathe
