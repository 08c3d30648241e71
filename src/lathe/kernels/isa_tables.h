// One constant per instruction set; defined by its unit. Kept free of anything that an ISA unit may not include.
#pragma once

#include "lathe/kernels/kernel_table.h"

namespace lathe::internal {

extern const KernelTable kReferenceKernels;
extern const KernelTable kAvx2Kernels;        // x86 only
extern const KernelTable kAvx512VnniKernels;  // x86 only

}  // namespace lathe::internal
