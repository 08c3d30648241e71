#include "lathe/kernels/peak.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <vector>

#include "lathe/kernels/kernel_table.h"

namespace lathe {
namespace {

// Operations per second of one short run, and the best of a few.
double rate_once(PeakKind kind, std::string_view isa) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t operations = run_peak_loop(kind, isa, 200'000);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return static_cast<double>(operations) / seconds;
}

double rate(PeakKind kind, std::string_view isa) {
  double best = 0.0;
  for (int run = 0; run < 5; ++run) best = std::max(best, rate_once(kind, isa));
  return best;
}

TEST(Peak, EveryTableHasPlausibleRates) {
  for (const KernelTable* table : all_kernels()) {
    for (const PeakKind kind : {PeakKind::kFp32, PeakKind::kInt8}) {
      const double operations = rate(kind, table->isa);
      EXPECT_GT(operations, 1e8) << table->isa;
      // A loop that was optimised away would exceed what any core does: 2 x 64 byte products x 2 at 8 GHz, with tiles
      // 16 x 64 x 2.
      const bool tiles = table->isa == "amx" && kind == PeakKind::kInt8;
      EXPECT_LT(operations, tiles ? 1.7e13 : 4.2e12) << table->isa;
    }
  }
}

// Products of bytes do at most four times what products of floats do in registers of the same size; a compiler that
// makes equal chains one shows here: three of twelve chains would be left, or fewer. The median, because other programs
// interrupt single runs. Instrumented loops do not keep their sums in registers.
TEST(Peak, BytesAreAtMostFourTimesAsFastAsFloats) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "instrumented";
#endif
  for (const KernelTable* table : all_kernels()) {
    if (table->isa == "amx" || table->isa == "reference") continue;
    std::array<double, 21> ratios{};
    for (double& ratio : ratios) {
      ratio = rate_once(PeakKind::kInt8, table->isa) / rate_once(PeakKind::kFp32, table->isa);
    }
    std::ranges::nth_element(ratios, ratios.begin() + 10);
    EXPECT_LT(ratios[10], 6.0) << table->isa;
    // Sums that do not stay in registers.
    const bool four_at_once = table->isa == "avx512vnni" || table->isa == "avxvnni";
    EXPECT_GT(ratios[10], four_at_once ? 2.5 : 0.5) << table->isa;
  }
}

TEST(Peak, WorkGrowsWithRoundsAndWithRegisters) {
  for (const KernelTable* table : all_kernels()) {
    const int64_t one = run_peak_loop(PeakKind::kFp32, table->isa, 1);
    EXPECT_GT(one, 0);
    EXPECT_EQ(run_peak_loop(PeakKind::kFp32, table->isa, 1000), 1000 * one) << table->isa;
    if (table->isa == "reference") continue;
    // Four bytes in a float's place; or four products of tiles.
    const int64_t expected = table->isa == "amx" ? int64_t{4} * 16 * 16 * 64 * 2 : 4 * one;
    EXPECT_EQ(run_peak_loop(PeakKind::kInt8, table->isa, 1), expected) << table->isa;
  }
}

// Every whole 128 bytes count, what is behind them does not.
TEST(Peak, ReadingSeesEveryWord) {
  constexpr size_t kWords = 3 * 16;
  std::vector<uint64_t> words(kWords + 15);
  uint64_t all = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] = 0x9E3779B97F4A7C15u * (i + 1);
    if (i < kWords) all ^= words[i];
  }
  for (const KernelTable* table : all_kernels()) {
    EXPECT_EQ(read_once(std::as_bytes(std::span(words)), table->isa), all) << table->isa;
  }
}

}  // namespace
}  // namespace lathe
