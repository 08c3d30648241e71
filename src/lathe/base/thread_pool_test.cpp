#include "lathe/base/thread_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "support/address_space.h"

namespace lathe {
namespace {

struct Part {
  int64_t begin;
  int64_t end;
  int thread;
};

std::vector<Part> parts_of(ThreadPool& pool, int64_t count, int64_t grain) {
  std::mutex mutex;
  std::vector<Part> parts;
  pool.run(count, grain, [&](int64_t begin, int64_t end, int thread) {
    const std::lock_guard lock(mutex);
    parts.push_back({begin, end, thread});
  });
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.begin < b.begin; });
  return parts;
}

std::unique_ptr<ThreadPool> make_pool(int threads) {
  Result<std::unique_ptr<ThreadPool>> pool = ThreadPool::create(threads);
  EXPECT_TRUE(pool) << pool.error().message;
  return *std::move(pool);
}

TEST(ThreadPool, RangesCoverTheLoopOnceAndEvenly) {
  for (const int threads : {1, 2, 3, 7}) {
    const auto pool = make_pool(threads);
    EXPECT_EQ(pool->threads(), threads);
    for (const int64_t count : {1, 2, 3, 6, 7, 8, 100, 1001}) {
      for (const int64_t grain : {1, 2, 50, 5000}) {
        SCOPED_TRACE(str("threads ", threads, " count ", count, " grain ", grain));
        const std::vector<Part> parts = parts_of(*pool, count, grain);
        ASSERT_EQ(static_cast<int64_t>(parts.size()), std::max<int64_t>(1, std::min<int64_t>(threads, count / grain)));
        int64_t next = 0;
        for (const Part& part : parts) {
          EXPECT_EQ(part.begin, next);
          EXPECT_GE(part.end - part.begin, std::min(grain, count));
          EXPECT_NEAR(static_cast<double>(part.end - part.begin),
                      static_cast<double>(count) / static_cast<double>(parts.size()),
                      1.0);
          EXPECT_GE(part.thread, 0);
          EXPECT_LT(part.thread, threads);
          next = part.end;
        }
        EXPECT_EQ(next, count);
      }
    }
  }
}

TEST(ThreadPool, NothingToDoCallsNothing) {
  const auto pool = make_pool(2);
  EXPECT_TRUE(parts_of(*pool, 0, 1).empty());
  EXPECT_TRUE(parts_of(*pool, -5, 1).empty());
  EXPECT_EQ(parts_of(*pool, 5, 0).size(), 2u) << "a grain below 1 is 1";
}

TEST(ThreadPool, HugeCountsDoNotOverflow) {
  const auto pool = make_pool(3);
  const int64_t most = std::numeric_limits<int64_t>::max();
  const std::vector<Part> parts = parts_of(*pool, most, 1);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[1].begin, parts[0].end);
  EXPECT_EQ(parts[2].begin, parts[1].end);
  EXPECT_EQ(parts[2].end, most);
}

TEST(ThreadPool, TheCallerIsThreadZero) {
  const auto pool = make_pool(2);
  const std::thread::id self = std::this_thread::get_id();
  std::atomic<int> wrong{0};
  pool->run(2, 1, [&](int64_t, int64_t, int thread) {
    if ((std::this_thread::get_id() == self) != (thread == 0)) ++wrong;
  });
  EXPECT_EQ(wrong.load(), 0);
}

// Plain memory: what parts write must be visible after run(), and what the caller wrote before must be visible in
// parts.
TEST(ThreadPool, RunsFollowEachOtherWithoutMixing) {
  for (const int threads : {2, 4}) {
    const auto pool = make_pool(threads);
    std::vector<int64_t> values(64, 0);
    for (int64_t round = 0; round < 20000; ++round) {
      const int64_t count = 1 + round % 64;
      pool->run(count, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += round;
      });
    }
    int64_t sum = 0;
    for (const int64_t value : values) sum += value;
    int64_t expected = 0;
    for (int64_t round = 0; round < 20000; ++round) expected += round * (1 + round % 64);
    EXPECT_EQ(sum, expected);
  }
}

