// What this processor and container can do, read from CPUID/XGETBV, /proc, /sys and the cgroup files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace lathe {

struct CpuFeatures {
  bool avx2 = false;    // all of x86-64-v3 with AES and PCLMUL, and the operating system saves ymm
  bool avx512 = false;  // AVX-512 F, BW, CD, DQ, VL, and the operating system saves zmm
  bool avx512vnni = false;
  bool avx512bf16 = false;
  bool avxvnni = false;
  bool amx_int8 = false;  // AMX tiles with int8 products, and Linux lets this process use them (asked at detection)
  bool neon = false;
  bool neon_dotprod = false;
};

// Detected once; thread safe.
const CpuFeatures& cpu_features();
std::string cpu_model_name();

struct MachineLimits {
  int affinity_cpus = 1;                       // processors this process may run on
  int physical_cores = 1;                      // distinct cores among them
  std::optional<double> cgroup_cpus;           // CPU quota / period, where one is set
  uint64_t total_memory = 0;                   // bytes
  uint64_t available_memory = 0;               // bytes, MemAvailable
  std::optional<uint64_t> cgroup_memory;       // memory.max where set
  std::optional<uint64_t> cgroup_memory_used;  // memory.current where set
  std::optional<uint64_t> address_space;       // RLIMIT_AS where set
  int numa_nodes = 1;
  std::string transparent_huge_pages;  // "always", "madvise", "never" or empty
  uint64_t swap_total = 0;
};

// Reads what is below `root`/proc and `root`/sys; another root than "/" is for tests. What cannot be read keeps its
// default.
MachineLimits machine_limits(const std::filesystem::path& root = "/");

// Bytes that this process may still take: the least of free memory, what the container leaves, and the address space.
// The largest number where nothing is known.
uint64_t usable_memory(const MachineLimits& limits);

}  // namespace lathe
