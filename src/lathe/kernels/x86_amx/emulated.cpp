// See emulated.h, and vec16-inl.h for what may be included here.
#if !defined(__AVX2__) || defined(__AVX512F__)
#error "this unit must be compiled with -march=x86-64-v3"
#endif

#include "lathe/kernels/x86_amx/emulated.h"

#include "lathe/kernels/x86_amx/emulated_tiles-inl.h"
#include "lathe/kernels/x86_amx/tile_gemm-inl.h"

namespace lathe::internal {

namespace {

void emulated_panel_gemm(const PanelGemmArgs& args) {
  EmulatedTiles tiles;
  tile_panel_gemm(tiles, args, kAvx2Kernels.panel_gemm);
}

}  // namespace

constinit const PanelGemmFunction kEmulatedAmxPanelGemm = emulated_panel_gemm;

}  // namespace lathe::internal
