// One constant per instruction set; defined by its unit. Kept free of anything that an ISA unit may not include.
#pragma once

#include "lathe/kernels/kernel_table.h"

namespace lathe::internal {

using PanelGemmFunction = void (*)(const PanelGemmArgs& args);

extern const KernelTable kReferenceKernels;
// aarch64 only:
extern const KernelTable kNeonKernels;
// x86 only:
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvxVnniKernels;
extern const KernelTable kAvx512Kernels;
extern const KernelTable kAvx512VnniKernels;
// What the amx table has instead of the function of kAvx512VnniKernels; all others are that table's.
extern const PanelGemmFunction kAmxPanelGemm;

}  // namespace lathe::internal
