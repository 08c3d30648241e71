// One block of each format (tensor/blocks.h). Inputs are finite; outputs have block_bytes() bytes at any alignment.
#pragma once

#include <cstddef>

#include "lathe/tensor/dtype.h"

namespace lathe::quant {

// 32 values: the largest becomes 127.
void encode_q8_0(const float* x, std::byte* out);
// 32 values to Q4_0, Q4_1, Q5_0 or Q5_1.
void encode_small(DType format, const float* x, std::byte* out);
// 256 values to Q4_K or Q5_K.
void encode_q45_k(DType format, const float* x, std::byte* out);
// 256 values.
void encode_q6_k(const float* x, std::byte* out);

}  // namespace lathe::quant
