#include "lathe/cli/doctor_checks.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "lathe/base/thread_pool.h"
#include "lathe/cli/doctor_measure.h"
#include "support/temp_dir.h"

namespace lathe::cli {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

MachineLimits good_limits() {
  MachineLimits limits;
  limits.affinity_cpus = 8;
  limits.physical_cores = 4;
  limits.total_memory = 32 * kGiB;
  limits.available_memory = 16 * kGiB;
  limits.transparent_huge_pages = "madvise";
  return limits;
}

HostFacts good_facts() {
  HostFacts facts;
  facts.cpu = "Some Processor";
  facts.isa = "avx2";
  facts.usable_isas = {"reference", "avx2"};
  facts.threads = 4;
  facts.load = 0.5;
  facts.overcommit = "0";
  facts.huge_page_defrag = "madvise";
  facts.governor = "performance";
  facts.throttled = 0.0;
  facts.open_files = 1024;
  facts.hub_cache = "/cache";
  facts.hub_free_bytes = 100 * kGiB;
  return facts;
}

std::vector<Finding> all_checks(const MachineLimits& limits, const HostFacts& facts) {
  std::vector<Finding> out;
  for (const auto& part : {check_processor(limits, facts), check_memory(limits, facts), check_storage(facts)}) {
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

Finding find(const std::vector<Finding>& findings, std::string_view what) {
  for (const Finding& finding : findings) {
    if (finding.what == what) return finding;
  }
  ADD_FAILURE() << "no finding about " << what;
  return {};
}

void expect_warning(const MachineLimits& limits,
                    const HostFacts& facts,
                    std::string_view what,
                    std::string_view value,
                    std::string_view advice) {
  const Finding finding = find(all_checks(limits, facts), what);
  EXPECT_EQ(finding.severity, Severity::kWarning) << what;
  EXPECT_NE(finding.value.find(value), std::string::npos) << finding.value;
  EXPECT_NE(finding.advice.find(advice), std::string::npos) << finding.advice;
}

TEST(Doctor, AGoodMachineHasNothingToAdvise) {
  for (const Finding& finding : all_checks(good_limits(), good_facts())) {
    EXPECT_EQ(finding.severity, Severity::kOk) << finding.what << ": " << finding.value << "; " << finding.advice;
    EXPECT_TRUE(finding.advice.empty()) << finding.what;
    EXPECT_FALSE(finding.value.empty()) << finding.what;
  }
}

TEST(Doctor, Processor) {
  HostFacts facts = good_facts();
  facts.isa = "reference";
  expect_warning(good_limits(), facts, "kernels", "reference in force; usable here: reference, avx2", "LATHE_ISA");
  facts.usable_isas = {"reference"};
  expect_warning(good_limits(), facts, "kernels", "reference", "no vector kernels");
  facts = good_facts();
  facts.load = 20.0;
  expect_warning(good_limits(), facts, "load", "20.0 processes", "compete");
}

TEST(Doctor, ThreadsAndNodes) {
  MachineLimits limits = good_limits();
  EXPECT_EQ(find(all_checks(limits, good_facts()), "threads").value, "4 used of 8 processors, 4 cores");
  limits.cgroup_cpus = 0.5;
  expect_warning(limits, good_facts(), "threads", "quota 0.50", "raise it");
  limits.cgroup_cpus = 2.0;
  expect_warning(limits, good_facts(), "threads", "quota 2.00", "less than its cores");
  limits.cgroup_cpus = 4.0;
  EXPECT_EQ(find(all_checks(limits, good_facts()), "threads").severity, Severity::kOk);
  limits.numa_nodes = 2;
  expect_warning(limits, good_facts(), "numa", "2 nodes", "numactl");
}

TEST(Doctor, FrequencyAndThrottling) {
  HostFacts facts = good_facts();
  facts.throttled = 0.25;
  expect_warning(good_limits(), facts, "throttling", "25.0 % of the periods", "-t");
  facts = good_facts();
  facts.governor = "powersave";
  expect_warning(good_limits(), facts, "frequency", "powersave", "performance");
  facts.governor = "powersave (intel_pstate)";
  EXPECT_EQ(find(all_checks(good_limits(), facts), "frequency").severity, Severity::kOk);
}

TEST(Doctor, Memory) {
  MachineLimits limits = good_limits();
  limits.available_memory = kGiB;
  expect_warning(limits, good_facts(), "memory", "1.00 GiB available of 32.00 GiB", "small models");

  limits = good_limits();
  limits.cgroup_memory = kGiB;
  limits.cgroup_memory_used = kGiB - 1024;
  const Finding full = find(all_checks(limits, good_facts()), "memory");
  EXPECT_EQ(full.severity, Severity::kFailure);
  EXPECT_NE(full.value.find("container limit 1.00 GiB"), std::string::npos) << full.value;

  limits.cgroup_memory_used = 2 * kGiB;  // above the limit, as it may be for a moment
  EXPECT_EQ(find(all_checks(limits, good_facts()), "memory").severity, Severity::kFailure);

  expect_warning(MachineLimits{}, good_facts(), "memory", "not known", "/proc");
}

TEST(Doctor, LimitsOfMemory) {
  MachineLimits limits = good_limits();
  limits.address_space = 8 * kGiB;
  expect_warning(limits, good_facts(), "address space", "8.00 GiB", "ulimit -v");
  limits = good_limits();
  limits.transparent_huge_pages = "never";
  expect_warning(limits, good_facts(), "huge pages", "never", "echo madvise");
  HostFacts facts = good_facts();
  facts.huge_page_defrag = "never";
  expect_warning(good_limits(), facts, "huge pages", "madvise, defrag never", "defrag");
  facts.overcommit = "2";
  expect_warning(good_limits(), facts, "overcommit", "strict", "refused");
}

TEST(Doctor, Storage) {
  HostFacts facts = good_facts();
  facts.open_files = 64;
  expect_warning(good_limits(), facts, "open files", "64", "ulimit -n 1024");
  facts = good_facts();
  facts.hub_free_bytes = kGiB;
  expect_warning(good_limits(), facts, "hub cache", "/cache, 1.00 GiB free", "HF_HUB_CACHE");
  facts.hub_writable = false;
  expect_warning(good_limits(), facts, "hub cache", "/cache", "not writable");
  facts.hub_free_bytes.reset();
  expect_warning(good_limits(), facts, "hub cache", "/cache", "not known");
}

TEST(Doctor, ReadsTheHost) {
  const testing::TempDir dir;
  std::filesystem::create_directories(dir / "proc/sys/vm");
  std::ofstream(dir / "proc/loadavg") << "3.25 1.00 0.50 2/300 1234\n";
  std::ofstream(dir / "proc/sys/vm/overcommit_memory") << "2\n";
  std::filesystem::create_directories(dir / "sys/kernel/mm/transparent_hugepage");
  std::filesystem::create_directories(dir / "sys/devices/system/cpu/cpu0/cpufreq");
  std::filesystem::create_directories(dir / "sys/fs/cgroup");
  std::ofstream(dir / "sys/kernel/mm/transparent_hugepage/defrag") << "always defer [madvise] never\n";
  std::ofstream(dir / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") << "powersave\n";
  std::ofstream(dir / "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver") << "intel_pstate\n";
  std::ofstream(dir / "sys/fs/cgroup/cpu.stat") << "usage_usec 9\nnr_periods 200\nnr_throttled 50\n";
  const HostFacts facts = host_facts(dir / "not" / "there" / "yet", dir.path());
  EXPECT_EQ(facts.huge_page_defrag, "madvise");
  EXPECT_EQ(facts.governor, "powersave (intel_pstate)");
  EXPECT_EQ(facts.throttled, std::optional(0.25));
  EXPECT_EQ(facts.load, std::optional(3.25));
  EXPECT_EQ(facts.overcommit, "2");
  EXPECT_TRUE(facts.hub_writable);
  EXPECT_TRUE(facts.hub_free_bytes.has_value());
  EXPECT_GT(facts.open_files, 0u);
  EXPECT_GE(facts.threads, 1);
  ASSERT_FALSE(facts.usable_isas.empty());
  EXPECT_EQ(facts.usable_isas.front(), "reference");

  const HostFacts bare = host_facts(dir.path(), dir / "nowhere");
  EXPECT_FALSE(bare.load.has_value());
  EXPECT_EQ(bare.overcommit, "");
  EXPECT_EQ(bare.huge_page_defrag, "");
  EXPECT_EQ(bare.governor, "");
  EXPECT_FALSE(bare.throttled.has_value());
}

TEST(DoctorMeasure, FindsPlausibleRates) {
  for (const int threads : {1, 2}) {
    auto pool = ThreadPool::create(threads);
    ASSERT_TRUE(pool);
    const auto bandwidth = measure_bandwidth(**pool, uint64_t{8} << 20, 0.01);
    ASSERT_TRUE(bandwidth);
    EXPECT_EQ(bandwidth->buffer_bytes, uint64_t{8} << 20);
    EXPECT_GT(bandwidth->one_thread, 1e7);
    EXPECT_LT(bandwidth->one_thread, 1e13);
    EXPECT_GT(bandwidth->all_threads, 1e7);
    const Arithmetic arithmetic = measure_arithmetic(**pool, 0.01);
    EXPECT_GT(arithmetic.one_thread, 1e7);
    EXPECT_LT(arithmetic.one_thread, 1e13);
    EXPECT_GT(arithmetic.all_threads, 1e7);
    for (const PeakKind kind : {PeakKind::kFp32, PeakKind::kInt8}) {
      const Peak peak = measure_peak(**pool, kind, 0.01);
      EXPECT_EQ(peak.threads, threads);
      EXPECT_GT(peak.one_thread, 1e7);
      EXPECT_LT(peak.one_thread, 2e13);
      EXPECT_GT(peak.all_threads, 1e7);
    }
  }
  EXPECT_TRUE(kernels_agree());
}

TEST(DoctorMeasure, TheBufferFitsTheFreeMemory) {
  MachineLimits limits = good_limits();
  EXPECT_GE(measurement_buffer_bytes(limits), uint64_t{256} << 20);
  EXPECT_LE(measurement_buffer_bytes(limits), kGiB);
  limits.cgroup_memory = 2 * kGiB;
  limits.cgroup_memory_used = 2 * kGiB - (uint64_t{40} << 20);
  EXPECT_EQ(measurement_buffer_bytes(limits), uint64_t{10} << 20);
  limits.cgroup_memory_used = 3 * kGiB;
  EXPECT_EQ(measurement_buffer_bytes(limits), uint64_t{1} << 20);
}

TEST(DoctorMeasure, ATinyBufferIsRoundedUp) {
  auto pool = ThreadPool::create(1);
  ASSERT_TRUE(pool);
  const auto bandwidth = measure_bandwidth(**pool, 0, 0.001);
  ASSERT_TRUE(bandwidth);
  EXPECT_EQ(bandwidth->buffer_bytes, uint64_t{1} << 20);
}

TEST(DoctorMeasure, NoMemoryIsAnError) {
  auto pool = ThreadPool::create(1);
  ASSERT_TRUE(pool);
  const auto bandwidth = measure_bandwidth(**pool, uint64_t{1} << 60, 0.001);
  ASSERT_FALSE(bandwidth);
  EXPECT_EQ(bandwidth.error().code, Errc::kResourceExhausted);
  EXPECT_NE(bandwidth.error().message.find("for a measurement, found less"), std::string::npos);
}

}  // namespace
}  // namespace lathe::cli
