#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdio>

#include "lathe/kernels/tables.h"

namespace lathe {
namespace {

using internal::choose_kernels;
using internal::usable_kernels;

TEST(Choice, TakesTheBestTable) {
  const internal::KernelChoice choice = choose_kernels({}, cpu_features());
  EXPECT_EQ(choice.table, all_kernels().back());
  EXPECT_EQ(choice.error, "");
}

TEST(Choice, TakesEveryUsableTableByName) {
  for (const KernelTable* table : all_kernels()) {
    const internal::KernelChoice choice = choose_kernels(std::string(table->isa), cpu_features());
    EXPECT_EQ(choice.table, table);
    EXPECT_EQ(choice.error, "");
  }
}

TEST(Choice, RefusesUnknownNames) {
  for (const char* name : {"AVX2", "sse2", "avx10", " avx2", "reference,avx2"}) {
    const internal::KernelChoice choice = choose_kernels(name, cpu_features());
    EXPECT_EQ(choice.table, all_kernels().back());
    EXPECT_THAT(
        choice.error,
        ::testing::StartsWith("LATHE_ISA: unknown value '" + std::string(name) + "', expected one of reference"));
  }
}

#if defined(__x86_64__)
TEST(Choice, RefusesWhatTheProcessorCannotRun) {
  const internal::KernelChoice bare = choose_kernels("avx2", CpuFeatures{});
  EXPECT_EQ(bare.table->isa, "reference");
  EXPECT_EQ(bare.error, "LATHE_ISA: this processor cannot run avx2, expected one of reference");
  const internal::KernelChoice older = choose_kernels("avx512vnni", CpuFeatures{.avx2 = true, .avx512 = true});
  EXPECT_EQ(older.table->isa, "avx512");
  EXPECT_EQ(older.error, "LATHE_ISA: this processor cannot run avx512vnni, expected one of reference, avx2, avx512");
}

TEST(Choice, TilesReplaceTheProductsOfPackedWeightsOnly) {
  const auto tables = usable_kernels({.avx2 = true, .avx512 = true, .avx512vnni = true, .amx_int8 = true});
  const KernelTable& amx = *tables[tables.size() - 1];
  const KernelTable& vnni = *tables[tables.size() - 2];
  EXPECT_EQ(amx.isa, "amx");
  EXPECT_NE(amx.panel_gemm, vnni.panel_gemm);
  EXPECT_EQ(amx.gemm, vnni.gemm);
  EXPECT_EQ(amx.quantise, vnni.quantise);
  EXPECT_EQ(amx.lane_scores_q8, vnni.lane_scores_q8);
  const internal::KernelChoice forced = choose_kernels("amx", CpuFeatures{.avx2 = true});
  EXPECT_EQ(forced.error, "LATHE_ISA: this processor cannot run amx, expected one of reference, avx2");
}

TEST(Choice, NeedsEveryFeatureOfATable) {
  const auto names = [](const CpuFeatures& features) {
    std::string all;
    for (const KernelTable* table : usable_kernels(features)) all += " " + std::string(table->isa);
    return all;
  };
  EXPECT_EQ(names({}), " reference");
  EXPECT_EQ(names({.avx512 = true, .avx512vnni = true, .avxvnni = true}), " reference");
  EXPECT_EQ(names({.avx2 = true, .avx512vnni = true}), " reference avx2");
  EXPECT_EQ(names({.avx2 = true, .avxvnni = true}), " reference avx2 avxvnni");
  EXPECT_EQ(names({.avx2 = true, .avx512 = true}), " reference avx2 avx512");
  EXPECT_EQ(names({.avx2 = true, .avx512 = true, .avx512vnni = true, .avxvnni = true}),
            " reference avx2 avxvnni avx512 avx512vnni");
  EXPECT_EQ(names({.avx2 = true, .avx512 = true, .amx_int8 = true}), " reference avx2 avx512");
  EXPECT_EQ(names({.avx2 = true, .avx512 = true, .avx512vnni = true, .amx_int8 = true}),
            " reference avx2 avx512 avx512vnni amx");
}
#endif

// The choice is made once per process, so each value is tried in a child.
void report_with(const char* value) {
  ::setenv("LATHE_ISA", value, 1);  // NOLINT(concurrency-mt-unsafe)
  std::fprintf(stderr,
               "isa=%.*s error=%.*s;",
               static_cast<int>(kernels().isa.size()),
               kernels().isa.data(),
               static_cast<int>(isa_error().size()),
               isa_error().data());
  std::exit(0);  // NOLINT(concurrency-mt-unsafe)
}

TEST(ProcessChoiceDeathTest, FollowsTheEnvironment) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(report_with("reference"), ::testing::ExitedWithCode(0), "isa=reference error=;");
  EXPECT_EXIT(report_with(""), ::testing::ExitedWithCode(0), "isa=.+ error=;");
  EXPECT_EXIT(report_with("mmx"),
              ::testing::ExitedWithCode(0),
              "isa=.+ error=LATHE_ISA: unknown value 'mmx', expected one of reference");
}

}  // namespace
}  // namespace lathe
