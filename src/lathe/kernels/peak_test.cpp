#include "lathe/kernels/peak.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "lathe/kernels/kernel_table.h"

namespace lathe {
namespace {

// Best of a few short runs: operations per second.
double rate(PeakKind kind, std::string_view isa) {
  double best = 0.0;
  for (int run = 0; run < 5; ++run) {
    const auto start = std::chrono::steady_clock::now();
    const int64_t operations = run_peak_loop(kind, isa, 200'000);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(operations) / seconds);
  }
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
// makes equal chains one shows here.
TEST(Peak, BytesAreAtMostFourTimesAsFastAsFloats) {
  for (const KernelTable* table : all_kernels()) {
    if (table->isa == "amx" || table->isa == "reference") continue;
    EXPECT_LT(rate(PeakKind::kInt8, table->isa), 6.0 * rate(PeakKind::kFp32, table->isa)) << table->isa;
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

}  // namespace
}  // namespace lathe
