// The functions of training.h on F32x16, for the ISA units (see vec16-inl.h).
//
// A product keeps a tile of kSgemmRows x 16 kSgemmVectors sums in registers. B is packed sixteen columns at a time, so
// that a tile reads it in order; the columns of one tile stay in the first cache while all tiles of a block of rows,
// which stays in the second, go past them. Rows of A are read where they lie when their values are contiguous, else a
// block of them is packed as well. Meanwhile the places of a tile's results and what the next block reads are asked
// for: without that a core waits for memory for a tenth of its time, or a fifth where sums are short.
#pragma once

#include "lathe/kernels/attention-inl.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/kernels/ops-inl.h"
#include "lathe/kernels/training.h"

namespace lathe {
namespace {

#if defined(__AVX512F__)
constexpr int kSgemmRows = 14;
constexpr int kSgemmVectors = 2;
#else
constexpr int kSgemmRows = 6;
constexpr int kSgemmVectors = 1;
#endif
constexpr int64_t kBlockTiles = kSgemmBlockRows / kSgemmRows;
// Floats of a packed tile of A; the last of its rows is written with a whole vector.
constexpr int64_t kPackedTile = kSgemmRows * kSgemmDepth + 16;
static_assert(kBlockTiles * kPackedTile <= kSgemmPackedRowFloats);
// Columns of A that lie side by side are read where they are when the sums are this short: packing would cost more.
constexpr int64_t kUnpackedDepth = 64;
// Rows of A this many floats apart, or a multiple of it, share so few sets of the first cache that a tile's rows drive
// each other out. They are copied to rows of kCopiedRow floats where enough columns read them.
constexpr int64_t kCrowdedStride = 512;
constexpr int64_t kCopiedRow = kSgemmDepth + kLanes;
constexpr int64_t kUncopiedColumns = 64;
static_assert(kBlockTiles * kSgemmRows * kCopiedRow <= kSgemmPackedRowFloats);

// Rows of a matrix that a product reads next, asked for a few lines at a time between steps of the work at hand.
class RowsAhead {
 public:
  // `rows` rows of `floats` floats, `stride` floats apart; at most two such parts, one after the other.
  LATHE_INLINE void add(const float* first, int64_t rows, int64_t stride, int64_t floats) {
    if (rows <= 0) return;
    const int64_t lines = (floats * kFloatBytes + kLine - 1) / kLine;
    parts_[count_++] = {reinterpret_cast<uintptr_t>(first), rows, stride * kFloatBytes, lines};
    lines_ += rows * lines;
  }

  // next() will be called `steps` times.
  LATHE_INLINE void divide(int64_t steps) { share_ = steps > 0 ? (lines_ + steps - 1) / steps : 0; }

  LATHE_INLINE void next() {
    for (int64_t left = share_; left > 0 && at_ < count_; --left) {
      const Part& part = parts_[at_];
      prefetch_farther(part.first + static_cast<uintptr_t>(row_ * part.stride + line_ * kLine));
      if (++line_ < part.lines) continue;
      line_ = 0;
      if (++row_ < part.rows) continue;
      row_ = 0;
      ++at_;
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  static constexpr int64_t kFloatBytes = 4;

  struct Part {
    uintptr_t first;
    int64_t rows;
    int64_t stride;  // bytes
    int64_t lines;   // of a row
  };

  Part parts_[2];
  int64_t count_ = 0;
  int64_t lines_ = 0;
  int64_t share_ = 0;
  int64_t at_ = 0;
  int64_t row_ = 0;
  int64_t line_ = 0;
};

constexpr uintptr_t kColumnBytesAhead = 12 * kLanes * sizeof(float);
constexpr int64_t kStepDepth = 16;  // of a tile's sums between two calls of RowsAhead::next

// A tile's operands: value (i, p) of A at a[i * a_row + p * a_col], B's sixteen columns v at b + v * b_vector.
struct SgemmTile {
  const float* a;
  int64_t a_row;
  int64_t a_col;
  const float* b;
  int64_t b_vector;
  int64_t k;
  float* c;
  int64_t c_row;
  int64_t columns;  // valid ones
  bool add;
  RowsAhead* ahead;
};

template <int kRows, int kVectors>
void sgemm_tile(const SgemmTile& t) {
  F32x16 sum[kRows][kVectors];
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) {
    LATHE_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[i][v] = zero();
  }
  const auto c = reinterpret_cast<uintptr_t>(t.c);
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) {
    LATHE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      prefetch_to_write(c + static_cast<uintptr_t>((i * t.c_row + v * kLanes) * static_cast<int64_t>(sizeof(float))));
    }
  }
  const float* a = t.a;
  const float* b = t.b;
  for (int64_t step = 0; step < t.k; step += kStepDepth) {
    t.ahead->next();
    const int64_t depth = t.k - step < kStepDepth ? t.k - step : kStepDepth;
    for (int64_t p = 0; p < depth; ++p, a += t.a_col, b += kLanes) {
      F32x16 column[kVectors];
      LATHE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const float* from = b + v * t.b_vector;
        column[v] = load(from);
        // One vector of columns fits into the first cache beside the rest, two do not.
        if constexpr (kVectors > 1) prefetch(reinterpret_cast<uintptr_t>(from) + kColumnBytesAhead);
      }
      LATHE_UNROLL
      for (int i = 0; i < kRows; ++i) {
        PartRegister value = part_set(a[i * t.a_row]);
        if constexpr (kVectors * kParts > 1) keep(value);
        LATHE_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          LATHE_UNROLL
          for (int part = 0; part < kParts; ++part) {
            sum[i][v].part[part] = part_fma(value, column[v].part[part], sum[i][v].part[part]);
          }
        }
      }
    }
  }
  LATHE_UNROLL
  for (int i = 0; i < kRows; ++i) {
    LATHE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      float* to = t.c + i * t.c_row + v * kLanes;
      const int64_t count = t.columns - v * kLanes < kLanes ? t.columns - v * kLanes : kLanes;
      store_some(to, t.add ? add(load_some(to, count), sum[i][v]) : sum[i][v], count);
    }
  }
}

