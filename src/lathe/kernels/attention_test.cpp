// The kernels of lane_tile.h against plain double arithmetic, and bit for bit between the vector tables.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "lathe/base/str.h"
#include "support/compare.h"
#include "support/kernels.h"
#include "support/stored_rows.h"

namespace lathe {
namespace {

using testing::Columns;
using testing::GuardedFloats;
using testing::random_floats;
using testing::stored_rows;

std::span<const KernelTable* const> vector_tables() {
  return all_kernels().subspan(1);
}

class LanesOnEveryTable : public ::testing::TestWithParam<const KernelTable*> {};

// A strip of random values and everything that the kernels take with it.
struct Problem {
  int64_t keys;
  int64_t cols;
  int64_t groups;
  std::vector<float> strip;
  std::vector<float> q;        // [groups][cols][16]
  std::vector<float> scores;   // [groups][64][16]
  std::vector<float> factors;  // [groups][16]
  std::vector<float> out;      // [groups][lane_columns(cols)][16]
};

Problem random_problem(uint64_t seed) {
  Rng rng(seed);
  Problem p{.keys = rng.next_int(1, kTileKeys),
            .cols = rng.next_int(1, kStripColumns),
            .groups = rng.next_int(1, 5),
            .strip = {},
            .q = {},
            .scores = {},
            .factors = {},
            .out = {}};
  if (seed % 4 == 0) p.keys = kTileKeys, p.cols = kStripColumns;
  p.strip.assign(kStripFloats, 0.0F);
  for (int64_t key = 0; key < p.keys; ++key) {
    for (int64_t c = 0; c < p.cols; ++c) {
      p.strip[static_cast<size_t>(key * kStripColumns + c)] = static_cast<float>(rng.next_normal());
    }
  }
  p.q = random_floats(rng, p.groups * p.cols * kLaneGroup);
  p.scores = random_floats(rng, p.groups * kLaneScores);
  p.factors = random_floats(rng, p.groups * kLaneGroup);
  p.out = random_floats(rng, p.groups * lane_columns(p.cols) * kLaneGroup);
  return p;
}

std::vector<float> scores_of(const KernelTable& kernels,
                             const Problem& p,
                             bool accumulate,
                             int64_t lanes = kLaneGroup) {
  GuardedFloats scores(p.scores);
  kernels.lane_scores({.strip = p.strip.data(),
                       .keys = p.keys,
                       .cols = p.cols,
                       .q = p.q.data(),
                       .q_stride = p.cols * kLaneGroup,
                       .scores = scores.data(),
                       .groups = p.groups,
                       .accumulate = accumulate,
                       .lanes = lanes});
  EXPECT_TRUE(scores.guards_intact());
  return {scores.values().begin(), scores.values().end()};
}

std::vector<float> values_of(const KernelTable& kernels, const Problem& p, int64_t lanes = kLaneGroup) {
  GuardedFloats out(p.out);
  kernels.lane_values({.strip = p.strip.data(),
                       .keys = p.keys,
                       .cols = p.cols,
                       .weights = p.scores.data(),
                       .factor = p.factors.data(),
                       .out = out.data(),
                       .out_stride = lane_columns(p.cols) * kLaneGroup,
                       .groups = p.groups,
                       .lanes = lanes});
  EXPECT_TRUE(out.guards_intact());
  return {out.values().begin(), out.values().end()};
}

TEST_P(LanesOnEveryTable, ScoresArePlainProducts) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    const Problem p = random_problem(seed);
    const bool accumulate = seed % 2 == 0;
    const std::vector<float> scores = scores_of(*GetParam(), p, accumulate);
    std::vector<float> expected = p.scores;
    for (int64_t g = 0; g < p.groups; ++g) {
      for (int64_t key = 0; key < (p.keys + 15) / 16 * 16; ++key) {
        for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
          float& score = expected[static_cast<size_t>(g * kLaneScores + key * kLaneGroup + lane)];
          double sum = accumulate ? score : 0.0;
          for (int64_t c = 0; c < p.cols; ++c) {
            sum += static_cast<double>(p.strip[static_cast<size_t>(key * kStripColumns + c)]) *
                   p.q[static_cast<size_t>((g * p.cols + c) * kLaneGroup + lane)];
          }
          score = static_cast<float>(sum);
        }
      }
    }
    testing::expect_close(scores, expected, testing::tol::kF32Reduction);
  }
}

