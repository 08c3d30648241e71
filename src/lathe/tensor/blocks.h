// The block formats of GGUF as they lie in memory, row-major: a row of n elements is n / 32 or n / 256 blocks, each
// with its own scales. Values (d, m, dmin are fp16; everything little-endian):
//   Q4_0  d (q - 8)           q in nibbles: byte i holds elements i (low) and i + 16 (high)
//   Q4_1  d q + m
//   Q5_0  d (q - 16)          fifth bits in qh: bit i belongs to element i
//   Q5_1  d q + m
//   Q8_0  d q                 q signed bytes
//   Q4_K  d sc_j q - dmin m_j  eight sub-blocks j of 32 with 6-bit sc and m; nibbles of 64 elements in 32 bytes (low
//   first) Q5_K  the same with a fifth bit: bit j of qh[i] belongs to element 32 j + i Q6_K  d sc_j (q - 32) sixteen
//   sub-blocks of 16 with signed 8-bit sc
// decode_blocks() is the scalar reference of these formulas; what kernels multiply with must equal it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "lathe/tensor/dtype.h"

namespace lathe {

inline constexpr int64_t kBlock = 32;        // elements that share a scale, in every format but Q6_K (16)
inline constexpr int64_t kSuperBlock = 256;  // elements of a K format's block

// Integers and scales of 32 consecutive elements of a row, whatever the format: what packing and tests work on. The
// element i has the value  scale[i / 16] * (q[i] - offset) + minimum  with
//   scale   d, d * sc (rounded to fp32)        minimum   m, or -(dmin * m) (rounded to fp32), 0 without one
struct BlockValues {
  std::array<uint8_t, kBlock> q{};
  int offset = 0;
  uint16_t d = 0;                       // fp16 bits, of the block or of its super-block
  uint16_t m = 0;                       // fp16 bits: m, or dmin
  std::array<int8_t, 2> scale_q{1, 1};  // sc of the two halves: equal but in Q6_K; 1 where there is none
  uint8_t minimum_q = 0;                // m_j of the K formats; 1 in Q4_1 and Q5_1
};

// Block `index` (of 32 elements) of a row in a block format.
BlockValues read_block(DType format, const std::byte* row, int64_t index);

// n elements (whole blocks) of a row in a block format to fp32:
//   d q', d q + m, (d sc) q' or (d sc) q - (dmin m), every product and sum rounded to fp32 in this order.
void decode_blocks(DType format, const std::byte* row, float* out, int64_t n);

}  // namespace lathe