template <int kRows>
LATHE_INLINE void sgemm_columns(const SgemmTile& t) {
  if (kSgemmVectors > 1 && t.columns <= kLanes) {
    sgemm_tile<kRows, 1>(t);
  } else {
    sgemm_tile<kRows, kSgemmVectors>(t);
  }
}

// `rows` rows (at most kSgemmRows) times the columns of one tile.
LATHE_INLINE void sgemm_rows(SgemmTile t, int64_t rows) {
  if (rows == kSgemmRows) return sgemm_columns<kSgemmRows>(t);
  while (rows > 0) {
    const int64_t some = rows >= 8 && kSgemmRows > 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
    if (some == 8) {
      if constexpr (kSgemmRows > 8) sgemm_columns<8>(t);
    } else if (some == 4) {
      sgemm_columns<4>(t);
    } else if (some == 2) {
      sgemm_columns<2>(t);
    } else {
      sgemm_columns<1>(t);
    }
    t.a += some * t.a_row;
    t.c += some * t.c_row;
    rows -= some;
  }
}

// Rows [0, count) of A's columns [0, k), whose rows are contiguous, in tiles of [k][kSgemmRows], kPackedTile apart.
LATHE_INLINE void pack_a(const float* a, int64_t a_col, int64_t count, int64_t k, float* out) {
  constexpr int kWholeParts = (kSgemmRows + kPartLanes - 1) / kPartLanes;
  for (int64_t p = 0; p < k; ++p, a += a_col, out += kSgemmRows) {
    float* to = out;
    int64_t i = 0;
    for (; i + kWholeParts * kPartLanes <= count; i += kSgemmRows, to += kPackedTile) {
      LATHE_UNROLL
      for (int part = 0; part < kWholeParts; ++part) {
        part_store(to + part * kPartLanes, part_load(a + i + part * kPartLanes));
      }
    }
    for (; i < count; i += kSgemmRows, to += kPackedTile) {
      store(to, load_first(a + i, count - i < kLanes ? count - i : kLanes));
    }
  }
}

// Rows [0, k) and columns [0, n) of B as [n / 16][k][16].
LATHE_INLINE void pack_b(const float* b, int64_t b_row, int64_t b_col, int64_t k, int64_t n, float* out) {
  for (int64_t j = 0; j < n; j += kLanes, out += k * kLanes) {
    const int64_t count = n - j < kLanes ? n - j : kLanes;
    if (b_col == 1) {
      for (int64_t p = 0; p < k; ++p) store(out + p * kLanes, load_some(b + p * b_row + j, count));
      continue;
    }
    const float* rows[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) rows[i] = i < count ? b + (j + i) * b_col : nullptr;
    rows_to_lanes(rows, k, out);
  }
}

// Rows of A, whose values are contiguous, to rows of kCopiedRow floats.
LATHE_INLINE void copy_a(const float* a, int64_t a_row, int64_t count, int64_t k, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t p = 0; p < k; p += kLanes) {
      store(out + i * kCopiedRow + p, load_some(a + i * a_row + p, k - p < kLanes ? k - p : kLanes));
    }
  }
}

