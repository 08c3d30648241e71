// machine_limits() and default_thread_count().
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <system_error>
#include <vector>

#include "lathe/base/cpu.h"
#include "lathe/base/file.h"
#include "lathe/base/str.h"
#include "lathe/base/thread_pool.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kUnlimited = uint64_t{1} << 60;  // cgroup v1 writes "no limit" as a number near 2^63

std::string read_or_empty(const fs::path& path) {
  Result<std::string> text = read_file(path, uint64_t{1} << 24);
  return text ? *std::move(text) : std::string();
}

std::vector<std::string> split(std::string_view text, std::string_view separators) {
  std::vector<std::string> out;
  while (true) {
    const size_t begin = text.find_first_not_of(separators);
    if (begin == std::string_view::npos) return out;
    text.remove_prefix(begin);
    const size_t end = std::min(text.find_first_of(separators), text.size());
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

std::optional<int64_t> first_number(const std::string& text) {
  const std::vector<std::string> words = split(text, " \t\n");
  int64_t value = 0;
  if (words.empty() || !parse_int(words[0], value)) return std::nullopt;
  return value;
}

std::vector<int> affinity() {
  // The kernel refuses a mask smaller than its own, whose size it does not tell.
  for (int cpus = 1024; cpus <= (1 << 20); cpus *= 2) {
    const size_t bytes = CPU_ALLOC_SIZE(cpus);
    std::vector<cpu_set_t> set((bytes + sizeof(cpu_set_t) - 1) / sizeof(cpu_set_t));
    if (::sched_getaffinity(0, bytes, set.data()) != 0) continue;
    std::vector<int> out;
    for (int cpu = 0; cpu < cpus; ++cpu) {
      if (CPU_ISSET_S(static_cast<size_t>(cpu), bytes, set.data())) out.push_back(cpu);
    }
    return out;
  }
  return {};
}

// Processors that share a core name the same list of siblings.
int count_cores(const fs::path& root, const std::vector<int>& cpus) {
  std::set<std::string> cores;
  for (const int cpu : cpus) {
    const fs::path topology = root / str("sys/devices/system/cpu/cpu", cpu, "/topology");
    std::string siblings = read_or_empty(topology / "core_cpus_list");
    if (siblings.empty()) siblings = read_or_empty(topology / "thread_siblings_list");
    cores.insert(siblings.empty() ? str("cpu ", cpu) : siblings);
  }
  return std::max(1, static_cast<int>(cores.size()));
}

void read_memory(const fs::path& root, MachineLimits& out) {
  for (const std::string& line : split(read_or_empty(root / "proc/meminfo"), "\n")) {
    const std::vector<std::string> words = split(line, " \t");
    int64_t kibibytes = 0;
    if (words.size() < 2 || !parse_int(words[1], kibibytes) || kibibytes < 0) continue;
    const uint64_t bytes = static_cast<uint64_t>(kibibytes) * 1024;
    if (words[0] == "MemTotal:") out.total_memory = bytes;
    if (words[0] == "MemAvailable:") out.available_memory = bytes;
    if (words[0] == "SwapTotal:") out.swap_total = bytes;
  }
}

void lower_cpus(std::optional<double>& limit, double value) {
  limit = limit ? std::min(*limit, value) : value;
}

// The tightest level decides, and its usage belongs to it.
void lower_memory(MachineLimits& out, int64_t limit, std::optional<int64_t> used) {
  if (limit < 0 || static_cast<uint64_t>(limit) >= kUnlimited) return;
  if (out.cgroup_memory && *out.cgroup_memory <= static_cast<uint64_t>(limit)) return;
  out.cgroup_memory = static_cast<uint64_t>(limit);
  out.cgroup_memory_used.reset();
  if (used && *used >= 0) out.cgroup_memory_used = static_cast<uint64_t>(*used);
}

void read_cgroup2_level(const fs::path& folder, MachineLimits& out) {
  const std::vector<std::string> quota = split(read_or_empty(folder / "cpu.max"), " \t\n");
  int64_t allowed = 0;
  int64_t period = 0;
  if (quota.size() == 2 && parse_int(quota[0], allowed) && parse_int(quota[1], period) && allowed > 0 && period > 0) {
    lower_cpus(out.cgroup_cpus, static_cast<double>(allowed) / static_cast<double>(period));
  }
  // "max" is not a number, and so no limit.
  if (const auto limit = first_number(read_or_empty(folder / "memory.max"))) {
    lower_memory(out, *limit, first_number(read_or_empty(folder / "memory.current")));
  }
}

void read_cgroup1_cpu_level(const fs::path& folder, MachineLimits& out) {
  const auto allowed = first_number(read_or_empty(folder / "cpu.cfs_quota_us"));  // -1: none
  const auto period = first_number(read_or_empty(folder / "cpu.cfs_period_us"));
  if (allowed && period && *allowed > 0 && *period > 0) {
    lower_cpus(out.cgroup_cpus, static_cast<double>(*allowed) / static_cast<double>(*period));
  }
}

void read_cgroup1_memory_level(const fs::path& folder, MachineLimits& out) {
  if (const auto limit = first_number(read_or_empty(folder / "memory.limit_in_bytes"))) {
    lower_memory(out, *limit, first_number(read_or_empty(folder / "memory.usage_in_bytes")));
  }
}

// Visits mount/group and every folder above it down to the mount itself: limits of all of them hold. In a container
// the group's path may be one of the host that does not exist below the mount; the mount itself is visited always.
void for_each_level(const fs::path& mount, std::string_view group, const std::function<void(const fs::path&)>& visit) {
  visit(mount);
  fs::path at = mount;
  for (const std::string& name : split(group, "/")) {
    if (name == "..") return;
    at /= name;
    visit(at);
  }
}

void read_cgroups(const fs::path& root, MachineLimits& out) {
  const fs::path mounts = root / "sys/fs/cgroup";
  for (const std::string& line : split(read_or_empty(root / "proc/self/cgroup"), "\n")) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      // Version 2, alone or beside version 1 ("unified").
      for (const fs::path& mount : {mounts, mounts / "unified"}) {
        for_each_level(mount, group, [&](const fs::path& level) { read_cgroup2_level(level, out); });
      }
      continue;
    }
    const std::vector<std::string> names = split(controllers, ",");
    if (std::find(names.begin(), names.end(), "cpu") != names.end()) {
      for (const fs::path& mount : {mounts / "cpu", mounts / controllers}) {
        for_each_level(mount, group, [&](const fs::path& level) { read_cgroup1_cpu_level(level, out); });
      }
    }
    if (std::find(names.begin(), names.end(), "memory") != names.end()) {
      for_each_level(mounts / "memory", group, [&](const fs::path& level) { read_cgroup1_memory_level(level, out); });
    }
  }
}

