#include "lathe/base/cpu.h"

#include <gtest/gtest.h>

#include "lathe/base/file.h"

namespace lathe {
namespace {

TEST(CpuFeatures, LargerSetsContainSmallerOnes) {
  const CpuFeatures& cpu = cpu_features();
  EXPECT_TRUE(!cpu.avx512 || cpu.avx2);
  EXPECT_TRUE(!cpu.avx512vnni || cpu.avx512);
  EXPECT_TRUE(!cpu.avx512bf16 || cpu.avx512);
  EXPECT_TRUE(!cpu.avxvnni || cpu.avx2);
  EXPECT_TRUE(!cpu.amx_int8 || cpu.avx512);
  EXPECT_TRUE(!cpu.neon_dotprod || cpu.neon);
  EXPECT_FALSE(cpu.avx2 && cpu.neon);
}

// Linux lists in /proc/cpuinfo what the processor has and the kernel enables: a second opinion on our own CPUID.
TEST(CpuFeatures, AgreeWithTheKernel) {
#if !defined(__x86_64__)
  GTEST_SKIP() << "compares x86 flag names";
#else
  const Result<std::string> info = read_file("/proc/cpuinfo");
  if (!info) GTEST_SKIP() << info.error().message;
  const size_t begin = info->find("\nflags");
  if (begin == std::string::npos) GTEST_SKIP() << "no flags in /proc/cpuinfo";
  const std::string flags = info->substr(begin + 1, info->find('\n', begin + 1) - begin - 1) + " ";
  const auto has = [&](const char* flag) { return flags.find(str(" ", flag, " ")) != std::string::npos; };
  const CpuFeatures& cpu = cpu_features();
  EXPECT_EQ(cpu.avx2,
            has("avx2") && has("fma") && has("f16c") && has("bmi1") && has("bmi2") && has("abm") && has("movbe") &&
                has("aes") && has("pclmulqdq") && has("popcnt"));
  EXPECT_EQ(cpu.avx512,
            cpu.avx2 && has("avx512f") && has("avx512bw") && has("avx512cd") && has("avx512dq") && has("avx512vl"));
  EXPECT_EQ(cpu.avx512vnni, cpu.avx512 && has("avx512_vnni"));
  EXPECT_EQ(cpu.avx512bf16, cpu.avx512 && has("avx512_bf16"));
  EXPECT_EQ(cpu.avxvnni, cpu.avx2 && has("avx_vnni"));
  EXPECT_TRUE(!cpu.amx_int8 || (has("amx_int8") && has("amx_tile")));
#endif
}

TEST(CpuModelName, IsOneTrimmedLine) {
  const std::string name = cpu_model_name();
  ASSERT_FALSE(name.empty());
  EXPECT_EQ(name.find('\n'), std::string::npos);
  EXPECT_NE(name.front(), ' ');
  EXPECT_NE(name.back(), ' ');
}

}  // namespace
}  // namespace lathe