constexpr int64_t tiles_of(int64_t length, int64_t tile) {
  return (length + tile - 1) / tile;
}

// Steps of kStepDepth that the tiles of m rows, n columns and depth k take.
LATHE_INLINE int64_t steps_of(int64_t m, int64_t n, int64_t k) {
  return tiles_of(m, kSgemmRows) * tiles_of(n, kSgemmVectors * kLanes) * tiles_of(k, kStepDepth);
}

// All rows of C times n columns of packed B: `t` has columns and depth cut out already.
LATHE_INLINE void sgemm_block(const SgemmArgs& args, SgemmTile t, int64_t n) {
  const bool contiguous = args.a_col == 1;
  const bool packed = !contiguous && t.k > kUnpackedDepth;
  const bool copied = contiguous && args.a_row % kCrowdedStride == 0 && n > kUncopiedColumns;
  float* own_a = args.scratch + kSgemmDepth * kSgemmColumns;
  const float* b = t.b;
  const float* a = t.a;
  float* c = t.c;
  t.a_row = packed ? 1 : copied ? kCopiedRow : args.a_row;
  t.a_col = packed ? kSgemmRows : args.a_col;
  const int64_t a_tile = packed ? kPackedTile : kSgemmRows * t.a_row;
  for (int64_t block = 0; block < args.m; block += kBlockTiles * kSgemmRows) {
    const int64_t left = args.m - block;
    const int64_t rows = left < kBlockTiles * kSgemmRows ? left : kBlockTiles * kSgemmRows;
    const float* block_a = packed || copied ? own_a : a + block * args.a_row;
    RowsAhead below;
    if (contiguous) {
      const int64_t more = left - rows < rows ? left - rows : rows;
      below.add(a + (block + rows) * args.a_row, more, args.a_row, t.k);
      below.divide(steps_of(rows, n, t.k));
      t.ahead = &below;
    }
    if (packed) pack_a(a + block, args.a_col, rows, t.k, own_a);
    if (copied) copy_a(a + block * args.a_row, args.a_row, rows, t.k, own_a);
    for (int64_t j = 0; j < n; j += kSgemmVectors * kLanes) {
      t.columns = n - j;
      t.b = b + j / kLanes * t.b_vector;
      for (int64_t i = 0; i < rows; i += kSgemmRows) {
        t.a = block_a + i / kSgemmRows * a_tile;
        t.c = c + (block + i) * args.c_row + j;
        sgemm_rows(t, rows - i < kSgemmRows ? rows - i : kSgemmRows);
      }
    }
  }
}

void sgemm(const SgemmArgs& args) {
  if (args.k == 0 && !args.accumulate) {  // an empty sum
    for (int64_t i = 0; i < args.m; ++i) {
      for (int64_t j = 0; j < args.n; ++j) args.c[i * args.c_row + j] = 0.0f;
    }
  }
  const int64_t packed_columns = (args.packed_n + kLanes - 1) / kLanes * kLanes;
  for (int64_t p = 0; p < args.k; p += kSgemmDepth) {
    const int64_t depth = args.k - p < kSgemmDepth ? args.k - p : kSgemmDepth;
    SgemmTile tile{};
    RowsAhead deeper;  // where A and B lie along the sums, the next ones
    if (args.a_col != 1) {
      const int64_t rest = args.k - p - depth;
      const int64_t more = rest < kSgemmDepth ? rest : kSgemmDepth;
      deeper.add(args.a + (p + depth) * args.a_col, more, args.a_col, args.m);
      if (args.b_col == 1) deeper.add(args.b + (p + depth) * args.b_row, more, args.b_row, args.n);
      deeper.divide(steps_of(args.m, args.n, depth));
    }
    tile.ahead = &deeper;
    tile.a = args.a + p * args.a_col;
    tile.k = depth;
    tile.c_row = args.c_row;
    tile.add = args.accumulate || p > 0;
    if (args.b_packed != nullptr) {
      const int64_t packed_depth = args.packed_k - p < kSgemmDepth ? args.packed_k - p : kSgemmDepth;
      tile.b = args.b_packed + p * packed_columns + args.packed_column * packed_depth;
      tile.b_vector = packed_depth * kLanes;
      tile.c = args.c;
      sgemm_block(args, tile, args.n);
      continue;
    }
    for (int64_t j = 0; j < args.n; j += kSgemmColumns) {
      const int64_t columns = args.n - j < kSgemmColumns ? args.n - j : kSgemmColumns;
      pack_b(args.b + p * args.b_row + j * args.b_col, args.b_row, args.b_col, depth, columns, args.scratch);
      tile.b = args.scratch;
      tile.b_vector = depth * kLanes;
      tile.c = args.c + j;
      sgemm_block(args, tile, columns);
    }
  }
}