int count_numa_nodes(const fs::path& root) {
  int nodes = 0;
  std::error_code error;
  for (fs::directory_iterator it(root / "sys/devices/system/node", error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.size() > 4 && name.starts_with("node") && name.find_first_not_of("0123456789", 4) == std::string::npos) {
      ++nodes;
    }
  }
  return std::max(nodes, 1);
}

// "always [madvise] never" -> "madvise"
std::string bracketed(const std::string& text) {
  const size_t open = text.find('[');
  const size_t close = text.find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) return {};
  return text.substr(open + 1, close - open - 1);
}

}  // namespace

MachineLimits machine_limits(const fs::path& root) {
  MachineLimits out;
  const std::vector<int> cpus = affinity();
  out.affinity_cpus = std::max(1, static_cast<int>(cpus.size()));
  out.physical_cores = count_cores(root, cpus);
  read_memory(root, out);
  read_cgroups(root, out);

  struct rlimit limit {};

  if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) out.address_space = limit.rlim_cur;
  out.numa_nodes = count_numa_nodes(root);
  out.transparent_huge_pages = bracketed(read_or_empty(root / "sys/kernel/mm/transparent_hugepage/enabled"));
  return out;
}

int default_thread_count() {
  const MachineLimits limits = machine_limits();
  int threads = limits.physical_cores;
  // A share of a processor is no thread: more threads than the quota would all be stopped at its end.
  if (limits.cgroup_cpus) {
    threads = std::min(threads, static_cast<int>(std::clamp(std::floor(*limits.cgroup_cpus), 1.0, 4096.0)));
  }
  return std::max(threads, 1);
}

uint64_t usable_memory(const MachineLimits& limits) {
  uint64_t least = limits.available_memory > 0 ? limits.available_memory : std::numeric_limits<uint64_t>::max();
  if (limits.cgroup_memory) {
    // More than the limit may be in use for a moment.
    const uint64_t used = limits.cgroup_memory_used.value_or(0);
    least = std::min(least, *limits.cgroup_memory - std::min(*limits.cgroup_memory, used));
  }
  if (limits.address_space) least = std::min(least, *limits.address_space);
  return least;
}

}  // namespace lathe
