// The eight tile registers of AMX: up to 16 rows of up to 64 bytes each. What tile_gemm-inl.h needs of them; see
// emulated_tiles-inl.h for the same in plain code. See vec16-inl.h for what may be included here.
#pragma once

#include "lathe/kernels/x86_amx/tile_shapes-inl.h"

namespace lathe {
namespace {

// Inline assembly: the loads of g++ 12's intrinsics do not say that they read memory, so the stores before them could
// move behind them.
struct HardwareTiles {
  LATHE_INLINE void configure(const TileShapes& shapes) { __asm__ volatile("ldtilecfg %0" : : "m"(shapes)); }

  // Also tells the processor and the operating system that there is nothing to save any more.
  LATHE_INLINE void release() { __asm__ volatile("tilerelease"); }

  template <int kTile>
  LATHE_INLINE void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }

  // Rows `stride` bytes apart.
  template <int kTile>
  LATHE_INLINE void load(const std::byte* rows, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
  }

  // Row m, column n of kSum += sum over k of byte k of row m of kA (signed) * byte 4 n + k % 4 of row k / 4 of kB
  // (signed).
  template <int kSum, int kA, int kB>
  LATHE_INLINE void dot() {
    __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
  }

  template <int kTile>
  LATHE_INLINE void store(std::byte* rows, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
  }
};

}  // namespace
}  // namespace lathe