TEST_P(LanesOnEveryTable, ValuesArePlainProducts) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    const Problem p = random_problem(seed);
    std::vector<float> expected = p.out;
    for (int64_t g = 0; g < p.groups; ++g) {
      for (int64_t c = 0; c < lane_columns(p.cols); ++c) {
        for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
          float& out = expected[static_cast<size_t>((g * lane_columns(p.cols) + c) * kLaneGroup + lane)];
          double sum = static_cast<double>(out) * p.factors[static_cast<size_t>(g * kLaneGroup + lane)];
          for (int64_t key = 0; key < p.keys; ++key) {
            sum += static_cast<double>(p.strip[static_cast<size_t>(key * kStripColumns + c)]) *
                   p.scores[static_cast<size_t>(g * kLaneScores + key * kLaneGroup + lane)];
          }
          out = static_cast<float>(sum);
        }
      }
    }
    testing::expect_close(values_of(*GetParam(), p), expected, testing::tol::kF32Reduction);
  }
}

// A lane group alone, or the second of two, has the bits it has among others; and so on every vector table.
TEST(Lanes, GroupsAndTablesAgreeBitForBit) {
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    SCOPED_TRACE(seed);
    const Problem p = random_problem(seed);
    const std::vector<float> scores = scores_of(*vector_tables().front(), p, true);
    const std::vector<float> out = values_of(*vector_tables().front(), p);
    for (const KernelTable* table : vector_tables()) {
      testing::expect_same_bits(scores_of(*table, p, true), scores);
      testing::expect_same_bits(values_of(*table, p), out);
      for (int64_t g = 0; g < p.groups; ++g) {
        const auto slice = [&](const std::vector<float>& all) {
          const size_t n = all.size() / static_cast<size_t>(p.groups);
          const auto begin = all.begin() + static_cast<std::ptrdiff_t>(n) * g;
          return std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(n));
        };
        const Problem one{.keys = p.keys,
                          .cols = p.cols,
                          .groups = 1,
                          .strip = p.strip,
                          .q = slice(p.q),
                          .scores = slice(p.scores),
                          .factors = slice(p.factors),
                          .out = slice(p.out)};
        testing::expect_same_bits(scores_of(*table, one, true), slice(scores));
        testing::expect_same_bits(values_of(*table, one), slice(out));
      }
    }
  }
}

// Lanes that are named as the only ones that count have the bits they have among all; no NaN arises in the others.
TEST_P(LanesOnEveryTable, HalfOfTheLanesAlone) {
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    SCOPED_TRACE(seed);
    const Problem p = random_problem(seed);
    const bool accumulate = seed % 2 == 0;
    for (const int64_t lanes : {1, 8, 9}) {
      const std::array pairs = {
          std::pair(scores_of(*GetParam(), p, accumulate), scores_of(*GetParam(), p, accumulate, lanes)),
          std::pair(values_of(*GetParam(), p), values_of(*GetParam(), p, lanes))};
      for (const auto& [whole, part] : pairs) {
        ASSERT_EQ(whole.size(), part.size());
        for (size_t i = 0; i < whole.size(); ++i) {
          const bool counts = static_cast<int64_t>(i) % kLaneGroup < lanes;
          if (counts ? std::bit_cast<uint32_t>(whole[i]) != std::bit_cast<uint32_t>(part[i])
                     : !std::isfinite(part[i])) {
            FAIL() << lanes << " lanes, element " << i << ": expected " << whole[i] << ", found " << part[i];
          }
        }
      }
    }
  }
}

struct LaneState {
  std::array<float, kLaneGroup> maximum;
  std::array<float, kLaneGroup> sum;
  std::array<float, kLaneGroup> factor;
};

LaneState fresh_state() {
  LaneState state{};
  state.maximum.fill(-INFINITY);
  return state;
}

void softmax(const KernelTable& kernels,
             std::vector<float>& scores,
             int64_t keys,
             const std::array<int32_t, kLaneGroup>& visible,
             LaneState& state) {
  kernels.lane_softmax({.scores = scores.data(),
                        .keys = keys,
                        .visible = visible.data(),
                        .scale = 0.5F,
                        .maximum = state.maximum.data(),
                        .sum = state.sum.data(),
                        .factor = state.factor.data()});
}

