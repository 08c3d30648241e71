// What one core can do, measured in the same run as the kernels that are compared with it, and the main function of
// such comparisons.
#pragma once

#include <cstddef>

#include "lathe/kernels/kernel_table.h"
#include "lathe/kernels/peak.h"

namespace lathe::bench {

// Operations per second of the table's registers (a multiply and an add are two); best of several runs.
double peak_rate(PeakKind kind, const KernelTable& table);

// Bytes per second that one thread reads from a buffer of this size over and over: the level of the memory hierarchy
// that a product of the same size works from.
double read_bandwidth(size_t bytes);

// What main() of a program of benchmarks does: Google Benchmark's options, then those that are registered.
int run(int argc, char** argv, void (*register_all)());

}  // namespace lathe::bench
