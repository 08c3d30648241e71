#include "lathe/tensor/panels.h"

#include <array>
#include <cstring>

namespace lathe {

namespace {

constexpr int64_t kGroups = 8;  // of four columns in a block

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

// Adds the integers of one row's block to the zeroed integers of a panel's block.
void put_integers(const PanelLayout& layout, const BlockValues& block, int64_t row, std::byte* out) {
  auto* bytes = reinterpret_cast<uint8_t*>(out);
  for (int64_t k = 0; k < kBlock; ++k) {
    const uint8_t q = block.q[static_cast<size_t>(k)];
    const int64_t g = k / 4;
    const int64_t p = group_byte(row, k);
    if (layout.bits == 8) {
      bytes[g * 64 + p] = q;
      continue;
    }
    bytes[g % 4 * 64 + p] = static_cast<uint8_t>(bytes[g % 4 * 64 + p] | (q & 15) << (g / 4 * 4));
    if (layout.bits == 5) {
      uint8_t& word = bytes[256 + g * 8 + p / 8];
      word = static_cast<uint8_t>(word | (q >> 4) << (p % 8));
    } else if (layout.bits == 6) {
      uint8_t& pair = bytes[256 + g / 4 * 64 + p];
      pair = static_cast<uint8_t>(pair | (q >> 4) << (g % 4 * 2));
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
  const PanelLayout layout = panel_layout(rows.dtype);
  std::memset(out, 0, static_cast<size_t>(panel_bytes(rows.dtype, rows.cols)));
  // 8-bit integers are stored with offset 128, so what is absent is 128 and not 0; its scale is 0 either way.
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
  const PanelLayout layout = panel_layout(panels.dtype);
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