TEST_P(LanesOnEveryTable, SoftmaxOverTwoTilesIsThatOfAllScores) {
  Rng rng(3);
  std::array<std::vector<float>, 2> tiles;
  std::array<std::array<int32_t, kLaneGroup>, 2> visible{};
  for (size_t tile = 0; tile < 2; ++tile) {
    tiles[tile] = random_floats(rng, kLaneScores, 20.0);
    for (int32_t& v : visible[tile]) v = static_cast<int32_t>(rng.next_int(0, 50));
  }
  visible[0][3] = visible[1][3] = 0;  // a lane that sees nothing at all
  visible[0][4] = 0;                  // one that sees only the second tile
  const auto raw = tiles;
  LaneState state = fresh_state();
  softmax(*GetParam(), tiles[0], 50, visible[0], state);
  softmax(*GetParam(), tiles[1], 50, visible[1], state);
  for (size_t lane = 0; lane < kLaneGroup; ++lane) {
    SCOPED_TRACE(lane);
    double highest = -INFINITY;
    for (size_t tile = 0; tile < 2; ++tile) {
      for (size_t key = 0; key < static_cast<size_t>(visible[tile][lane]); ++key) {
        highest = std::max(highest, 0.5 * raw[tile][key * kLaneGroup + lane]);
      }
    }
    double sum = 0.0;
    for (size_t tile = 0; tile < 2; ++tile) {
      for (size_t key = 0; key < 64; ++key) {
        const bool seen = key < static_cast<size_t>(visible[tile][lane]);
        const double e = seen ? std::exp(0.5 * raw[tile][key * kLaneGroup + lane] - highest) : 0.0;
        sum += e;
        if (tile == 0) continue;  // relative to the maximum of that time
        EXPECT_NEAR(tiles[tile][key * kLaneGroup + lane], e, 2e-6) << key;
      }
    }
    EXPECT_FLOAT_EQ(state.maximum[lane], static_cast<float>(highest));
    EXPECT_NEAR(state.sum[lane], sum, 1e-5 * (1.0 + sum));
  }
  EXPECT_EQ(state.sum[3], 0.0F);
}

TEST_P(LanesOnEveryTable, SoftmaxKeepsLanesThatSeeNothingNew) {
  std::vector<float> scores(kLaneScores, 1.0F);
  std::array<int32_t, kLaneGroup> visible{};
  LaneState state = fresh_state();
  state.maximum[5] = 2.5F;
  state.sum[5] = 7.0F;
  softmax(*GetParam(), scores, 64, visible, state);
  EXPECT_EQ(state.maximum[5], 2.5F);
  EXPECT_EQ(state.sum[5], 7.0F);
  EXPECT_EQ(state.factor[5], 1.0F);
  EXPECT_EQ(state.maximum[0], -INFINITY);
  EXPECT_EQ(state.factor[0], 0.0F);
  for (const float weight : scores) EXPECT_EQ(weight, 0.0F);
}

TEST_P(LanesOnEveryTable, SoftmaxShowsNanInItsLaneOnly) {
  std::vector<float> scores(kLaneScores, 1.0F);
  scores[2 * kLaneGroup + 6] = NAN;
  std::array<int32_t, kLaneGroup> visible{};
  visible.fill(64);
  LaneState state = fresh_state();
  softmax(*GetParam(), scores, 64, visible, state);
  for (size_t lane = 0; lane < kLaneGroup; ++lane) EXPECT_EQ(std::isnan(state.sum[lane]), lane == 6) << lane;
  EXPECT_EQ(state.maximum[6], 0.5F);
}

TEST(Lanes, SoftmaxAgreesBitForBitBetweenTables) {
  Rng rng(8);
  const std::vector<float> raw = random_floats(rng, kLaneScores, 30.0);
  std::array<int32_t, kLaneGroup> visible{};
  for (int32_t& v : visible) v = static_cast<int32_t>(rng.next_int(0, 64));
  std::vector<float> first;
  for (const KernelTable* table : vector_tables()) {
    std::vector<float> all = raw;
    LaneState state = fresh_state();
    softmax(*table, all, 64, visible, state);
    for (const auto& part : {state.maximum, state.sum, state.factor}) all.insert(all.end(), part.begin(), part.end());
    if (first.empty()) first = all;
    testing::expect_same_bits(all, first);
  }
}

constexpr CacheFormat kFormats[] = {
    CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kF16, CacheFormat::kQ8, CacheFormat::kQ6};

TEST_P(LanesOnEveryTable, StripsHoldTheRowsAndZeros) {
  for (const CacheFormat format : kFormats) {
    for (const Columns& c :
         {Columns{64, 64, 0, 64}, {1, 1, 0, 1}, {63, 100, 32, 64}, {5, 96, 17, 48}, {2, 131, 67, 64}, {3, 40, 32, 8}}) {
      SCOPED_TRACE(str(cache_format_name(format), " ", c.rows, " rows, ", c.cols, " columns from ", c.first));
      const testing::FencedBytes stored = stored_rows(format, c.rows, c.elements, 4);
      const int64_t stride = cache_row_bytes(format, c.elements);
      GuardedFloats strip(kStripFloats);
      GetParam()->load_strip({.format = format,
                              .data = stored.data(),
                              .elements = c.elements,
                              .stride = stride,
                              .first = c.first,
                              .rows = c.rows,
                              .cols = c.cols},
                             strip.data());
      EXPECT_TRUE(strip.guards_intact());
      std::vector<float> expected(kStripFloats, 0.0F);
      for (int64_t row = 0; row < c.rows; ++row) {
        float* to = expected.data() + row * kStripColumns;
        decode_cache_row(format, stored.data() + row * stride, c.elements, c.first, c.cols, to);
      }
      testing::expect_same_bits(strip.values(), expected);
    }
  }
}

