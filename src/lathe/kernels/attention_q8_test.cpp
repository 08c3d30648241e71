// The integer products of lane_tile.h, on queries as bytes and q8 cache rows, against plain double arithmetic and bit
// for bit against the reference table.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
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

class Q8LanesOnEveryTable : public ::testing::TestWithParam<const KernelTable*> {};

// One lane group's queries as bytes, and what they stand for.
struct QuantisedLanes {
  std::vector<std::byte> bytes;
  std::vector<float> values;  // [cols padded to 32][16]
};

QuantisedLanes quantised_lanes(const KernelTable& kernels, const std::vector<float>& q) {
  const auto cols = static_cast<int64_t>(q.size()) / kLaneGroup;
  const int64_t blocks = cache_groups(cols);
  QuantisedLanes out;
  out.bytes.resize(static_cast<size_t>(blocks * kLaneBlockBytes));
  kernels.lane_quantise({.q = q.data(), .cols = cols, .out = out.bytes.data()});
  for (int64_t c = 0; c < blocks * kCacheGroup; ++c) {
    const std::byte* block = out.bytes.data() + c / kCacheGroup * kLaneBlockBytes;
    for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
      float scale = 0.0F;
      std::memcpy(&scale, block + kCacheGroup * kLaneGroup + 4 * lane, 4);
      const auto code = static_cast<int8_t>(block[c % kCacheGroup / 4 * 4 * kLaneGroup + 4 * lane + c % 4]);
      out.values.push_back(scale * static_cast<float>(code));
    }
  }
  return out;
}

TEST_P(Q8LanesOnEveryTable, QuantisedQueriesAreTheReferencesWithinHalfALevel) {
  Rng rng(12);
  for (const int64_t cols : {1, 31, 32, 80}) {
    SCOPED_TRACE(cols);
    std::vector<float> q = random_floats(rng, cols * kLaneGroup);
    for (int64_t c = 0; c < cols; ++c) q[static_cast<size_t>(c * kLaneGroup + 3)] = 0.0F;
    const QuantisedLanes lanes = quantised_lanes(*GetParam(), q);
    EXPECT_EQ(lanes.bytes, quantised_lanes(*all_kernels().front(), q).bytes);
    for (size_t i = 0; i < lanes.values.size(); ++i) {
      EXPECT_NEAR(lanes.values[i], i < q.size() ? q[i] : 0.0F, 5.0 / 127.0 / 2.0) << i;
    }
  }
  for (const float bad : {NAN, INFINITY}) {
    std::vector<float> q(64 * kLaneGroup, 1.0F);
    q[5] = bad;
    const QuantisedLanes lanes = quantised_lanes(*GetParam(), q);
    for (size_t i = 0; i < lanes.values.size(); ++i) {
      EXPECT_EQ(std::isnan(lanes.values[i]), i / kLaneGroup < kCacheGroup && i % kLaneGroup == 5) << i;
    }
  }
}

