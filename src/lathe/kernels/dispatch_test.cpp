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
  for (const char* name : {"AVX2", "sse2", "avx512", " avx2", "reference,avx2"}) {
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
  EXPECT_EQ(older.table->isa, "avx2");
  EXPECT_EQ(older.error, "LATHE_ISA: this processor cannot run avx512vnni, expected one of reference, avx2");
}

TEST(Choice, NeedsEveryFeatureOfATable) {
  EXPECT_EQ(usable_kernels({}).size(), 1u);
  EXPECT_EQ(usable_kernels({.avx512 = true, .avx512vnni = true}).size(), 1u);
  EXPECT_EQ(usable_kernels({.avx2 = true, .avx512vnni = true}).size(), 2u);
  const auto all = usable_kernels({.avx2 = true, .avx512 = true, .avx512vnni = true});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0]->isa, "reference");
  EXPECT_EQ(all[1]->isa, "avx2");
  EXPECT_EQ(all[2]->isa, "avx512vnni");
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
