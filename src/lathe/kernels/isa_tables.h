// One constant per instruction set; defined by its unit. Kept free of anything that an ISA unit may not include.
#pragma once

#include "lathe/kernels/kernel_table.h"

namespace lathe::internal {

extern const KernelTable kReferenceKernels;
// aarch64 only:
extern const KernelTable kNeonKernels;
// x86 only:
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvxVnniKernels;
extern const KernelTable kAvx512Kernels;
extern const KernelTable kAvx512VnniKernels;

}  // namespace lathe::internal
