#include "lathe/tensor/blocks.h"

#include <algorithm>
#include <cstring>

#include "lathe/base/check.h"
#include "lathe/base/scalar.h"

namespace lathe {

namespace {

uint16_t read_u16(const std::byte* p) {
  uint16_t bits = 0;
  std::memcpy(&bits, p, 2);
  return bits;
}

uint32_t read_u32(const std::byte* p) {
  uint32_t bits = 0;
  std::memcpy(&bits, p, 4);
  return bits;
}

uint8_t at(const std::byte* p, int64_t i) {
  return static_cast<uint8_t>(p[i]);
}

// 32 nibbles from 16 bytes: elements 0..15 are the low ones, 16..31 the high ones.
void read_nibbles(const std::byte* p, BlockValues& out) {
  for (size_t i = 0; i < 16; ++i) {
    out.q[i] = at(p, static_cast<int64_t>(i)) & 15;
    out.q[i + 16] = at(p, static_cast<int64_t>(i)) >> 4;
  }
}

void add_fifth_bits(uint32_t bits, BlockValues& out) {
  for (size_t i = 0; i < 32; ++i) out.q[i] = static_cast<uint8_t>(out.q[i] | (((bits >> i) & 1) << 4));
}

// Q4_0, Q4_1, Q5_0, Q5_1: d [, m] [, qh], nibbles.
BlockValues read_small_block(DType format, const std::byte* block) {
  const bool has_minimum = format == DType::kQ4_1 || format == DType::kQ5_1;
  const bool has_fifth = format == DType::kQ5_0 || format == DType::kQ5_1;
  BlockValues out;
  out.d = read_u16(block);
  const std::byte* p = block + 2;
  if (has_minimum) {
    out.m = read_u16(p);
    out.minimum_q = 1;
    p += 2;
  } else {
    out.offset = has_fifth ? 16 : 8;
  }
  const std::byte* fifth = p;
  if (has_fifth) p += 4;
  read_nibbles(p, out);
  if (has_fifth) add_fifth_bits(read_u32(fifth), out);
  return out;
}

BlockValues read_q8_0(const std::byte* block) {
  BlockValues out;
  out.d = read_u16(block);
  out.offset = 128;
  for (size_t i = 0; i < 32; ++i) out.q[i] = static_cast<uint8_t>(at(block + 2, static_cast<int64_t>(i)) ^ 0x80);
  return out;
}

// Q4_K and Q5_K: d, dmin, twelve bytes of 6-bit scales and minima, [qh 32], nibbles 128. Of the twelve bytes,
// sub-blocks 0..3 have the low six bits of bytes j (scale) and j + 4 (minimum); sub-blocks 4..7 the nibbles of byte j +
// 4 and, as their upper bits, the top two bits of bytes j - 4 and j.
BlockValues read_q45_k(DType format, const std::byte* block, int64_t j) {
  BlockValues out;
  out.d = read_u16(block);
  out.m = read_u16(block + 2);
  const std::byte* s = block + 4;
  int scale = 0;
  if (j < 4) {
    scale = at(s, j) & 63;
    out.minimum_q = at(s, j + 4) & 63;
  } else {
    scale = (at(s, j + 4) & 15) | ((at(s, j - 4) >> 6) << 4);
    out.minimum_q = static_cast<uint8_t>((at(s, j + 4) >> 4) | ((at(s, j) >> 6) << 4));
  }
  out.scale_q = {static_cast<int8_t>(scale), static_cast<int8_t>(scale)};
  const std::byte* fifth = block + 16;
  const std::byte* nibbles = format == DType::kQ5_K ? block + 48 : block + 16;
  nibbles += j / 2 * 32;
  for (int64_t i = 0; i < 32; ++i) {
    int q = j % 2 == 0 ? at(nibbles, i) & 15 : at(nibbles, i) >> 4;
    if (format == DType::kQ5_K) q |= ((at(fifth, i) >> j) & 1) << 4;
    out.q[static_cast<size_t>(i)] = static_cast<uint8_t>(q);
  }
  return out;
}

// Q6_K: ql 128 (low four bits), qh 64 (upper two), 16 signed scales, d. Each half of 128 elements has 64 bytes of ql
// and 32 of qh; quarter k of the half (32 elements) takes the nibble k / 2 of ql bytes 32 (k % 2) .. and bits 2 k of
// qh.
BlockValues read_q6_k(const std::byte* block, int64_t j) {
  BlockValues out;
  const int64_t half = j / 4;
  const int64_t quarter = j % 4;
  const std::byte* low = block + half * 64 + quarter % 2 * 32;
  const std::byte* high = block + 128 + half * 32;
  for (int64_t i = 0; i < 32; ++i) {
    const int nibble = quarter < 2 ? at(low, i) & 15 : at(low, i) >> 4;
    out.q[static_cast<size_t>(i)] = static_cast<uint8_t>(nibble | (((at(high, i) >> (2 * quarter)) & 3) << 4));
  }
  out.offset = 32;
  out.scale_q = {static_cast<int8_t>(at(block + 192, 2 * j)), static_cast<int8_t>(at(block + 192, 2 * j + 1))};
  out.d = read_u16(block + 208);
  return out;
}

}  // namespace

BlockValues read_block(DType format, const std::byte* row, int64_t index) {
  const int64_t per_block = block_elements(format) / kBlock;
  const std::byte* block = row + index / std::max<int64_t>(per_block, 1) * block_bytes(format);
  switch (format) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
      return read_small_block(format, block);
    case DType::kQ8_0:
      return read_q8_0(block);
    case DType::kQ4_K:
    case DType::kQ5_K:
      return read_q45_k(format, block, index % per_block);
    case DType::kQ6_K:
      return read_q6_k(block, index % per_block);
    default:
      LATHE_CHECK(false, dtype_name(format), " has no blocks");
  }
  return {};
}

void decode_blocks(DType format, const std::byte* row, float* out, int64_t n) {
  const bool k_format = block_elements(format) == kSuperBlock;
  for (int64_t b = 0; b < n / kBlock; ++b) {
    const BlockValues block = read_block(format, row, b);
    const float d = f16_to_float(block.d);
    const float m = f16_to_float(block.m);
    const float minimum = block.minimum_q == 0 ? 0.0F : k_format ? -(m * block.minimum_q) : m;
    for (size_t i = 0; i < kBlock; ++i) {
      const auto scale_q = static_cast<float>(block.scale_q[i / 16]);
      const float scale = k_format ? d * scale_q : d;
      const float value = scale * static_cast<float>(block.q[i] - block.offset);
      out[b * kBlock + static_cast<int64_t>(i)] = block.minimum_q == 0 ? value : value + minimum;
    }
  }
}

}  // namespace lathe
