// Products with packed weights on the tiles of AMX: what the amx table has instead of those of avx512vnni. See
// vec16-inl.h for what may be included here.
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) || \
    !defined(__AVX512VNNI__) || !defined(__AMX_INT8__)
#error "this unit must be compiled with -march=cascadelake -mamx-int8"
#endif

#include "lathe/kernels/isa_tables.h"
#include "lathe/kernels/x86_amx/tile_gemm-inl.h"
#include "lathe/kernels/x86_amx/tiles-inl.h"

namespace lathe::internal {

namespace {

void amx_panel_gemm(const PanelGemmArgs& args) {
  HardwareTiles tiles;
  tile_panel_gemm(tiles, args, kAvx512VnniKernels.panel_gemm);
}

}  // namespace

constinit const PanelGemmFunction kAmxPanelGemm = amx_panel_gemm;

}  // namespace lathe::internal
