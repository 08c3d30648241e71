// Attention over one tile of cached positions with (query, head) pairs in the lanes of a vector: what the functions of
// KernelTable under "attention" take. A lane group is 16 pairs, a tile 64 positions (keys), a strip 64 columns of a
// tile in fp32, [64 keys][64 columns], zeros where the tile ends early. Everything is lane-wise, so a pair's result
// depends neither on the other lanes nor on which lane it has.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lathe/kernels/cache_rows.h"

namespace lathe {

inline constexpr int64_t kLaneGroup = 16;     // (query, head) pairs of a lane group
inline constexpr int64_t kTileKeys = 64;      // positions of a tile
inline constexpr int64_t kStripColumns = 64;  // columns of a strip
inline constexpr int64_t kStripFloats = kTileKeys * kStripColumns;
inline constexpr int64_t kLaneScores = kTileKeys * kLaneGroup;  // floats of the scores of one lane group and tile

// Columns of the output of a lane group, rounded up to what lane_values writes.
constexpr int64_t lane_columns(int64_t cols) {
  return (cols + 15) / 16 * 16;
}

// Columns [first, first + cols) of `rows` rows of `elements` elements (cache_rows.h), `stride` bytes apart; at most 64
// by 64.
struct StripSource {
  CacheFormat format = CacheFormat::kF32;
  const std::byte* data = nullptr;  // of the first row
  int64_t elements = 0;
  int64_t stride = 0;
  int64_t first = 0;
  int64_t rows = 0;
  int64_t cols = 0;
};

// Memory that will be read soon. Who gets one asks for it little by little while it works: many requests at once would
// keep its own reads waiting. Changes no result.
struct SoonRead {
  const std::byte* data = nullptr;
  int64_t bytes = 0;
};

// scores[g][key][lane] (+)= sum over c of strip[key][c] * q[g][c][lane], one chain of fused multiply-adds in ascending
// c, for the keys below `keys` rounded up to 16. Without `accumulate` the chain starts from 0.
struct LaneScoresArgs {
  const float* strip = nullptr;  // [64, 64]
  int64_t keys = 0;              // 1..64
  int64_t cols = 0;              // 1..64
  const float* q = nullptr;      // [groups][cols][16], groups q_stride floats apart
  int64_t q_stride = 0;
  float* scores = nullptr;  // [groups][64][16]
  int64_t groups = 0;
  bool accumulate = false;
  int64_t lanes = kLaneGroup;  // of every group the first so many count; what the others then hold is undefined
  SoonRead ahead = {};
};

// Queries of a lane group as products with q8 rows take them: signed bytes, 32 columns (a block) to a scale per lane.
// Blocks follow one another, each
//   codes[8][16 lanes][4 columns] int8 | scale[16] fp32 | offset[16] int32
// with q ~ scale * code, |code| <= 127, and offset = -128 * (sum of the block's codes).
inline constexpr float kLeastLaneMagnitude = 1e-30F;  // a smaller block becomes zero
inline constexpr int64_t kLaneBlockBytes = kCacheGroup * kLaneGroup + 8 * kLaneGroup;

// Quantises q[cols][16], columns past `cols` in the last block being zero: scale = largest |q| / 127, code = q * (127 /
// largest |q|) rounded to nearest even; both 0 where the largest |q| is below 1e-30. A lane and block with a value that
// is not finite gets the scale NaN.
struct LaneQuantiseArgs {
  const float* q = nullptr;  // [cols][16]
  int64_t cols = 0;
  std::byte* out = nullptr;  // kLaneBlockBytes per block, aligned to a cache line
};

// scores[g][key][lane] of q8 rows with quantised queries, blocks in ascending order from 0:
//   i = sum over the block of (code of the row) * (code of the query)  (exact)
//   score = fma(float(i), d * scale, score), the product rounded to fp32
// for the keys below `keys` rounded up to 16; the scores past `keys` are 0. The reference table agrees bit for bit.
struct LaneScoresQ8Args {
  const std::byte* rows = nullptr;  // of the first key, in the format q8
  int64_t elements = 0;             // of a row
  int64_t first = 0;                // element of the first column, a multiple of 32
  int64_t keys = 0;                 // 1..64
  int64_t blocks = 0;
  const std::byte* q = nullptr;  // [groups], groups q_stride bytes apart
  int64_t q_stride = 0;
  float* scores = nullptr;  // [groups][64][16]
  int64_t groups = 0;
  int64_t lanes = kLaneGroup;  // as in LaneScoresArgs
  SoonRead ahead = {};
};

// One step of online softmax in every lane of one group, as KernelTable::softmax_step defines it for a row: keys at or
// past visible[lane] count as -infinity, also where a lane sees none. The sum is taken in four chains, key mod 4 in
// ascending keys, added as ((0 + 1) + (2 + 3)).
struct LaneSoftmaxArgs {
  float* scores = nullptr;           // [64][16]: in raw products, out weights; keys rounded up to 16 are written
  int64_t keys = 0;                  // 1..64
  const int32_t* visible = nullptr;  // [16], each in 0..64
  float scale = 1.0F;
  float* maximum = nullptr;  // [16], -infinity before the first step
  float* sum = nullptr;      // [16], 0 before the first step
  float* factor = nullptr;   // [16], out: by which what was accumulated before is to be multiplied
};

// out[g][c][lane] = out * factor[g][lane] + sum over keys of strip[key][c] * weights[g][key][lane], one chain of fused
// multiply-adds in ascending keys starting from the rounded product, for the columns below `cols` rounded up to 16.
struct LaneValuesArgs {
  const float* strip = nullptr;    // [64, 64]
  int64_t keys = 0;                // 1..64; weights up to the next multiple of 16 are read
  int64_t cols = 0;                // 1..64
  const float* weights = nullptr;  // [groups][64][16]
  const float* factor = nullptr;   // [groups][16]
  float* out = nullptr;            // [groups][lane_columns(cols)][16], groups out_stride floats apart
  int64_t out_stride = 0;
  int64_t groups = 0;
  int64_t lanes = kLaneGroup;  // as in LaneScoresArgs
  SoonRead ahead = {};
};

// The same with q8 rows, in integers: m the largest weight of a lane in the tile, d the scale of a key and block, D the
// largest of a block among the keys that the lane sees,
//   w = (weight * (1 / m)) * (d * (32767 / D)), rounded to nearest even  (16 bits)
//   out = fma(float(sum over keys of w * code), m * (D / 32767), out * factor)
// every operation rounded to fp32 and the sum exact. Where m is below 1e-30, or D 0, out is out * factor. A weight that
// is not finite makes its lane NaN, a scale the block of lanes that see it. The reference table agrees bit for bit.
struct LaneValuesQ8Args {
  const std::byte* rows = nullptr;   // of the first key, in the format q8
  int64_t elements = 0;              // of a row
  int64_t first = 0;                 // element of the first column, a multiple of 32
  int64_t keys = 0;                  // 1..64; weights up to the next multiple of 16 are read
  int64_t blocks = 0;                // of 32 columns
  float* weights = nullptr;          // [groups][64][16], not negative; what is left of them is undefined
  const int32_t* visible = nullptr;  // [groups][16], each in 0..keys; weights from there on are 0
  const float* factor = nullptr;     // [groups][16]
  float* out = nullptr;              // [groups][32 blocks][16], groups out_stride floats apart
  int64_t out_stride = 0;
  int64_t groups = 0;
  int64_t lanes = kLaneGroup;  // as in LaneScoresArgs
  SoonRead ahead = {};
};

inline constexpr float kLeastLaneWeight = 1e-30F;
inline constexpr float kMostLaneWeight = 32767.0F;  // in integers

}  // namespace lathe
