#include "lathe/cli/doctor_checks.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <system_error>

#include "lathe/base/file.h"
#include "lathe/base/str.h"
#include "lathe/base/thread_pool.h"
#include "lathe/kernels/kernel_table.h"

namespace lathe::cli {
namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

// The first word of a small file, empty when it cannot be read.
std::string first_word(const fs::path& path) {
  const Result<std::string> text = read_file(path, 4096);
  if (!text) return {};
  return text->substr(0, std::min(text->find_first_of(" \t\n"), text->size()));
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

Finding ok(std::string what, std::string value) {
  return {.severity = Severity::kOk, .what = std::move(what), .value = std::move(value), .advice = {}};
}

Finding warning(std::string what, std::string value, std::string advice) {
  return {Severity::kWarning, std::move(what), std::move(value), std::move(advice)};
}

Finding check_threads(const MachineLimits& limits, const HostFacts& facts) {
  std::string value = str(facts.threads,
                          " used of ",
                          limits.affinity_cpus,
                          limits.affinity_cpus == 1 ? " processor" : " processors",
                          ", ",
                          limits.physical_cores,
                          limits.physical_cores == 1 ? " core" : " cores");
  if (limits.cgroup_cpus) value += str(", quota ", fixed(*limits.cgroup_cpus, 2));
  if (limits.cgroup_cpus && *limits.cgroup_cpus < 1.0) {
    return warning("threads", std::move(value), "the quota of this container is less than one processor: raise it");
  }
  if (limits.cgroup_cpus && *limits.cgroup_cpus < limits.physical_cores) {
    return warning("threads",
                   std::move(value),
                   "the quota of this container is less than its cores: raise it, or pin to as many (taskset)");
  }
  return ok("threads", std::move(value));
}

// The word in brackets of a setting like "always [madvise] never", empty when there is none.
std::string chosen_word(const fs::path& path) {
  const Result<std::string> text = read_file(path, 4096);
  if (!text) return {};
  const size_t open = text->find('[');
  const size_t close = text->find(']', open == std::string::npos ? 0 : open);
  if (open == std::string::npos || close == std::string::npos) return {};
  return text->substr(open + 1, close - open - 1);
}

// nr_throttled / nr_periods of cpu.stat (cgroup 2, or 1 where that is not there).
std::optional<double> throttled_share(const fs::path& root) {
  for (const char* place : {"sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/cpu/cpu.stat"}) {
    const Result<std::string> text = read_file(root / place, 4096);
    if (!text) continue;
    const auto number = [&text](std::string_view key) {
      const size_t at = text->find(key);
      int64_t value = 0;
      if (at == std::string::npos) return value;
      const std::string_view rest = std::string_view(*text).substr(at + key.size());
      return parse_int(rest.substr(0, rest.find('\n')), value) ? value : 0;
    };
    const int64_t periods = number("nr_periods ");
    if (periods > 0) return static_cast<double>(number("nr_throttled ")) / static_cast<double>(periods);
  }
  return std::nullopt;
}

Finding check_memory_size(const MachineLimits& limits) {
  std::string value = str(human_bytes(limits.available_memory), " available of ", human_bytes(limits.total_memory));
  if (limits.cgroup_memory) {
    value += str(", container limit ",
                 human_bytes(*limits.cgroup_memory),
                 " with ",
                 human_bytes(limits.cgroup_memory_used.value_or(0)),
                 " in use");
  }
  const uint64_t usable = usable_memory(limits);
  if (limits.total_memory == 0) return warning("memory", "not known", "is /proc mounted?");
  if (usable < 64 * kMiB) {
    return {Severity::kFailure, "memory", std::move(value), "not even the default model fits: end other programs"};
  }
  if (usable < 2 * kGiB) return warning("memory", std::move(value), "enough for small models only");
  return ok("memory", std::move(value));
}

}  // namespace

std::string_view name_of(Severity severity) {
  switch (severity) {
    case Severity::kOk:
      return "ok";
    case Severity::kWarning:
      return "warn";
    case Severity::kFailure:
      return "fail";
  }
  return "fail";
}

HostFacts host_facts(const fs::path& hub_cache, const fs::path& root) {
  HostFacts out;
  out.cpu = cpu_model_name();
  out.isa = kernels().isa;
  for (const KernelTable* table : all_kernels()) out.usable_isas.emplace_back(table->isa);
  out.threads = default_thread_count();
  double load = 0.0;
  if (parse_double(first_word(root / "proc/loadavg"), load)) out.load = load;
  out.overcommit = first_word(root / "proc/sys/vm/overcommit_memory");

  out.huge_page_defrag = chosen_word(root / "sys/kernel/mm/transparent_hugepage/defrag");
  const fs::path frequency = root / "sys/devices/system/cpu/cpu0/cpufreq";
  out.governor = first_word(frequency / "scaling_governor");
  // These drivers call "powersave" what lets the processor choose, up to its highest frequency.
  const std::string driver = first_word(frequency / "scaling_driver");
  if (driver.starts_with("intel_pstate") || driver.starts_with("amd-pstate")) out.governor += str(" (", driver, ")");
  out.throttled = throttled_share(root);

  struct rlimit files {};

  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) out.open_files = files.rlim_cur;
  out.hub_cache = hub_cache;
  const Result<uint64_t> free = free_disk_bytes(hub_cache);
  if (free) out.hub_free_bytes = *free;
  // The folder itself may not exist yet: then its nearest parent decides.
  std::error_code error;
  fs::path existing = hub_cache;
  while (!fs::exists(existing, error) && existing.has_relative_path()) existing = existing.parent_path();
  out.hub_writable = ::access(existing.c_str(), W_OK) == 0;
  return out;
}

