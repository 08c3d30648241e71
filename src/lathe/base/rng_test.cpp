#include "lathe/base/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

namespace lathe {
namespace {

using Block = std::array<uint32_t, 4>;

// Known answers of philox4x32-10 from the Random123 distribution (kat_vectors).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Uniform, DependsOnEveryBitOfItsArguments) {
  std::set<double> seen{uniform(0, 0, 0)};
  for (int bit = 0; bit < 64; ++bit) {
    const uint64_t one = uint64_t{1} << bit;
    seen.insert(uniform(one, 0, 0));
    seen.insert(uniform(0, one, 0));
    seen.insert(uniform(0, 0, one));
  }
  EXPECT_EQ(seen.size(), 1u + 3 * 64);
  EXPECT_EQ(uniform(1, 2, 3), uniform(1, 2, 3));
}

TEST(Uniform, FillsTheUnitIntervalEvenly) {
  constexpr int kDraws = 100000;
  double sum = 0.0;
  double squares = 0.0;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const double u = uniform(5, 1, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);  // 5 standard errors of 0.289 / sqrt(n)
  EXPECT_NEAR(squares / kDraws, 1.0 / 3.0, 0.005);
}

TEST(Rng, NormalHasMeanZeroAndDeviationOne) {
  Rng rng(3);
  constexpr int kDraws = 100000;
  double sum = 0.0;
  double squares = 0.0;
  int beyond_two = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.next_normal();
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
    if (std::fabs(x) > 2.0) ++beyond_two;
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 0.016);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.023);
  EXPECT_NEAR(static_cast<double>(beyond_two) / kDraws, 0.0455, 0.004);
}

TEST(Rng, IntegersCoverTheRangeWithBothEnds) {
  Rng rng(4);
  std::array<int, 7> counts{};
  for (int i = 0; i < 70000; ++i) {
    const int64_t x = rng.next_int(-3, 3);
    ASSERT_GE(x, -3);
    ASSERT_LE(x, 3);
    ++counts[static_cast<size_t>(x + 3)];
  }
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);
  EXPECT_EQ(rng.next_int(8, 8), 8);
}

TEST(Rng, TheFullRangeOfIntegersWorks) {
  Rng rng(6);
  int negative = 0;
  for (int i = 0; i < 1000; ++i) {
    if (rng.next_int(std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()) < 0) ++negative;
  }
  EXPECT_NEAR(negative, 500, 80);
}

TEST(Rng, SameSeedSameSequence) {
  Rng a(9);
  Rng b(9);
  Rng other(10);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const double x = a.next_uniform();
    EXPECT_EQ(x, b.next_uniform());
    differs = differs || x != other.next_uniform();
  }
  EXPECT_TRUE(differs);
}

}  // namespace
}  // namespace lathe
