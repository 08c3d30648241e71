// The neon table: armv8.2-a with the int8 dot products. See vec16-inl.h for what may be included here.
#if !defined(__aarch64__) || !defined(__ARM_FEATURE_DOTPROD)
#error "this unit must be compiled with -march=armv8.2-a+dotprod"
#endif

#include "lathe/kernels/table-inl.h"

namespace lathe::internal {

constinit const KernelTable kNeonKernels = make_table("neon");

}  // namespace lathe::internal