TEST_P(Q8LanesOnEveryTable, Q8ScoresAreTheReferencesBitForBit) {
  Rng rng(13);
  for (const Columns& c : {Columns{64, 576, 0, 576}, {1, 80, 0, 80}, {13, 128, 64, 32}, {50, 700, 32, 640}}) {
    SCOPED_TRACE(str(c.rows, " keys, ", c.cols, " of ", c.elements, " columns from ", c.first));
    const testing::FencedBytes stored = stored_rows(CacheFormat::kQ8, c.rows, c.elements, 14);
    const int64_t groups = 3;
    std::vector<std::byte> q;
    std::vector<std::vector<float>> values;
    for (int64_t g = 0; g < groups; ++g) {
      const QuantisedLanes lanes = quantised_lanes(*GetParam(), random_floats(rng, c.cols * kLaneGroup));
      q.insert(q.end(), lanes.bytes.begin(), lanes.bytes.end());
      values.push_back(lanes.values);
    }
    const auto scores_by = [&](const KernelTable& kernels, int64_t groups_taken, int64_t lanes) {
      GuardedFloats scores(groups * kLaneScores);
      std::fill_n(scores.data(), groups * kLaneScores, 7.0F);
      kernels.lane_scores_q8({.rows = stored.data(),
                              .elements = c.elements,
                              .first = c.first,
                              .keys = c.rows,
                              .blocks = cache_groups(c.cols),
                              .q = q.data(),
                              .q_stride = static_cast<int64_t>(q.size()) / groups,
                              .scores = scores.data(),
                              .groups = groups_taken,
                              .lanes = lanes});
      EXPECT_TRUE(scores.guards_intact());
      return std::vector<float>(scores.values().begin(), scores.values().end());
    };
    const std::vector<float> scores = scores_by(*GetParam(), groups, kLaneGroup);
    testing::expect_same_bits(scores, scores_by(*all_kernels().front(), groups, kLaneGroup));
    const std::vector<float> half = scores_by(*GetParam(), 1, kLaneGroup / 2);
    for (size_t i = 0; i < kLaneScores; ++i) {
      if (i % kLaneGroup >= kLaneGroup / 2) continue;
      EXPECT_EQ(half[i], scores[i]) << i;
    }
    std::vector<float> expected(scores.size(), 7.0F);
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t key = 0; key < (c.rows + 15) / 16 * 16; ++key) {
        std::vector<float> row(static_cast<size_t>(c.cols), 0.0F);
        const std::byte* from = stored.data() + key * cache_row_bytes(CacheFormat::kQ8, c.elements);
        if (key < c.rows) decode_cache_row(CacheFormat::kQ8, from, c.elements, c.first, c.cols, row.data());
        for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
          double sum = 0.0;
          for (size_t i = 0; i < row.size(); ++i) {
            sum += static_cast<double>(row[i]) *
                   values[static_cast<size_t>(g)][i * kLaneGroup + static_cast<size_t>(lane)];
          }
          expected[static_cast<size_t>(g * kLaneScores + key * kLaneGroup + lane)] = static_cast<float>(sum);
        }
      }
    }
    testing::expect_close(scores, expected, testing::tol::kF32Reduction);
  }
}

// Of a tile: in the first group lane l sees all keys but l, in the others all of them.
std::vector<int32_t> visible_keys(int64_t groups, int64_t keys) {
  std::vector<int32_t> visible(static_cast<size_t>(groups * kLaneGroup), static_cast<int32_t>(keys));
  for (int32_t lane = 0; lane < kLaneGroup; ++lane) {
    visible[static_cast<size_t>(lane)] = std::max(visible[static_cast<size_t>(lane)] - lane, 0);
  }
  return visible;
}

// Softmax weights of tiles with q8 values, as a lane may have them: all sizes, few that count, none.
std::vector<float> lane_weights(Rng& rng, int64_t groups, int64_t keys, const std::vector<int32_t>& visible) {
  std::vector<float> weights(static_cast<size_t>(groups * kLaneScores), 0.0F);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t key = 0; key < keys; ++key) {
      for (int64_t lane = 0; lane < kLaneGroup; ++lane) {
        const auto steepness = static_cast<float>(lane * 2);  // exp(-30) at most for the last lanes
        float& w = weights[static_cast<size_t>(g * kLaneScores + key * kLaneGroup + lane)];
        w = std::exp(-steepness * static_cast<float>(rng.next_uniform()));
        if (lane == 5 || key >= visible[static_cast<size_t>(g * kLaneGroup + lane)]) w = 0.0F;
        if (lane == 6) w *= 1e-35F;
        if (lane == 7 && key % 3 == 0) w = 0.0F;
      }
    }
  }
  return weights;
}

