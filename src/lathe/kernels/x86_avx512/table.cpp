// The avx512 table: AVX-512 before VNNI. See vec16-inl.h for what may be included here.
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) || \
    defined(__AVX512VNNI__)
#error "this unit must be compiled with -march=skylake-avx512"
#endif

#include "lathe/kernels/table-inl.h"

namespace lathe::internal {

constinit const KernelTable kAvx512Kernels = make_table("avx512");

}  // namespace lathe::internal
