#include "machine.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lathe::bench {
namespace {

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t read_once(const std::byte* data, size_t bytes) {
  __m256i sum[4] = {};
  for (size_t i = 0; i + 128 <= bytes; i += 128) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      sum[j] = _mm256_xor_si256(sum[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + i + 32 * j)));
    }
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 3));
}
#else
uint64_t read_once(const std::byte* data, size_t bytes) {
  uint64_t sum[4] = {};
  for (size_t i = 0; i + 32 <= bytes; i += 32) {
    uint64_t words[4];
    std::memcpy(words, data + i, 32);
    for (int j = 0; j < 4; ++j) sum[j] ^= words[j];
  }
  return sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
}
#endif

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
                      for (int i = 0; i < rounds; ++i) benchmark::DoNotOptimize(read_once(data.data(), bytes));
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