std::vector<Finding> check_processor(const MachineLimits& limits, const HostFacts& facts) {
  std::vector<Finding> out;
  out.push_back(ok("processor", facts.cpu));
  const std::string tables = str(facts.isa, " in force; usable here: ", joined(facts.usable_isas));
  if (facts.usable_isas.size() <= 1) {
    out.push_back(
        warning("kernels", tables, "no vector kernels for this processor (x86-64: AVX2 at least): very slow"));
  } else if (facts.isa != facts.usable_isas.back()) {
    out.push_back(warning("kernels", tables, "LATHE_ISA asks for less than this processor can"));
  } else {
    out.push_back(ok("kernels", tables));
  }
  out.push_back(check_threads(limits, facts));
  if (facts.load) {
    const std::string load = str(fixed(*facts.load, 1), " processes want to run");
    out.push_back(*facts.load > 1.2 * limits.affinity_cpus + 0.5
                      ? warning("load", load, "other programs compete: speeds below are lower than the machine's")
                      : ok("load", load));
  }
  if (facts.throttled) {
    const std::string share = str(fixed(100.0 * *facts.throttled, 1), " % of the periods cut short by the quota");
    out.push_back(*facts.throttled > 0.05
                      ? warning("throttling", share, "fewer threads (-t) than the quota's processors waste less of it")
                      : ok("throttling", share));
  }
  if (facts.governor == "powersave" || facts.governor == "conservative") {
    out.push_back(warning("frequency", facts.governor, "as root: cpupower frequency-set -g performance"));
  } else if (!facts.governor.empty()) {
    out.push_back(ok("frequency", facts.governor));
  }
  const std::string nodes = str(limits.numa_nodes, limits.numa_nodes == 1 ? " node" : " nodes");
  out.push_back(
      limits.numa_nodes > 1
          ? warning("numa", nodes, "for models beyond one node's memory try `numactl --interleave=all lathe ...`")
          : ok("numa", nodes));
  return out;
}

std::vector<Finding> check_memory(const MachineLimits& limits, const HostFacts& facts) {
  std::vector<Finding> out;
  out.push_back(check_memory_size(limits));
  out.push_back(ok("swap", limits.swap_total == 0 ? "none" : human_bytes(limits.swap_total)));
  if (!limits.address_space) {
    out.push_back(ok("address space", "unlimited"));
  } else {
    const std::string value = human_bytes(*limits.address_space);
    out.push_back(*limits.address_space < limits.total_memory
                      ? warning("address space", value, "models are mapped whole: `ulimit -v unlimited`")
                      : ok("address space", value));
  }
  if (facts.overcommit == "2") {
    out.push_back(
        warning("overcommit", "strict (vm.overcommit_memory=2)", "allocations may be refused while memory is free"));
  } else if (!facts.overcommit.empty()) {
    out.push_back(ok("overcommit", facts.overcommit == "1" ? "always" : "heuristic"));
  }
  const std::string& pages = limits.transparent_huge_pages;
  if (pages == "never") {
    out.push_back(warning("huge pages", pages, "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"));
  } else if (!pages.empty() && facts.huge_page_defrag == "never") {
    out.push_back(warning("huge pages",
                          str(pages, ", defrag never"),
                          "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/defrag"));
  } else {
    out.push_back(ok("huge pages", pages.empty() ? "not known" : pages));
  }
  return out;
}

std::vector<Finding> check_storage(const HostFacts& facts) {
  std::vector<Finding> out;
  constexpr uint64_t kFewFiles = 256;  // the largest releases have 163 shards
  const std::string files = str(facts.open_files);
  out.push_back(facts.open_files < kFewFiles
                    ? warning("open files", files, str("checkpoints of many files need more: `ulimit -n ", 1024, "`"))
                    : ok("open files", files));
  std::string value = facts.hub_cache.string();
  if (!facts.hub_free_bytes) {
    out.push_back(warning("hub cache", std::move(value), "free disk space is not known"));
    return out;
  }
  value += str(", ", human_bytes(*facts.hub_free_bytes), " free");
  if (!facts.hub_writable) {
    out.push_back(warning("hub cache", std::move(value), "not writable: set HF_HUB_CACHE for `lathe pull`"));
  } else if (*facts.hub_free_bytes < 4 * kGiB) {
    out.push_back(warning("hub cache", std::move(value), "little room to `lathe pull` models; HF_HUB_CACHE moves it"));
  } else {
    out.push_back(ok("hub cache", std::move(value)));
  }
  return out;
}

}  // namespace lathe::cli