void sgemm_pack(const SgemmPackArgs& args) {
  const int64_t columns = (args.n + kLanes - 1) / kLanes * kLanes;
  for (int64_t p = 0; p < args.k; p += kSgemmDepth) {
    const int64_t depth = args.k - p < kSgemmDepth ? args.k - p : kSgemmDepth;
    pack_b(args.b + p * args.b_row, args.b_row, args.b_col, depth, args.n, args.out + p * columns);
  }
}

// ---- elementwise ---------------------------------------------------------------------------------------------------

LATHE_INLINE F32x16 sigmoid(F32x16 x) {
  return div(broadcast(1.0f), add(broadcast(1.0f), exp(sub(zero(), x))));
}

void rms_norm_backward(const RmsNormBackwardArgs& a) {
  F32x16 squares = zero();
  F32x16 products = zero();
  for_vectors(
      a.n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32x16 x = load_some(a.x + i, count);
        squares = fma(x, x, squares);
        products = fma(mul(load_some(a.weight + i, count), load_some(a.dy + i, count)), x, products);
      });
  const float mean = reduce_add(squares) / static_cast<float>(a.n);
  const float factor = 1.0f / square_root(mean + a.eps);
  // n mean(n w dy) = x factor^2 mean(x w dy)
  const F32x16 projection = broadcast(factor * factor * (reduce_add(products) / static_cast<float>(a.n)));
  const F32x16 scale = broadcast(factor);
  for_vectors(
      a.n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32x16 x = load_some(a.x + i, count);
        const F32x16 dy = load_some(a.dy + i, count);
        store_some(a.dweight + i, fma(dy, mul(x, scale), load_some(a.dweight + i, count)), count);
        const F32x16 dx = mul(fnma(x, projection, mul(load_some(a.weight + i, count), dy)), scale);
        store_some(a.dx + i, a.accumulate ? add(load_some(a.dx + i, count), dx) : dx, count);
      });
}

void silu_mul_backward(const SiluMulBackwardArgs& a) {
  for_vectors(
      a.n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32x16 g = load_some(a.gate + i, count);
        const F32x16 up = load_some(a.up + i, count);
        const F32x16 dh = load_some(a.dh + i, count);
        const F32x16 s = sigmoid(g);
        const F32x16 slope = mul(s, fma(g, sub(broadcast(1.0f), s), broadcast(1.0f)));
        store_some(a.dup + i, mul(dh, mul(g, s)), count);
        store_some(a.dgate + i, mul(mul(dh, up), slope), count);
      });
}

void softmax_backward(const SoftmaxBackwardArgs& a) {
  const F32x16 scale = broadcast(a.scale);
  const F32x16 lse = broadcast(a.lse);
  const F32x16 delta = broadcast(a.delta);
  for_vectors(
      a.count, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32x16 p = exp(fms(load_some(a.scores + i, count), scale, lse));
        store_some(a.scores + i, p, count);
        store_some(a.dp + i, mul(mul(scale, p), sub(load_some(a.dp + i, count), delta)), count);
      });
  for (int64_t i = a.count; i < a.padded; ++i) {
    a.scores[i] = 0.0f;
    a.dp[i] = 0.0f;
  }
}

void adamw(const AdamwArgs& a) {
  const F32x16 beta1 = broadcast(a.beta1);
  const F32x16 beta2 = broadcast(a.beta2);
  const F32x16 rest1 = broadcast(a.rest1);
  const F32x16 rest2 = broadcast(a.rest2);
  for_vectors(
      a.n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32x16 g = mul(load_some(a.gradient + i, count), broadcast(a.gradient_factor));
        const F32x16 m = fma(beta1, load_some(a.first + i, count), mul(rest1, g));
        const F32x16 v = fma(beta2, load_some(a.second + i, count), mul(rest2, mul(g, g)));
        store_some(a.first + i, m, count);
        store_some(a.second + i, v, count);
        const F32x16 root = square_roots(mul(v, broadcast(a.correction2)));
        const F32x16 update = div(mul(m, broadcast(a.correction1)), add(root, broadcast(a.epsilon)));
        const F32x16 value = load_some(a.value + i, count);
        store_some(a.value + i, fnma(broadcast(a.learning_rate), fma(broadcast(a.decay), value, update), value), count);
      });
}

}  // namespace
}  // namespace lathe
