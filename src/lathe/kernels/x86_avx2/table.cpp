// The avx2 table. See vec16-inl.h for what may be included here.
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__) || defined(__AVX512F__) || defined(__AVXVNNI__)
#error "this unit must be compiled with -march=x86-64-v3"
#endif

#include "lathe/kernels/table-inl.h"

namespace lathe::internal {

constinit const KernelTable kAvx2Kernels = make_table("avx2");

}  // namespace lathe::internal