TEST(ThreadPool, MoreThreadsThanProcessorsMakeProgress) {
  const int threads = static_cast<int>(std::thread::hardware_concurrency()) * 4 + 3;
  const auto pool = make_pool(threads);
  std::atomic<int64_t> sum{0};
  for (int round = 0; round < 500; ++round) {
    pool->run(1000, 1, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
  }
  EXPECT_EQ(sum.load(), 500 * 1000);
}

TEST(ThreadPool, ParkedThreadsWakeUp) {
  const auto pool = make_pool(3);
  std::atomic<int> calls{0};
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // far beyond the spin
    pool->run(3, 1, [&](int64_t, int64_t, int thread) {
      if (thread == 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // and the caller parks
      ++calls;
    });
  }
  EXPECT_EQ(calls.load(), 60);
}

TEST(ThreadPool, WorkersLeaveSignalsToTheProgram) {
  const auto pool = make_pool(2);
  std::atomic<bool> interrupt_blocked{false};
  std::atomic<bool> bus_blocked{true};
  std::atomic<bool> seen{false};
  pool->run(2, 1, [&](int64_t, int64_t, int thread) {
    if (thread != 1) {
      // Busy until the worker has come for its part; alone, the caller would take that too.
      for (int i = 0; i < 10'000 && !seen; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return;
    }
    seen = true;
    sigset_t set;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &set);
    interrupt_blocked = ::sigismember(&set, SIGINT) == 1 && ::sigismember(&set, SIGTERM) == 1;
    bus_blocked = ::sigismember(&set, SIGBUS) == 1;
  });
  EXPECT_TRUE(interrupt_blocked);
  EXPECT_FALSE(bus_blocked);
  sigset_t own;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &own);
  EXPECT_EQ(::sigismember(&own, SIGINT), 0) << "the creating thread gets its mask back";
}

// A worker that is slow to come does not hold up the run: while the first range is computed nobody else need be there.
TEST(ThreadPool, TheCallerTakesTheRangesOfAbsentThreads) {
  const auto pool = make_pool(64);  // more than any test machine gives at once
  std::atomic<int64_t> sum{0};
  std::atomic<int> taken_by_caller{0};
  for (int run = 0; run < 200; ++run) {
    pool->run(64, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) sum += i;
      if (thread == 0 && begin > 0) ++taken_by_caller;
    });
  }
  EXPECT_EQ(sum.load(), 200 * 63 * 64 / 2);
  EXPECT_GT(taken_by_caller.load(), 0);
}

TEST(ThreadPool, EachItemIsTakenOnceAndByEveryThreadInOrder) {
  for (const int threads : {1, 2, 3, 7}) {
    const auto pool = make_pool(threads);
    for (const int64_t count : {-3, 0, 1, 2, 7, 1000}) {
      SCOPED_TRACE(str("threads ", threads, " count ", count));
      std::vector<int> times(static_cast<size_t>(std::max<int64_t>(count, 0)), 0);
      std::atomic<int> wrong{0};
      pool->run_each(count, [&](int thread) {
        if (thread < 0 || thread >= threads) ++wrong;
        return [&, last = int64_t{-1}](int64_t i) mutable {
          if (i <= last) ++wrong;
          last = i;
          ++times[static_cast<size_t>(i)];
        };
      });
      EXPECT_EQ(wrong.load(), 0);
      EXPECT_EQ(std::ranges::count(times, 1), std::ssize(times));
    }
  }
}

// Equal ranges would leave half of the items waiting behind the first: here it waits for all of them.
TEST(ThreadPool, AnItemThatTakesLongHoldsUpNoOther) {
  const auto pool = make_pool(2);
  const int64_t count = 100;
  std::atomic<int64_t> done{0};
  pool->run_each(count, [&](int) {
    return [&](int64_t i) {
      if (i == 0) {
        while (done < count - 1) std::this_thread::yield();
      }
      ++done;
    };
  });
  EXPECT_EQ(done.load(), count);
}

TEST(ThreadPool, PoolsComeAndGo) {
  for (int i = 0; i < 50; ++i) {
    const auto pool = make_pool(3);
    if (i % 2 == 0) continue;  // some end without ever having run
    EXPECT_EQ(parts_of(*pool, 3, 1).size(), 3u);
  }
}

TEST(ThreadPool, RefusesCountsOutOfRange) {
  for (const int threads : {0, -1, 1025, std::numeric_limits<int>::max()}) {
    const auto pool = ThreadPool::create(threads);
    ASSERT_FALSE(pool);
    EXPECT_EQ(pool.error().message, str("threads: expected 1 to 1024, found ", threads));
    EXPECT_EQ(pool.error().code, Errc::kInvalidArgument);
  }
}

// Ends the process: 0 when the threads that did start were joined and the error says what happened.
[[noreturn]] void start_too_many_threads() {
  struct rlimit limit {};

  limit.rlim_cur = limit.rlim_max = rlim_t{1} << 30;
  ::setrlimit(RLIMIT_AS, &limit);
  const auto pool = ThreadPool::create(1000);
  const std::string message = pool ? "started" : pool.error().message;
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, message.data(), message.size());
  ::_exit(!pool && pool.error().code == Errc::kResourceExhausted ? 0 : 1);
}

TEST(ThreadPoolDeathTest, AThreadWithoutSpaceForItsStackIsAnError) {
  if (testing::address_space_in_use() > uint64_t{1} << 29) GTEST_SKIP() << "sanitizers need the address space";
  EXPECT_EXIT(start_too_many_threads(),
              ::testing::ExitedWithCode(0),
              "^cannot start thread [0-9]+ of 1000: Resource temporarily unavailable$");
}

}  // namespace
}  // namespace lathe
