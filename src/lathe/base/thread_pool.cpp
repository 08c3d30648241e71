#include "lathe/base/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <system_error>
#include <thread>
#include <vector>

#include "lathe/base/cpu.h"

namespace lathe {
namespace {

constexpr int kMaxThreads = 1024;
constexpr uint32_t kClaimed = 0;  // no ticket

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A word that one thread waits on until it differs from what it last saw: by spinning for a while, then in the kernel.
class WaitWord {
 public:
  uint32_t load() const { return value_.load(std::memory_order_acquire); }

  void set(uint32_t value) {
    // Both this store and the waiter's store to parked_ are sequentially consistent, as are the loads that follow
    // them: at least one side sees the other, so no wake-up is lost.
    value_.store(value, std::memory_order_seq_cst);
    wake_if_parked();
  }

  // Subtracts one; the thread that makes it zero wakes the waiter.
  void count_down() {
    if (value_.fetch_sub(1, std::memory_order_seq_cst) == 1) wake_if_parked();
  }

  // Sets without waking: the waiter is the caller itself.
  void reset(uint32_t value) { value_.store(value, std::memory_order_relaxed); }

  // Returns the first value for which done(value) holds.
  template <class Done>
  uint32_t wait(std::chrono::nanoseconds spin, const Done& done) {
    uint32_t value = load();
    if (done(value)) return value;
    if (spin.count() > 0) {
      const auto limit = std::chrono::steady_clock::now() + spin;
      do {
        for (int i = 0; i < 32; ++i) {
          relax();
          value = load();
          if (done(value)) return value;
        }
      } while (std::chrono::steady_clock::now() < limit);
    }
    while (true) {
      parked_.store(1, std::memory_order_seq_cst);
      value = value_.load(std::memory_order_seq_cst);
      if (done(value)) break;
      ::syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
    }
    parked_.store(0, std::memory_order_relaxed);
    return value;
  }

 private:
  void wake_if_parked() {
    if (parked_.load(std::memory_order_seq_cst) != 0) {
      ::syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
    }
  }

  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> parked_{0};
  static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t) && std::atomic<uint32_t>::is_always_lock_free);
};

// Keeps signals that processes send away from workers, so that the thread that handles Ctrl-C is one of the program's.
// Those a thread raises by its own instruction stay: blocked, they would kill without the map guard's message.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    for (const int own : {SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS, SIGPROF}) ::sigdelset(&all, own);
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }

  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

struct Range {
  int64_t begin;
  int64_t end;
};

// The index-th of `parts` contiguous ranges of [0, count) whose sizes differ by at most one.
Range part_of(int64_t count, int64_t parts, int64_t index) {
  const int64_t size = count / parts;
  const int64_t longer = count % parts;  // the first ones have one element more
  const int64_t begin = index * size + std::min(index, longer);
  return {begin, begin + size + (index < longer ? 1 : 0)};
}

}  // namespace

struct ThreadPool::State {
  // What one worker is asked to do. `ticket` counts its jobs; the fields beside it are written before it. Whoever turns
  // `claim` from the ticket to kClaimed runs the part: the worker, or the caller when the worker did not get a
  // processor in time, so that a busy machine delays a run by at most the parts that are being computed. Two cache
  // lines, because processors fetch lines in pairs.
  struct alignas(128) Worker {
    WaitWord ticket;
    std::atomic<uint32_t> claim{kClaimed};
    std::atomic<bool> stop{false};  // read by a worker that is late for a part somebody else took
    Function function = nullptr;
    const void* context = nullptr;
    Range range{0, 0};
    uint32_t issued = 0;  // the caller's copy of the ticket

    bool take(uint32_t wanted) {
      return claim.compare_exchange_strong(wanted, kClaimed, std::memory_order_acq_rel, std::memory_order_relaxed);
    }

    uint32_t next_ticket() {
      if (++issued == kClaimed) ++issued;
      return issued;
    }
  };

  explicit State(int thread_count) : workers(static_cast<size_t>(thread_count)) {}

  void work(int thread) {
    Worker& worker = workers[static_cast<size_t>(thread)];
    uint32_t seen = 0;
    while (true) {
      seen = worker.ticket.wait(spin, [seen](uint32_t ticket) { return ticket != seen; });
      if (!worker.take(seen)) {
        if (worker.stop) return;
        continue;
      }
      worker.function(worker.context, worker.range.begin, worker.range.end, thread);
      remaining.count_down();
    }
  }

  std::vector<Worker> workers;  // [0] is the caller's and unused
  std::vector<std::thread> threads;
  std::chrono::nanoseconds spin{0};
  alignas(128) WaitWord remaining;  // workers that have not finished their part of this run
};

ThreadPool::ThreadPool() = default;

Result<std::unique_ptr<ThreadPool>> ThreadPool::create(int threads, std::chrono::microseconds spin) {
  if (threads < 1 || threads > kMaxThreads) {
    return Error{Errc::kInvalidArgument, str("threads: expected 1 to ", kMaxThreads, ", found ", threads)};
  }
  std::unique_ptr<ThreadPool> pool(new ThreadPool());
  pool->state_ = std::make_unique<State>(threads);
  State& state = *pool->state_;
  // A spinning thread pays only on a processor that nobody else needs.
  if (threads <= machine_limits().affinity_cpus) state.spin = spin;
  const SignalsBlocked blocked;
  state.threads.reserve(static_cast<size_t>(threads) - 1);
  for (int thread = 1; thread < threads; ++thread) {
    try {
      state.threads.emplace_back([&state, thread] { state.work(thread); });
    } catch (const std::system_error& error) {
      // The pool's destructor joins those that did start.
      return Error{Errc::kResourceExhausted,
                   str("cannot start thread ", thread + 1, " of ", threads, ": ", error.code().message())};
    }
  }
  return pool;
}

ThreadPool::~ThreadPool() {
  for (size_t i = 0; i < state_->threads.size(); ++i) {
    State::Worker& worker = state_->workers[i + 1];
    worker.stop = true;
    worker.ticket.set(worker.next_ticket());
  }
  for (std::thread& thread : state_->threads) thread.join();
}

int ThreadPool::threads() const {
  return static_cast<int>(state_->workers.size());
}

void ThreadPool::run_erased(int64_t count, int64_t grain, Function function, const void* context) {
  if (count <= 0) return;
  const int64_t parts = std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, threads());
  if (parts == 1) {
    function(context, 0, count, 0);
    return;
  }
  State& state = *state_;
  state.remaining.reset(static_cast<uint32_t>(parts - 1));
  for (int64_t i = 1; i < parts; ++i) {
    State::Worker& worker = state.workers[static_cast<size_t>(i)];
    worker.function = function;
    worker.context = context;
    worker.range = part_of(count, parts, i);
    const uint32_t ticket = worker.next_ticket();
    worker.claim.store(ticket, std::memory_order_release);
    worker.ticket.set(ticket);
  }
  const Range own = part_of(count, parts, 0);
  function(context, own.begin, own.end, 0);
  for (int64_t i = 1; i < parts; ++i) {
    State::Worker& worker = state.workers[static_cast<size_t>(i)];
    if (!worker.take(worker.issued)) continue;
    function(context, worker.range.begin, worker.range.end, 0);
    state.remaining.count_down();
  }
  state.remaining.wait(state.spin, [](uint32_t left) { return left == 0; });
}

}  // namespace lathe
