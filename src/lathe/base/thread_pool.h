// A pool for kernels: run() splits a loop over all threads and returns when every part is done; run_each() does so for
// items that differ in cost. Threads spin for a while and then park, and the caller runs the parts of threads that got
// no processor in time, so that a busy machine does not make a run collapse. What a loop computes must not depend on
// the split.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "lathe/base/result.h"

namespace lathe {

class ThreadPool {
 public:
  // How long threads spin before they park. Briefly: little is lost when others want the processors. Long: for work
  // that goes on for hours with parts of milliseconds, where being woken costs more than what stands between two of
  // them.
  static constexpr std::chrono::microseconds kSpinBriefly{40};
  static constexpr std::chrono::microseconds kSpinLong{1000};

  // `threads` includes the caller; 1 makes a pool that runs everything inline. Fails when a thread cannot be created.
  static Result<std::unique_ptr<ThreadPool>> create(int threads, std::chrono::microseconds spin = kSpinBriefly);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  // The caller included.
  int threads() const;

  // body(begin, end, thread): called with disjoint ranges that cover [0, count), `grain` being the least useful size of
  // one. `thread` < threads() tells concurrent calls apart; one thread may get several ranges, one after the other.
  // Must not throw. Not reentrant: one run() at a time, from one thread.
  template <class Body>
  void run(int64_t count, int64_t grain, const Body& body) {
    run_erased(
        count,
        grain,
        [](const void* context, int64_t begin, int64_t end, int thread) {
          (*static_cast<const Body*>(context))(begin, end, thread);
        },
        &body);
  }

  // For items that differ in cost: whoever is free takes the next of [0, count), in order. `start(thread)` is called by
  // each thread that takes part and returns what that thread calls with each of its items; `thread` is as in run().
  template <class Start>
  void run_each(int64_t count, const Start& start) {
    std::atomic<int64_t> next{0};
    run(std::min<int64_t>(count, threads()), 1, [&](int64_t, int64_t, int thread) {
      auto body = start(thread);
      for (int64_t i = next++; i < count; i = next++) body(i);
    });
  }

 private:
  using Function = void (*)(const void* context, int64_t begin, int64_t end, int thread);
  ThreadPool();
  void run_erased(int64_t count, int64_t grain, Function function, const void* context);

  struct State;
  std::unique_ptr<State> state_;
};

// Threads that are useful here: physical cores inside the affinity mask, limited by the cgroup CPU quota, at least 1.
int default_thread_count();

}  // namespace lathe
