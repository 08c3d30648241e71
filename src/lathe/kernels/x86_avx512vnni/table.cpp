// The avx512vnni table. See vec16-inl.h for what may be included here.
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) || \
    !defined(__AVX512VNNI__)
#error "this unit must be compiled with -march=cascadelake"
#endif

#include "lathe/kernels/table-inl.h"

namespace lathe::internal {

constinit const KernelTable kAvx512VnniKernels = make_table("avx512vnni");

}  // namespace lathe::internal
