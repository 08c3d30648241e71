// What this machine reaches: memory bandwidth and arithmetic, each measured for a fraction of a second.
#pragma once

#include <cstdint>
#include <optional>

#include "lathe/base/cpu.h"
#include "lathe/base/result.h"
#include "lathe/base/thread_pool.h"
#include "lathe/kernels/peak.h"

namespace lathe::cli {

struct Bandwidth {
  uint64_t buffer_bytes = 0;
  std::optional<uint64_t> huge_bytes;  // of the buffer, that the system gave in huge pages; unset where it does not say
  double one_thread = 0.0;             // bytes per second
  double all_threads = 0.0;            // bytes per second, `threads` of them
  int threads = 1;
};

// Several times the caches, but no more than a part of the memory that is free: what to measure bandwidth with.
uint64_t measurement_buffer_bytes(const MachineLimits& limits);

// Best of repeated reads, four streams to a thread, of a buffer of `buffer_bytes` (rounded down to MiB, at least 1
// MiB), `seconds` for each of the two measurements. Fails when the buffer cannot be allocated.
Result<Bandwidth> measure_bandwidth(ThreadPool& pool, uint64_t buffer_bytes, double seconds);

struct Arithmetic {
  double one_thread = 0.0;  // fp32 operations per second; a multiply and an add are two
  double all_threads = 0.0;
  int threads = 1;
};

// Best rate of the kernel table in force on an fp32 product whose operands stay in the core's own caches: 64 tokens
// times a matrix of kPeakRows x kPeakCols.
inline constexpr int64_t kPeakTokens = 64;
inline constexpr int64_t kPeakRows = 64;
inline constexpr int64_t kPeakCols = 256;
Arithmetic measure_arithmetic(ThreadPool& pool, double seconds);

// Best rate of multiply-adds between registers with the instruction set of the kernel table in force: what no product
// can exceed. Operations per second, a multiply and an add being two.
struct Peak {
  double one_thread = 0.0;
  double all_threads = 0.0;
  int threads = 1;
};

// Measures for `seconds` with one thread and as long with all.
Peak measure_peak(ThreadPool& pool, PeakKind kind, double seconds);

// Whether the kernel table in force computes what the reference table does, on a small product.
bool kernels_agree();

// Bytes of the largest cache that cores share, 0 where the system does not say.
uint64_t last_level_cache_bytes();

}  // namespace lathe::cli
