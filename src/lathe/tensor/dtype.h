// Element types of stored tensors, by their safetensors names, and the block formats of GGUF by ggml's names.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace lathe {

enum class DType {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
  // Block formats (tensor/blocks.h): rows of blocks of 32 or 256 elements that share scales.
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

// Bytes of one element. Not for block formats.
int64_t dtype_size(DType dtype);
// "F32", "BF16", "F8_E4M3", ..., "Q8_0", "Q4_K"
std::string_view dtype_name(DType dtype);
// The element type of that name in a safetensors file: never a block format.
std::optional<DType> dtype_from_name(std::string_view name);
bool is_floating(DType dtype);

// Whether elements come in blocks that share scales.
bool is_block_format(DType dtype);
// Elements and bytes of one block; 1 and dtype_size for plain types.
int64_t block_elements(DType dtype);
int64_t block_bytes(DType dtype);
// Bytes of a row of `cols` elements, which must be whole blocks.
int64_t row_bytes(DType dtype, int64_t cols);

}  // namespace lathe
