#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "lathe/base/cpu.h"
#include "lathe/base/str.h"
#include "lathe/base/thread_pool.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

// A root folder with made-up /proc and /sys files.
class FakeMachine {
 public:
  FakeMachine& file(const std::string& name, std::string_view text) {
    std::filesystem::create_directories((dir_ / name).parent_path());
    std::ofstream(dir_ / name) << text;
    return *this;
  }

  MachineLimits limits() const { return machine_limits(dir_.path()); }

 private:
  testing::TempDir dir_;
};

TEST(MachineLimits, OfThisMachineMakeSense) {
  const MachineLimits limits = machine_limits();
  EXPECT_GE(limits.affinity_cpus, 1);
  EXPECT_GE(limits.physical_cores, 1);
  EXPECT_LE(limits.physical_cores, limits.affinity_cpus);
  EXPECT_GT(limits.total_memory, uint64_t{64} << 20);
  EXPECT_GT(limits.available_memory, 0u);
  EXPECT_LE(limits.available_memory, limits.total_memory);
  EXPECT_GE(limits.numa_nodes, 1);
  EXPECT_GE(default_thread_count(), 1);
  EXPECT_LE(default_thread_count(), limits.physical_cores);
}

TEST(MachineLimits, NothingReadableGivesDefaults) {
  const FakeMachine machine;
  const MachineLimits limits = machine.limits();
  EXPECT_EQ(limits.physical_cores, limits.affinity_cpus);
  EXPECT_EQ(limits.total_memory, 0u);
  EXPECT_FALSE(limits.cgroup_cpus || limits.cgroup_memory || limits.cgroup_memory_used);
  EXPECT_EQ(limits.numa_nodes, 1);
  EXPECT_EQ(limits.transparent_huge_pages, "");
}

TEST(MachineLimits, ReadsMemorySwapNumaAndHugePages) {
  FakeMachine machine;
  machine.file("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:   8192 kB\nSwapTotal: 4 kB\n")
      .file("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
      .file("sys/devices/system/node/node0/cpulist", "0\n")
      .file("sys/devices/system/node/node11/cpulist", "1\n")
      .file("sys/devices/system/node/nodes_online", "0,11\n")
      .file("sys/devices/system/node/power/x", "");
  const MachineLimits limits = machine.limits();
  EXPECT_EQ(limits.total_memory, 16384u * 1024);
  EXPECT_EQ(limits.available_memory, 8192u * 1024);
  EXPECT_EQ(limits.swap_total, 4096u);
  EXPECT_EQ(limits.transparent_huge_pages, "madvise");
  EXPECT_EQ(limits.numa_nodes, 2);
}

TEST(MachineLimits, ProcessorsOfOneCoreCountOnce) {
  FakeMachine machine;
  for (int cpu = 0; cpu < 4096; ++cpu) {
    machine.file(str("sys/devices/system/cpu/cpu", cpu, "/topology/thread_siblings_list"), "0-4095\n");
    if (cpu >= machine.limits().affinity_cpus + 64) break;
  }
  const MachineLimits limits = machine.limits();
  if (limits.affinity_cpus > 64) GTEST_SKIP() << "the affinity mask may name processors that were not made up";
  EXPECT_EQ(limits.physical_cores, 1);
}

TEST(MachineLimits, Cgroup2OfAContainer) {
  FakeMachine machine;
  machine.file("proc/self/cgroup", "0::/\n")
      .file("sys/fs/cgroup/cpu.max", "150000 100000\n")
      .file("sys/fs/cgroup/memory.max", "1073741824\n")
      .file("sys/fs/cgroup/memory.current", "4096\n");
  const MachineLimits limits = machine.limits();
  EXPECT_EQ(limits.cgroup_cpus, 1.5);
  EXPECT_EQ(limits.cgroup_memory, uint64_t{1} << 30);
  EXPECT_EQ(limits.cgroup_memory_used, 4096u);
}

TEST(MachineLimits, Cgroup2TakesTheTightestLevel) {
  FakeMachine machine;
  machine.file("proc/self/cgroup", "0::/user.slice/job\n")
      .file("sys/fs/cgroup/user.slice/cpu.max", "200000 100000\n")
      .file("sys/fs/cgroup/user.slice/memory.max", "1000\n")
      .file("sys/fs/cgroup/user.slice/memory.current", "900\n")
      .file("sys/fs/cgroup/user.slice/job/cpu.max", "max 100000\n")
      .file("sys/fs/cgroup/user.slice/job/memory.max", "5000\n")
      .file("sys/fs/cgroup/user.slice/job/memory.current", "10\n");
  const MachineLimits limits = machine.limits();
  EXPECT_EQ(limits.cgroup_cpus, 2.0);
  EXPECT_EQ(limits.cgroup_memory, 1000u);
  EXPECT_EQ(limits.cgroup_memory_used, 900u);
}

TEST(MachineLimits, Cgroup2WithoutLimits) {
  FakeMachine machine;
  machine.file("proc/self/cgroup", "0::/a\n")
      .file("sys/fs/cgroup/a/cpu.max", "max 100000\n")
      .file("sys/fs/cgroup/a/memory.max", "max\n")
      .file("sys/fs/cgroup/a/memory.current", "10\n");
  const MachineLimits limits = machine.limits();
  EXPECT_FALSE(limits.cgroup_cpus || limits.cgroup_memory || limits.cgroup_memory_used);
}

TEST(MachineLimits, Cgroup1InsideAContainer) {
  FakeMachine machine;  // the paths are those of the host and do not exist here
  machine.file("proc/self/cgroup", "12:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n")
      .file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n")
      .file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
      .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "2048\n")
      .file("sys/fs/cgroup/memory/memory.usage_in_bytes", "1024\n");
  const MachineLimits limits = machine.limits();
  EXPECT_EQ(limits.cgroup_cpus, 2.5);
  EXPECT_EQ(limits.cgroup_memory, 2048u);
  EXPECT_EQ(limits.cgroup_memory_used, 1024u);
}

