#include "lathe/cli/doctor_measure.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/anonymous_memory.h"
#include "lathe/base/clock.h"
#include "lathe/base/file.h"
#include "lathe/base/rng.h"
#include "lathe/base/str.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/kernels/peak.h"

namespace lathe::cli {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Calls work() until `seconds` have passed, at least once, and returns the shortest time of one call.
template <class Work>
double best_time(double seconds, const Work& work) {
  const double end = now_seconds() + seconds;
  double best = 1e30;
  double start = now_seconds();
  do {
    work();
    const double now = now_seconds();
    best = std::min(best, now - start);
    start = now;
  } while (start < end);
  return std::max(best, 1e-9);
}

// Bytes of this process in huge pages, where the system says so.
std::optional<uint64_t> huge_page_bytes() {
  const Result<std::string> text = read_file("/proc/self/smaps_rollup", 1 << 16);
  if (!text) return std::nullopt;
  constexpr std::string_view kKey = "AnonHugePages:";
  const size_t at = text->find(kKey);
  if (at == std::string::npos) return std::nullopt;
  std::string_view rest = std::string_view(*text).substr(at + kKey.size());
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  int64_t kib = 0;
  if (!parse_int(rest.substr(0, rest.find(' ')), kib) || kib < 0) return std::nullopt;
  return static_cast<uint64_t>(kib) * 1024;
}

// Operands of the product that measure_arithmetic() repeats.
struct Product {
  std::vector<float> w, x, y;

  Product(int64_t tokens, int64_t rows, int64_t cols)
      : w(static_cast<size_t>(rows * cols)),
        x(static_cast<size_t>(tokens * cols)),
        y(static_cast<size_t>(tokens * rows)) {
    Rng rng(7);
    for (float& value : w) value = static_cast<float>(rng.next_normal());
    for (float& value : x) value = static_cast<float>(rng.next_normal());
  }

  void run(const KernelTable& table, int64_t tokens, int64_t rows, int64_t cols) {
    table.gemm(
        {.w = {.dtype = DType::kF32, .rows = rows, .cols = cols, .data = reinterpret_cast<const std::byte*>(w.data())},
         .row_begin = 0,
         .row_end = rows,
         .x = x.data(),
         .x_stride = cols,
         .tokens = tokens,
         .y = y.data(),
         .y_stride = rows});
  }
};

}  // namespace

Result<Bandwidth> measure_bandwidth(ThreadPool& pool, uint64_t buffer_bytes, double seconds) {
  const uint64_t blocks = std::max<uint64_t>(buffer_bytes / kMiB, 1);
  const AnonymousMemory memory(blocks * kMiB, AnonymousMemory::Commit::kNow);
  std::byte* const data = memory.data();
  if (data == nullptr) {
    return Error{Errc::kResourceExhausted,
                 str("memory: expected ", human_bytes(blocks * kMiB), " for a measurement, found less")};
  }
  const std::optional<uint64_t> huge_before = huge_page_bytes();
  const auto count = static_cast<int64_t>(blocks);
  pool.run(count, 1, [&](int64_t begin, int64_t end, int) {  // pages appear near the thread that touches them
    for (int64_t b = begin; b < end; ++b) std::memset(data + b * kMiB, 1, kMiB);
  });
  std::atomic<uint64_t> sink{0};  // keeps the reads from being optimised away
  const auto read = [&](uint64_t first, uint64_t last) {
    sink += read_once({data + first * kMiB, (last - first) * kMiB}, kernels().isa);
  };
  Bandwidth out;
  out.buffer_bytes = blocks * kMiB;
  const std::optional<uint64_t> huge_after = huge_page_bytes();
  if (huge_before && huge_after) out.huge_bytes = *huge_after - std::min(*huge_after, *huge_before);
  out.threads = pool.threads();
  const double bytes = static_cast<double>(out.buffer_bytes);
  // One thread reads a part only: a pass over all of it could take longer than there is time.
  const uint64_t part = std::max<uint64_t>(blocks / 2, 1);
  out.one_thread = static_cast<double>(part * kMiB) / best_time(seconds, [&] { read(0, part); });
  out.all_threads = bytes / best_time(seconds, [&] {
                      pool.run(count, 1, [&](int64_t begin, int64_t end, int) { read(begin, end); });
                    });
  if (pool.threads() == 1) out.all_threads = out.one_thread = std::max(out.one_thread, out.all_threads);
  return out;
}

