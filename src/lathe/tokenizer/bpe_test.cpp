#include "lathe/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <random>
#include <utility>
#include <vector>

namespace lathe {
namespace {

struct Rules {
  BpeMerges table;
  std::map<std::pair<int32_t, int32_t>, std::pair<uint32_t, int32_t>> plain;

  void add(int32_t left, int32_t right, uint32_t rank, int32_t result) {
    table.add(left, right, rank, result);
    plain[{left, right}] = {rank, result};
  }
};

// The definition, word for word.
std::vector<int32_t> merge_by_definition(const Rules& rules, std::vector<int32_t> ids) {
  for (;;) {
    uint32_t best_rank = BpeMerges::kNoRank;
    size_t best = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = rules.plain.find({ids[i], ids[i + 1]});
      if (found != rules.plain.end() && found->second.first < best_rank) best_rank = found->second.first, best = i;
    }
    if (best_rank == BpeMerges::kNoRank) return ids;
    ids[best] = rules.plain.at({ids[best], ids[best + 1]}).second;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

std::vector<int32_t> merge(const Rules& rules, const std::vector<int32_t>& ids) {
  BpeScratch scratch;
  scratch.ids = ids;
  bpe_merge(rules.table, scratch);
  return scratch.ids;
}

Rules random_rules(std::mt19937& random, int32_t symbols, int merges) {
  Rules rules;
  rules.table.reserve(static_cast<size_t>(merges));
  std::vector<uint32_t> ranks(static_cast<size_t>(merges));
  for (size_t i = 0; i < ranks.size(); ++i) ranks[i] = static_cast<uint32_t>(i);
  std::shuffle(ranks.begin(), ranks.end(), random);  // a merge may come before the merges that make its parts
  for (int i = 0; i < merges; ++i) {
    const auto any = [&] { return static_cast<int32_t>(random() % static_cast<uint32_t>(symbols + i)); };
    rules.add(any(), any(), ranks[static_cast<size_t>(i)], symbols + i);
  }
  return rules;
}

TEST(Bpe, ShortAndLongSequencesFollowTheDefinition) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const int32_t symbols = 1 + static_cast<int32_t>(random() % 4);
    const Rules rules = random_rules(random, symbols, 1 + static_cast<int>(random() % 30));
    for (const size_t length : {0, 1, 2, 3, 17, 63, 64, 65, 66, 130, 400}) {
      std::vector<int32_t> ids(length);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(symbols));
      ASSERT_EQ(merge(rules, ids), merge_by_definition(rules, ids)) << "length " << length;
    }
  }
}

TEST(Bpe, LeftmostOfEqualRankFirst) {
  Rules rules;
  rules.table.reserve(1);
  rules.add(0, 0, 0, 1);
  EXPECT_EQ(merge(rules, {0, 0, 0}), (std::vector<int32_t>{1, 0}));
  EXPECT_EQ(merge(rules, std::vector<int32_t>(101, 0)).back(), 0);
}

TEST(Bpe, LastOfEqualPairsCounts) {
  BpeMerges merges;
  merges.reserve(2);
  merges.add(1, 2, 0, 3);
  merges.add(1, 2, 5, 4);
  EXPECT_EQ(merges.find(1, 2).rank, 5u);
  EXPECT_EQ(merges.find(1, 2).result, 4);
  EXPECT_EQ(merges.find(2, 1).rank, BpeMerges::kNoRank);
}

TEST(Bpe, NoMergesAtAll) {
  Rules rules;
  rules.table.reserve(0);
  EXPECT_EQ(merge(rules, {5, 6, 7}), (std::vector<int32_t>{5, 6, 7}));
}

TEST(Bpe, LongRunsTakeNearLinearTime) {
  Rules rules;
  rules.table.reserve(8);
  for (int32_t i = 0; i < 8; ++i) rules.add(i, i, static_cast<uint32_t>(i), i + 1);
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int32_t> ids = merge(rules, std::vector<int32_t>(1 << 20, 0));
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(ids, std::vector<int32_t>(1 << 12, 8));
  EXPECT_LT(taken.count(), 5.0);  // 0.1 s at rest; quadratic would be minutes
}

}  // namespace
}  // namespace lathe