TEST_P(LanesOnEveryTable, CacheRowsAreReadAnywhere) {
  for (const CacheFormat format : kFormats) {
    for (const int64_t elements : {1, 31, 32, 80, 97, 576}) {
      const testing::FencedBytes stored = stored_rows(format, 1, elements, 6);
      for (const int64_t first : {int64_t{0}, elements / 3, elements - 1}) {
        for (const int64_t n : {int64_t{0}, int64_t{1}, (elements - first) / 2, elements - first}) {
          SCOPED_TRACE(str(cache_format_name(format), ": ", n, " of ", elements, " from ", first));
          GuardedFloats out(n);
          GetParam()->cache_to_float(format, stored.data(), elements, first, n, out.data());
          EXPECT_TRUE(out.guards_intact());
          std::vector<float> expected(static_cast<size_t>(n));
          decode_cache_row(format, stored.data(), elements, first, n, expected.data());
          testing::expect_same_bits(out.values(), expected);
        }
      }
    }
  }
}

TEST_P(LanesOnEveryTable, Q8RowsAreWrittenAsThePlainCodeWritesThem) {
  Rng rng(17);
  for (const int64_t elements : {1, 31, 32, 80, 576, 1100}) {
    std::vector<float> x = random_floats(rng, elements);
    // One group each: zeros, too small for fp16, its subnormals, too large, infinite, NaN.
    const std::array<float, 6> magnitudes{0.0F, 1e-12F, 3e-5F, 3e7F, INFINITY, NAN};
    for (int64_t i = 96; i < std::min<int64_t>(elements, 96 + 32 * 6); ++i) {
      x[static_cast<size_t>(i)] *= magnitudes[static_cast<size_t>((i - 96) / 32)];
    }
    const auto bytes = static_cast<size_t>(cache_row_bytes(CacheFormat::kQ8, elements));
    std::vector<std::byte> expected(bytes);
    encode_cache_row(CacheFormat::kQ8, x.data(), elements, expected.data());
    std::vector<std::byte> found(bytes + 64, std::byte{0x5a});
    GetParam()->encode_q8(x.data(), elements, found.data());
    expected.resize(found.size(), std::byte{0x5a});
    EXPECT_EQ(found, expected) << elements;
  }
}

TEST_P(LanesOnEveryTable, RowsToLanesAndBack) {
  Rng rng(5);
  for (const int64_t n : {1, 7, 8, 30}) {
    SCOPED_TRACE(n);
    const std::vector<float> source = random_floats(rng, kLaneGroup * n);
    std::array<const float*, kLaneGroup> rows{};
    for (int64_t i = 0; i < kLaneGroup; ++i) rows[static_cast<size_t>(i)] = source.data() + i * n;
    rows[2] = rows[15] = nullptr;
    GuardedFloats lanes(n * kLaneGroup);
    GetParam()->rows_to_lanes(rows.data(), n, lanes.data());
    EXPECT_TRUE(lanes.guards_intact());
    GuardedFloats back(n * kLaneGroup);
    std::array<float*, kLaneGroup> to{};
    for (int64_t i = 0; i < kLaneGroup; ++i) to[static_cast<size_t>(i)] = back.data() + i * n;
    to[7] = nullptr;
    GetParam()->lanes_to_rows(lanes.data(), n, to.data());
    EXPECT_TRUE(back.guards_intact());
    for (int64_t i = 0; i < kLaneGroup; ++i) {
      for (int64_t k = 0; k < n; ++k) {
        const float value = i == 2 || i == 15 ? 0.0F : source[static_cast<size_t>(i * n + k)];
        EXPECT_EQ(lanes.data()[k * kLaneGroup + i], value) << i << " " << k;
        if (i == 7) {
          EXPECT_TRUE(GuardedFloats::is_untouched(back.data()[i * n + k]));
        } else {
          EXPECT_EQ(back.data()[i * n + k], value) << i << " " << k;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables,
                         LanesOnEveryTable,
                         ::testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         testing::table_name);

}  // namespace
}  // namespace lathe
