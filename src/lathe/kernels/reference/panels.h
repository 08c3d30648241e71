// Members of the reference table that work on packed weights.
#pragma once

#include "lathe/kernels/kernel_table.h"

namespace lathe::internal {

// KernelTable::panel_gemm.
void panel_gemm(const PanelGemmArgs& args);
// KernelTable::quantise.
void quantise(const float* x, int64_t first_block, int64_t last_block, const QuantisedRows& out, int64_t row);

}  // namespace lathe::internal