TEST_P(Q8LanesOnEveryTable, Q8ValuesAreTheReferencesBitForBit) {
  Rng rng(15);
  for (const Columns& c : {Columns{64, 576, 0, 512}, {1, 64, 0, 32}, {13, 128, 64, 32}, {50, 700, 32, 640}}) {
    for (const int64_t groups : {1, 2, 3, 9}) {
      SCOPED_TRACE(
          str(c.rows, " keys, ", c.cols, " of ", c.elements, " columns from ", c.first, ", ", groups, " groups"));
      const testing::FencedBytes stored = stored_rows(CacheFormat::kQ8, c.rows, c.elements, 16);
      const std::vector<int32_t> visible = visible_keys(groups, c.rows);
      const std::vector<float> weights = lane_weights(rng, groups, c.rows, visible);
      const std::vector<float> before = random_floats(rng, groups * c.cols * kLaneGroup);
      const std::vector<float> factor = random_floats(rng, groups * kLaneGroup);
      const auto out_by = [&](const KernelTable& kernels, int64_t lanes) {
        std::vector<float> in = weights;
        GuardedFloats out(groups * c.cols * kLaneGroup);
        std::ranges::copy(before, out.data());
        kernels.lane_values_q8({.rows = stored.data(),
                                .elements = c.elements,
                                .first = c.first,
                                .keys = c.rows,
                                .blocks = c.cols / kCacheGroup,
                                .weights = in.data(),
                                .visible = visible.data(),
                                .factor = factor.data(),
                                .out = out.data(),
                                .out_stride = c.cols * kLaneGroup,
                                .groups = groups,
                                .lanes = lanes});
        EXPECT_TRUE(out.guards_intact());
        return std::vector<float>(out.values().begin(), out.values().end());
      };
      const std::vector<float> out = out_by(*GetParam(), kLaneGroup);
      testing::expect_same_bits(out, out_by(*all_kernels().front(), kLaneGroup));
      const std::vector<float> half = out_by(*GetParam(), kLaneGroup / 2);
      for (size_t i = 0; i < half.size(); ++i) {
        if (i % kLaneGroup >= kLaneGroup / 2) continue;
        EXPECT_EQ(half[i], out[i]) << i;
      }
      // Against exact sums: half a step of the largest weight for every key, times the largest code.
      for (int64_t g = 0; g < groups; ++g) {
        std::vector<double> expected(static_cast<size_t>(c.cols * kLaneGroup));
        std::vector<double> bound(kLaneGroup, 0.0);
        std::vector<float> row(static_cast<size_t>(c.cols));
        for (int64_t key = 0; key < c.rows; ++key) {
          const std::byte* from = stored.data() + key * cache_row_bytes(CacheFormat::kQ8, c.elements);
          decode_cache_row(CacheFormat::kQ8, from, c.elements, c.first, c.cols, row.data());
          for (size_t i = 0; i < expected.size(); ++i) {
            const float w = weights[static_cast<size_t>(g * kLaneScores + key * kLaneGroup) + i % kLaneGroup];
            expected[i] += static_cast<double>(row[i / kLaneGroup]) * w;
            bound[i % kLaneGroup] = std::max<double>(bound[i % kLaneGroup], w);
          }
        }
        for (size_t i = 0; i < expected.size(); ++i) {
          const size_t at = static_cast<size_t>(g) * expected.size() + i;
          const double old =
              static_cast<double>(before[at]) * factor[static_cast<size_t>(g * kLaneGroup) + i % kLaneGroup];
          const double most = 6.0 * bound[i % kLaneGroup] * static_cast<double>(c.rows) / 65534.0;
          EXPECT_NEAR(out[at], expected[i] + old, most + 1e-6 * (std::fabs(expected[i]) + std::fabs(old))) << i;
        }
      }
    }
  }
}

TEST_P(Q8LanesOnEveryTable, Q8ValuesShowWhatIsNotFinite) {
  const int64_t elements = 64;
  std::vector<std::byte> rows(static_cast<size_t>(2 * cache_row_bytes(CacheFormat::kQ8, elements)));
  std::vector<float> row(static_cast<size_t>(elements), 1.0F);
  encode_cache_row(CacheFormat::kQ8, row.data(), elements, rows.data());
  row[40] = INFINITY;
  encode_cache_row(CacheFormat::kQ8, row.data(), elements, rows.data() + cache_row_bytes(CacheFormat::kQ8, elements));
  std::vector<float> weights(kLaneScores, 0.0F);
  std::fill_n(weights.data(), 2 * kLaneGroup, 0.5F);
  weights[3] = NAN;
  std::vector<int32_t> visible(kLaneGroup, 2);
  visible[4] = 1;
  weights[kLaneGroup + 4] = 0.0F;
  const std::vector<float> factor(kLaneGroup, 1.0F);
  std::vector<float> out(static_cast<size_t>(elements * kLaneGroup), 0.0F);
  GetParam()->lane_values_q8({.rows = rows.data(),
                              .elements = elements,
                              .first = 0,
                              .keys = 2,
                              .blocks = 2,
                              .weights = weights.data(),
                              .visible = visible.data(),
                              .factor = factor.data(),
                              .out = out.data(),
                              .out_stride = elements * kLaneGroup,
                              .groups = 1});
  for (size_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(std::isnan(out[i]), i % kLaneGroup == 3 || (i % kLaneGroup != 4 && i / kLaneGroup >= 32)) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Tables,
                         Q8LanesOnEveryTable,
                         ::testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         testing::table_name);

}  // namespace
}  // namespace lathe
