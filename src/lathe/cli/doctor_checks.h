// The findings of `lathe doctor`: facts about the machine, each judged. Separate from the measuring, so that a test can
// invent a machine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lathe/base/cpu.h"
#include "lathe/base/result.h"

namespace lathe::cli {

enum class Severity {
  kOk,
  kWarning,  // works, but slower or less far than it could
  kFailure,  // models cannot run
};

struct Finding {
  Severity severity = Severity::kOk;
  std::string what;    // one word or two: "memory"
  std::string value;   // what was found
  std::string advice;  // what to do about it; empty when nothing is
};

// "ok", "warn" or "fail".
std::string_view name_of(Severity severity);

// Facts that MachineLimits does not have.
struct HostFacts {
  std::string cpu;                       // model name
  std::string isa;                       // kernel table in force
  std::vector<std::string> usable_isas;  // tables that run here, the best last
  int threads = 1;                       // that models use by default
  std::optional<double> load;            // processes that want to run, over the last minute
  std::string overcommit;                // vm.overcommit_memory: "0", "1", "2" or empty
  std::string huge_page_defrag;          // of transparent huge pages: "always", "defer", ..., "never" or empty
  std::string governor;                  // of the first processor's frequency: "performance", "powersave", ... or empty
  std::optional<double> throttled;       // share of the cgroup's scheduling periods that its quota cut short, 0 to 1
  uint64_t open_files = 0;               // limit of descriptors
  std::filesystem::path hub_cache;
  std::optional<uint64_t> hub_free_bytes;
  bool hub_writable = true;
};

// Reads what is below `root`/proc and `root`/sys; the rest comes from this process. `hub_cache` is where models are
// kept.
HostFacts host_facts(const std::filesystem::path& hub_cache, const std::filesystem::path& root = "/");

// Processor, kernels, threads, load and NUMA nodes.
std::vector<Finding> check_processor(const MachineLimits& limits, const HostFacts& facts);
// Memory and what limits it, huge pages.
std::vector<Finding> check_memory(const MachineLimits& limits, const HostFacts& facts);
// Open files and the hub cache.
std::vector<Finding> check_storage(const HostFacts& facts);

}  // namespace lathe::cli