TEST(MachineLimits, Cgroup1WithoutLimits) {
  FakeMachine machine;
  machine.file("proc/self/cgroup", "2:memory:/\n3:cpu:/\n")
      .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
      .file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
      .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
      .file("sys/fs/cgroup/memory/memory.usage_in_bytes", "1024\n");
  const MachineLimits limits = machine.limits();
  EXPECT_FALSE(limits.cgroup_cpus || limits.cgroup_memory || limits.cgroup_memory_used);
}

TEST(MachineLimits, TheTightestLimitLeavesTheUsableMemory) {
  EXPECT_EQ(usable_memory({}), std::numeric_limits<uint64_t>::max());
  MachineLimits limits;
  limits.available_memory = 1000;
  EXPECT_EQ(usable_memory(limits), 1000u);
  limits.cgroup_memory = 900;
  EXPECT_EQ(usable_memory(limits), 900u);
  limits.cgroup_memory_used = 300;
  EXPECT_EQ(usable_memory(limits), 600u);
  limits.address_space = 500;
  EXPECT_EQ(usable_memory(limits), 500u);
  limits.cgroup_memory_used = 901;
  EXPECT_EQ(usable_memory(limits), 0u);
}

TEST(MachineLimits, GarbageIsNoLimit) {
  FakeMachine machine;
  machine.file("proc/self/cgroup", "no colon\n0::/../..\n:::\n0:\n")
      .file("sys/fs/cgroup/cpu.max", "0 0\n")
      .file("sys/fs/cgroup/memory.max", "-5\n")
      .file("proc/meminfo", "MemTotal:\nMemAvailable: many kB\n")
      .file("sys/kernel/mm/transparent_hugepage/enabled", "] [\n");
  const MachineLimits limits = machine.limits();
  EXPECT_FALSE(limits.cgroup_cpus || limits.cgroup_memory);
  EXPECT_EQ(limits.total_memory, 0u);
  EXPECT_EQ(limits.transparent_huge_pages, "");
}

}  // namespace
}  // namespace lathe
