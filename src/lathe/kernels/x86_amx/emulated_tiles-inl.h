// The tile registers of tiles-inl.h in plain code, for tests on processors without them. Uses that a processor would
// refuse with a fault end the program here as well.
#pragma once

#include "lathe/kernels/x86_amx/tile_shapes-inl.h"

namespace lathe {
namespace {

class EmulatedTiles {
 public:
  void configure(const TileShapes& shapes) {
    require(shapes.palette == 1 && shapes.start_row == 0);
    for (int i = 0; i < 14; ++i) require(shapes.reserved[i] == 0);
    for (int i = 0; i < 16; ++i) {
      require(shapes.rows[i] <= 16 && shapes.row_bytes[i] <= 64);
      require((shapes.rows[i] == 0) == (shapes.row_bytes[i] == 0));
      require(i < 8 || shapes.rows[i] == 0);
    }
    shapes_ = shapes;
    for (auto& tile : data_) fill(tile);
    configured_ = true;
  }

  void release() {
    require(configured_);
    configured_ = false;
  }

  template <int kTile>
  void zero() {
    require_usable(kTile);
    fill(data_[kTile]);
  }

  template <int kTile>
  void load(const std::byte* rows, int64_t stride) {
    require_usable(kTile);
    fill(data_[kTile]);
    for (int r = 0; r < shapes_.rows[kTile]; ++r) {
      __builtin_memcpy(data_[kTile] + r * 64, rows + r * stride, shapes_.row_bytes[kTile]);
    }
  }

  template <int kSum, int kA, int kB>
  void dot() {
    static_assert(kSum != kA && kSum != kB && kA != kB);
    for (const int tile : {kSum, kA, kB}) require_usable(tile);
    require(shapes_.rows[kA] == shapes_.rows[kSum] && shapes_.row_bytes[kB] == shapes_.row_bytes[kSum]);
    require(shapes_.row_bytes[kA] == 4 * shapes_.rows[kB] && shapes_.row_bytes[kSum] % 4 == 0);
    for (int m = 0; m < shapes_.rows[kSum]; ++m) {
      for (int n = 0; n < shapes_.row_bytes[kSum] / 4; ++n) {
        std::byte* at = data_[kSum] + m * 64 + n * 4;
        int32_t sum = 0;
        __builtin_memcpy(&sum, at, 4);
        for (int k = 0; k < shapes_.row_bytes[kA]; ++k) {
          const auto a = static_cast<int8_t>(data_[kA][m * 64 + k]);
          const auto b = static_cast<int8_t>(data_[kB][k / 4 * 64 + n * 4 + k % 4]);
          sum += a * b;
        }
        __builtin_memcpy(at, &sum, 4);
      }
    }
  }

  template <int kTile>
  void store(std::byte* rows, int64_t stride) {
    require_usable(kTile);
    for (int r = 0; r < shapes_.rows[kTile]; ++r) {
      __builtin_memcpy(rows + r * stride, data_[kTile] + r * 64, shapes_.row_bytes[kTile]);
    }
  }

 private:
  static void require(bool condition) {
    if (!condition) __builtin_trap();
  }

  void require_usable(int tile) const { require(configured_ && shapes_.rows[tile] != 0); }

  static void fill(std::byte (&tile)[1024]) { __builtin_memset(tile, 0, sizeof(tile)); }

  TileShapes shapes_ = {};
  bool configured_ = false;
  std::byte data_[8][1024] = {};
};

}  // namespace
}  // namespace lathe
