#include "machine.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

namespace lathe::bench {
namespace {

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double peak_rate(PeakKind kind, const KernelTable& table) {
  constexpr int64_t kRounds = 1'000'000;
  double best = 0.0;
  for (int run = 0; run < 7; ++run) {
    int64_t operations = 0;
    const double seconds = seconds_of([&] { operations = run_peak_loop(kind, table.isa, kRounds); });
    best = std::max(best, static_cast<double>(operations) / seconds);
  }
  return best;
}

double read_bandwidth(size_t bytes) {
  const std::vector<std::byte> data(bytes, std::byte{1});
  const auto rounds = static_cast<int>(std::max<size_t>(1, (size_t{256} << 20) / bytes));
  double best = 1e9;
  for (int run = 0; run < 5; ++run) {
    best = std::min(best, seconds_of([&] {
                      for (int i = 0; i < rounds; ++i) benchmark::DoNotOptimize(read_once(data, kernels().isa));
                    }));
  }
  return static_cast<double>(bytes) * rounds / best;
}

int run(int argc, char** argv, void (*register_all)()) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace lathe::bench
