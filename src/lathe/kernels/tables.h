// The tables themselves and the choice between them; programs use kernel_table.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lathe/base/cpu.h"
#include "lathe/kernels/isa_tables.h"

namespace lathe::internal {

struct KernelChoice {
  const KernelTable* table;
  std::string error;  // empty, or one line about a request that could not be met
};

// The tables that a processor with these features executes, `reference` first, the best one last.
std::vector<const KernelTable*> usable_kernels(const CpuFeatures& features);

// The best usable table, or the one called `wanted`.
KernelChoice choose_kernels(const std::optional<std::string>& wanted, const CpuFeatures& features);

}  // namespace lathe::internal
