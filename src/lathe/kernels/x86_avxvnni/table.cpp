// The avxvnni table: AVX2 with the int8 products of VNNI (processors without AVX-512 that have them). See vec16-inl.h
// for what may be included here.
#if !defined(__AVX2__) || !defined(__AVXVNNI__) || defined(__AVX512F__)
#error "this unit must be compiled with -march=x86-64-v3 -mavxvnni"
#endif

#include "lathe/kernels/table-inl.h"

namespace lathe::internal {

constinit const KernelTable kAvxVnniKernels = make_table("avxvnni");

}  // namespace lathe::internal
