#include "lathe/tensor/panels.h"

#include <array>
#include <cstring>

#include "lathe/base/check.h"

namespace lathe {

namespace {

constexpr size_t kGroups = 8;  // of four columns in a block

PanelLayout layout_of(DType format) {
  const PanelLayout layout = panel_layout(format);
  LATHE_CHECK(layout.blocks > 0, dtype_name(format), " has no panels");
  return layout;
}

// Byte of element (row, column k) in its group of 64.
int64_t group_byte(int64_t row, int64_t k) {
  return row * 4 + k % 4;
}

void put_u16(std::byte* p, uint16_t value) {
  std::memcpy(p, &value, 2);
}

uint16_t get_u16(const std::byte* p) {
  uint16_t value = 0;
  std::memcpy(&value, p, 2);
  return value;
}

uint32_t get_u32(const void* p) {
  uint32_t value = 0;
  std::memcpy(&value, p, 4);
  return value;
}

void put_u32(std::byte* p, uint32_t value) {
  std::memcpy(p, &value, 4);
}

// The low bits of four bytes as one nibble.
uint32_t gather_bits(uint32_t bytes) {
  return (bytes & 0x01010101U) * 0x10204080U >> 28;
}

// Adds the integers of one row's block to the zeroed integers of a panel's block, four columns of a row at a time.
void put_integers(const PanelLayout& layout, const BlockValues& block, int64_t row, std::byte* out) {
  constexpr uint32_t kNibbles = 0x0f0f0f0fU;
  std::array<uint32_t, kGroups> group{};
  std::memcpy(group.data(), block.q.data(), sizeof group);
  std::byte* words = out + row * 4;
  if (layout.bits == 8) {
    for (size_t g = 0; g < kGroups; ++g) put_u32(words + g * 64, group[g]);
    return;
  }
  for (size_t g = 0; g < 4; ++g) {
    put_u32(words + g * 64, (group[g] & kNibbles) | (group[g + 4] & kNibbles) << 4);
  }
  if (layout.bits == 5) {
    for (size_t g = 0; g < kGroups; ++g) {
      std::byte& two_rows = out[256 + g * 8 + static_cast<size_t>(row / 2)];
      two_rows |= static_cast<std::byte>(gather_bits(group[g] >> 4) << (row % 2 * 4));
    }
  } else if (layout.bits == 6) {
    for (size_t g = 0; g < kGroups; ++g) {
      std::byte* pairs = words + 256 + g / 4 * 64;
      put_u32(pairs, get_u32(pairs) | (group[g] >> 4 & 0x03030303U) << (g % 4 * 2));
    }
  }
}

uint8_t get_integer(const PanelLayout& layout, const std::byte* in, int64_t row, int64_t k) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(in);
  const int64_t g = k / 4;
  const int64_t p = group_byte(row, k);
  if (layout.bits == 8) return bytes[g * 64 + p];
  int q = bytes[g % 4 * 64 + p] >> (g / 4 * 4) & 15;
  if (layout.bits == 5) q |= (bytes[256 + g * 8 + p / 8] >> (p % 8) & 1) << 4;
  if (layout.bits == 6) q |= (bytes[256 + g / 4 * 64 + p] >> (g % 4 * 2) & 3) << 4;
  return static_cast<uint8_t>(q);
}

// Scales of block `b` of a chunk for one row.
void put_scales(
    DType format, const PanelLayout& layout, const BlockValues& block, int64_t row, int64_t b, std::byte* out) {
  if (layout.blocks == 2) {
    put_u16(out + b * 32 + row * 2, block.d);
    if (layout.scale_bytes == 128) put_u16(out + 64 + b * 32 + row * 2, block.m);
    return;
  }
  put_u16(out + row * 2, block.d);
  if (format == DType::kQ6_K) {
    out[64 + 2 * b * 16 + row] = static_cast<std::byte>(block.scale_q[0]);
    out[64 + (2 * b + 1) * 16 + row] = static_cast<std::byte>(block.scale_q[1]);
    return;
  }
  put_u16(out + 32 + row * 2, block.m);
  out[64 + b * 16 + row] = static_cast<std::byte>(block.scale_q[0]);
  out[192 + b * 16 + row] = static_cast<std::byte>(block.minimum_q);
}

void get_scales(
    DType format, const PanelLayout& layout, BlockValues& block, int64_t row, int64_t b, const std::byte* in) {
  if (layout.blocks == 2) {
    block.d = get_u16(in + b * 32 + row * 2);
    if (layout.scale_bytes == 128) {
      block.m = get_u16(in + 64 + b * 32 + row * 2);
      block.minimum_q = 1;
    }
    return;
  }
  block.d = get_u16(in + row * 2);
  if (format == DType::kQ6_K) {
    block.scale_q = {static_cast<int8_t>(in[64 + 2 * b * 16 + row]),
                     static_cast<int8_t>(in[64 + (2 * b + 1) * 16 + row])};
    return;
  }
  block.m = get_u16(in + 32 + row * 2);
  const auto scale = static_cast<int8_t>(in[64 + b * 16 + row]);
  block.scale_q = {scale, scale};
  block.minimum_q = static_cast<uint8_t>(in[192 + b * 16 + row]);
}

}  // namespace

void pack_panel(const WeightMatrix& rows, int64_t panel, std::byte* out) {
  const PanelLayout layout = layout_of(rows.dtype);
  std::memset(out, 0, static_cast<size_t>(panel_bytes(rows.dtype, rows.cols)));
  // What is absent stays zero; so does its scale.
  const int64_t first = panel * kPanelRows;
  for (int64_t r = 0; r < kPanelRows && first + r < rows.rows; ++r) {
    const std::byte* row = rows.data + (first + r) * rows.row_stride();
    for (int64_t b = 0; b < rows.cols / kBlock; ++b) {
      const BlockValues block = read_block(rows.dtype, row, b);
      std::byte* chunk = out + b / layout.blocks * layout.chunk_bytes();
      const int64_t in_chunk = b % layout.blocks;
      put_scales(rows.dtype, layout, block, r, in_chunk, chunk);
      put_integers(layout, block, r, chunk + layout.scale_bytes + in_chunk * layout.block_bytes);
    }
  }
}

BlockValues read_packed_block(const WeightMatrix& panels, int64_t row, int64_t index) {
  const PanelLayout layout = layout_of(panels.dtype);
  const std::byte* chunk = panels.data + row / kPanelRows * panel_bytes(panels.dtype, panels.cols) +
                           index / layout.blocks * layout.chunk_bytes();
  const int64_t in_chunk = index % layout.blocks;
  BlockValues block;
  block.offset = layout.offset;
  get_scales(panels.dtype, layout, block, row % kPanelRows, in_chunk, chunk);
  for (int64_t k = 0; k < kBlock; ++k) {
    block.q[static_cast<size_t>(k)] =
        get_integer(layout, chunk + layout.scale_bytes + in_chunk * layout.block_bytes, row % kPanelRows, k);
  }
  return block;
}

}  // namespace lathe
