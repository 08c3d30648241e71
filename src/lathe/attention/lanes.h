// Attention with (query, head) pairs in the lanes of vectors: lane groups of 16 pairs walk tiles of 64 positions by
// online softmax. Shared by flash attention over the cache and the expanded form of MLA; internal to attention/.
// Shape letters: G lane groups, K key columns, V value columns, L the 16 lanes, S the 64 positions of a tile.
#pragma once

#include <cstdint>

#include "lathe/kernels/kernel_table.h"

namespace lathe {

inline constexpr int64_t kLaneBatch = 8;  // lane groups that share a strip of a tile while it is in the nearest cache

// Pairs that share keys and values, borrowed buffers. A lane without a pair has position -1 and sees nothing.
struct LaneBlock {
  int64_t key_cols = 0;
  int64_t value_cols = 0;
  int64_t groups = 0;
  float* q_GKL = nullptr;
  float* out_GVL = nullptr;  // lane_columns(V) columns; not divided by the sum
  float* maximum_GL = nullptr;
  float* sum_GL = nullptr;
  int64_t* position_GL = nullptr;  // of the query: it sees the keys at 0..position
  std::byte* q8_GK = nullptr;      // the queries once more, quantised for tiles in q8; null: tiles are read as fp32
};

// Floats of the buffers of a block of `groups` lane groups.
int64_t lane_block_floats(int64_t key_cols, int64_t value_cols, int64_t groups);

// Bytes of the quantised queries of one lane group.
int64_t lane_q8_bytes(int64_t key_cols);

// A block in `memory`, which holds lane_block_floats() floats and is aligned for int64_t. Nothing accumulated yet, no
// lane has a pair, queries are not set.
LaneBlock make_lane_block(float* memory, int64_t key_cols, int64_t value_cols, int64_t groups);

// Keys and values of up to 64 consecutive positions: column ranges of rows that lie one after the other.
struct LaneTile {
  CacheFormat format = CacheFormat::kF32;
  const std::byte* data = nullptr;  // of the first row
  int64_t elements = 0;             // of a row
  int64_t key_first = 0;
  int64_t value_first = 0;
  int64_t start = 0;  // position of the first row
  int64_t keys = 0;   // 1..64
  // What will be read next, brought nearer meanwhile.
  SoonRead ahead = {};
};

// Floats of the scratch of attend_tile.
int64_t lane_scratch_floats();

// Quantises the queries of all groups into `memory`, groups * lane_q8_bytes() bytes aligned to a cache line. From then
// on attend_tile takes products with tiles in q8 in integers: key_first of these tiles must be a multiple of 32, and
// what follows the keys in the last block of 32 columns must be zero. Values that are not whole blocks are read as
// fp32.
void quantise_queries(const KernelTable& kernels, LaneBlock& block, std::byte* memory);

// Lane groups [first, last) of the block take the tile into what they have accumulated.
void attend_tile(const KernelTable& kernels,
                 const LaneBlock& block,
                 int64_t first,
                 int64_t last,
                 const LaneTile& tile,
                 float scale,
                 float* scratch);

}  // namespace lathe
