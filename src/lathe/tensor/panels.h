// Panels: block formats rearranged for the kernels. A panel is 16 rows of a matrix, stored contiguously; it holds the
// same integers and scales as the rows did (packing loses nothing), in the order in which a 16-lane kernel reads them:
// lane r is row r. One layout serves every instruction set, single tokens and many.
//
// A panel is a sequence of chunks, each a multiple of 64 bytes: scales first, then the integers of its blocks (32
// columns each) in ascending order.
//   Q8_0, Q5_0, Q4_0  chunk = 2 blocks:  d[2][16] fp16
//   Q5_1, Q4_1        chunk = 2 blocks:  d[2][16] fp16, m[2][16] fp16
//   Q4_K, Q5_K        chunk = 8 blocks:  d[16] fp16, dmin[16] fp16, sc[8][16] u8, m[8][16] u8
//   Q6_K              chunk = 8 blocks:  d[16] fp16, 32 bytes of padding, sc[16][16] i8
// The last chunk of a row with an odd number of blocks has one block of zeros. Integers of a block, "group g" being
// columns 4 g .. 4 g + 3 of the 16 rows as 64 bytes [row][4] (the order of vpdpbusd), g in 0..7:
//   8 bits  groups 0..7, each value + 128 (so unsigned)                                        512 bytes
//   4 bits  vector i in 0..3: group i in the low nibbles, group i + 4 in the high nibbles      256 bytes
//   5 bits  the 4-bit part, then for each group one 64-bit word of the fifth bits: bit p is byte p's     + 64 bytes
//   6 bits  the 4-bit part, then vector v in 0..1: group 4 v + s in bits 2 s, 2 s + 1 (bits 4, 5 of the values)  + 128
// Rows past the end of the matrix have zero scales.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lathe/tensor/blocks.h"
#include "lathe/tensor/matrix.h"

namespace lathe {

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kPanelAlignment = 64;

// Where things lie in a chunk of `format`. Offsets are in bytes from the start of the chunk.
struct PanelLayout {
  int64_t blocks = 0;       // per chunk
  int64_t scale_bytes = 0;  // before the integers
  int64_t block_bytes = 0;  // integers of one block of 16 rows
  int64_t bits = 0;         // 4, 5, 6 or 8
  int offset = 0;           // subtracted from the stored integers: 8, 16, 32, 128 or 0

  constexpr int64_t chunk_bytes() const { return scale_bytes + blocks * block_bytes; }
};

// The layout of a block format; all zero for other types.
constexpr PanelLayout panel_layout(DType format) {
  switch (format) {
    case DType::kQ8_0:
      return {2, 64, 512, 8, 128};
    case DType::kQ5_0:
      return {2, 64, 320, 5, 16};
    case DType::kQ4_0:
      return {2, 64, 256, 4, 8};
    case DType::kQ5_1:
      return {2, 128, 320, 5, 0};
    case DType::kQ4_1:
      return {2, 128, 256, 4, 0};
    case DType::kQ5_K:
      return {8, 320, 320, 5, 0};
    case DType::kQ4_K:
      return {8, 320, 256, 4, 0};
    case DType::kQ6_K:
      return {8, 320, 384, 6, 32};
    default:
      return {};
  }
}

// Bytes of one panel. cols must be whole blocks of the format, here and below.
constexpr int64_t panel_bytes(DType format, int64_t cols) {
  const PanelLayout layout = panel_layout(format);
  const int64_t chunk_cols = layout.blocks * kBlock;
  return chunk_cols == 0 ? 0 : (cols + chunk_cols - 1) / chunk_cols * layout.chunk_bytes();
}

// Bytes of all panels of a matrix.
constexpr int64_t packed_bytes(DType format, int64_t rows, int64_t cols) {
  return (rows + kPanelRows - 1) / kPanelRows * panel_bytes(format, cols);
}

// Packs rows [16 panel, 16 panel + 16) of a row-major matrix in a block format; `out` takes panel_bytes() bytes and
// needs no alignment for this call.
void pack_panel(const WeightMatrix& rows, int64_t panel, std::byte* out);

// The inverse for tests and tools: block `index` of row `row` of packed panels.
BlockValues read_packed_block(const WeightMatrix& panels, int64_t row, int64_t index);

}  // namespace lathe
