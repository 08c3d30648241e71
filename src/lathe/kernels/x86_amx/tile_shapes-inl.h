// The shapes of the eight tile registers. See vec16-inl.h for what may be included here.
#pragma once

#include "lathe/kernels/vec16-inl.h"

namespace lathe {
namespace {

// What ldtilecfg reads.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  // of tiles 0..7; the rest stays 0
  uint8_t rows[16] = {};
};

static_assert(sizeof(TileShapes) == 64);

}  // namespace
}  // namespace lathe
