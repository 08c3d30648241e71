// The products of the amx table on emulated tile registers, with AVX2: what tests run where there is no AMX.
#pragma once

#include "lathe/kernels/isa_tables.h"

namespace lathe::internal {

// A PanelGemmArgs product as the amx table computes it; needs what the avx2 table needs. Some hundred times slower.
extern const PanelGemmFunction kEmulatedAmxPanelGemm;

}  // namespace lathe::internal