Arithmetic measure_arithmetic(ThreadPool& pool, double seconds) {
  constexpr int kRepeats = 16;  // products per task, so that handing out tasks costs nothing
  constexpr double kOperations = 2.0 * kPeakTokens * kPeakRows * kPeakCols * kRepeats;
  const KernelTable& table = kernels();
  const auto repeat = [&](Product& product) {
    for (int i = 0; i < kRepeats; ++i) product.run(table, kPeakTokens, kPeakRows, kPeakCols);
  };
  std::vector<Product> products(static_cast<size_t>(pool.threads()), Product(kPeakTokens, kPeakRows, kPeakCols));
  Arithmetic out;
  out.threads = pool.threads();
  out.one_thread = kOperations / best_time(seconds, [&] { repeat(products.front()); });
  if (out.threads == 1) {
    out.all_threads = out.one_thread;
    return out;
  }
  const int64_t tasks = int64_t{4} * out.threads;
  out.all_threads = static_cast<double>(tasks) * kOperations / best_time(seconds, [&] {
                      pool.run(tasks, 1, [&](int64_t begin, int64_t end, int thread) {
                        for (int64_t t = begin; t < end; ++t) repeat(products[static_cast<size_t>(thread)]);
                      });
                    });
  return out;
}

Peak measure_peak(ThreadPool& pool, PeakKind kind, double seconds) {
  constexpr int64_t kRounds = 200'000;  // half a millisecond
  const std::string_view isa = kernels().isa;
  const auto operations = static_cast<double>(run_peak_loop(kind, isa, kRounds));
  Peak out;
  out.threads = pool.threads();
  out.one_thread = operations / best_time(seconds, [&] { run_peak_loop(kind, isa, kRounds); });
  if (out.threads == 1) {
    out.all_threads = out.one_thread;
    return out;
  }
  const int64_t tasks = int64_t{4} * out.threads;
  out.all_threads = static_cast<double>(tasks) * operations / best_time(seconds, [&] {
                      pool.run(tasks, 1, [&](int64_t begin, int64_t end, int) {
                        for (int64_t t = begin; t < end; ++t) run_peak_loop(kind, isa, kRounds);
                      });
                    });
  return out;
}

bool kernels_agree() {
  constexpr int64_t kTokens = 3, kRows = 17, kCols = 67;  // odd sizes, so that tails are part of it
  Product ours(kTokens, kRows, kCols);
  Product reference(kTokens, kRows, kCols);
  ours.run(kernels(), kTokens, kRows, kCols);
  reference.run(*all_kernels().front(), kTokens, kRows, kCols);
  for (size_t i = 0; i < ours.y.size(); ++i) {
    // Sums of 67 products of size 1: rounding differs by far less.
    if (!(std::fabs(ours.y[i] - reference.y[i]) <= 1e-4F)) return false;
  }
  return true;
}

uint64_t measurement_buffer_bytes(const MachineLimits& limits) {
  const uint64_t wanted = std::clamp(4 * last_level_cache_bytes(), 256 * kMiB, 1024 * kMiB);
  return std::max(std::min(wanted, usable_memory(limits) / 4), kMiB);
}

uint64_t last_level_cache_bytes() {
  long bytes = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  bytes = ::sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  return bytes > 0 ? static_cast<uint64_t>(bytes) : 0;
}

}  // namespace lathe::cli
