#include "lathe/train/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "lathe/base/file.h"
#include "lathe/base/rng.h"
#include "support/temp_dir.h"

namespace lathe::train {
namespace {

constexpr int64_t kVocab = 1000;

// Documents whose tokens tell document and place apart: i * 20 + 0, 1, 2, ...
std::vector<std::vector<int32_t>> numbered(int64_t first, int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<std::vector<int32_t>> out;
  for (int64_t i = first; i < first + count; ++i) {
    std::vector<int32_t> document;
    for (int64_t j = 0, n = rng.next_int(1, 19); j < n; ++j) document.push_back(static_cast<int32_t>(i * 20 + j));
    out.push_back(document);
  }
  return out;
}

ShardFile written(const testing::TempDir& folder,
                  std::string_view name,
                  const std::vector<std::vector<int32_t>>& documents) {
  Result<ShardWriter> writer = ShardWriter::create(folder / name, kVocab);
  EXPECT_TRUE(writer);
  for (const auto& document : documents) EXPECT_TRUE(writer->add(document));
  EXPECT_TRUE(writer->commit());
  Result<ShardFile> shard = ShardFile::open(folder / name, kVocab);
  EXPECT_TRUE(shard) << shard.error().message;
  return *std::move(shard);
}

TEST(Shard, GivesBackWhatWasWrittenAndNoticesDamage) {
  testing::TempDir folder;
  const auto documents = numbered(0, 30, 1);
  const ShardFile shard = written(folder, "a", documents);
  ASSERT_EQ(shard.documents(), 30);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < 30; ++i) {
    shard.read(i, ids);
    EXPECT_EQ(ids, documents[static_cast<size_t>(i)]);
  }
  const Result<std::string> good = read_file(folder / "a");
  ASSERT_TRUE(good);
  for (size_t i = 0; i < good->size(); i += 7) {
    std::string bad = *good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    ASSERT_TRUE(write_file_atomically(folder / "b", bad));
    EXPECT_FALSE(ShardFile::open(folder / "b", kVocab)) << i;
    ASSERT_TRUE(write_file_atomically(folder / "b", good->substr(0, i)));
    EXPECT_FALSE(ShardFile::open(folder / "b", kVocab)) << i;
  }
  EXPECT_FALSE(ShardFile::open(folder / "a", kVocab + 1));
  EXPECT_EQ(ShardFile::open(folder / "none", kVocab).error().code, Errc::kNotFound);
  const ShardFile empty = written(folder, "e", {});
  EXPECT_EQ(empty.documents(), 0);
  EXPECT_EQ(empty.tokens(), 0);
}

TEST(Loader, PermutationsArePermutations) {
  for (const int64_t count : {1, 2, 3, 7, 64, 100, 1000}) {
    for (const uint64_t seed : {1u, 2u}) {
      std::set<int64_t> seen;
      for (int64_t i = 0; i < count; ++i) seen.insert(permuted(i, count, seed));
      EXPECT_EQ(static_cast<int64_t>(seen.size()), count);
      EXPECT_EQ(*seen.rbegin(), count - 1);
    }
  }
  int64_t moved = 0;
  for (int64_t i = 0; i < 1000; ++i) moved += permuted(i, 1000, 1) != permuted(i, 1000, 2) ? 1 : 0;
  EXPECT_GT(moved, 900);
}

struct Fixture {
  testing::TempDir folder;
  std::vector<TokenSet> sets;

  Fixture() {
    sets.resize(1);
    sets[0].shards.push_back(written(folder, "a", numbered(0, 20, 1)));
    sets[0].shards.push_back(written(folder, "b", numbered(20, 25, 2)));
  }
};

TEST(Loader, EveryTokenButTheFirstOfADocumentIsATargetOncePerEpoch) {
  Fixture fixture;
  Result<Loader> loader = Loader::create(fixture.sets, {.sequence_length = 16, .seed = 3});
  ASSERT_TRUE(loader);
  std::multiset<int32_t> targets;
  std::multiset<int32_t> expected;
  for (const auto& documents : {numbered(0, 20, 1), numbered(20, 25, 2)}) {
    for (const auto& document : documents) expected.insert(document.begin() + 1, document.end());
  }
  Rows rows;
  while (loader->epochs(0) == 0) {
    loader->next(1, rows);
    ASSERT_EQ(rows.token_ids.size(), 16u);
    EXPECT_EQ(rows.counted, 16);
    const auto starts = [&](int64_t i) { return std::ranges::binary_search(rows.documents, i); };
    EXPECT_TRUE(starts(0));
    for (int64_t i = 0; i < 16; ++i) {
      // The target is the next token of the same document, which is the next input unless the document ends.
      const auto at = static_cast<size_t>(i);
      EXPECT_EQ(rows.targets[at], rows.token_ids[at] + 1);
      if (i + 1 < 16 && !starts(i + 1)) {
        EXPECT_EQ(rows.targets[at], rows.token_ids[at + 1]);
      }
      if (i > 0 && starts(i)) {
        EXPECT_EQ(rows.token_ids[at] % 20, 0);
      }
      if (targets.size() < expected.size()) targets.insert(rows.targets[at]);
    }
  }
  EXPECT_EQ(targets, expected);
}

TEST(Loader, GoesOnFromEveryPositionBitForBit) {
  Fixture fixture;
  fixture.sets.push_back({.shards = {written(fixture.folder, "c", numbered(45, 3, 5))}, .weight = 0.5});
  const LoaderOptions options{.sequence_length = 13, .seed = 9};
  Result<Loader> whole = Loader::create(fixture.sets, options);
  ASSERT_TRUE(whole);
  std::vector<Rows> all(60);
  std::vector<std::string> positions;
  for (Rows& rows : all) {
    positions.push_back(whole->position().dump());
    whole->next(2, rows);
  }
  for (size_t from = 0; from < all.size(); from += 7) {
    Result<Loader> resumed = Loader::create(fixture.sets, options);
    ASSERT_TRUE(resumed);
    ASSERT_TRUE(resumed->restore(*parse_json(positions[from])));
    for (size_t i = from; i < all.size(); ++i) {
      Rows rows;
      resumed->next(2, rows);
      EXPECT_EQ(rows.token_ids, all[i].token_ids);
      EXPECT_EQ(rows.documents, all[i].documents);
      EXPECT_EQ(rows.sequence_ids, all[i].sequence_ids);
    }
  }
  EXPECT_FALSE(whole->restore(Json::object()));
  Result<Loader> other = Loader::create(std::span(fixture.sets).first(1), options);
  ASSERT_TRUE(other);
  EXPECT_FALSE(other->restore(*parse_json(positions[3])));
}

TEST(Loader, WeightsAreSharesOfTheTokens) {
  Fixture fixture;
  fixture.sets.push_back({.shards = {written(fixture.folder, "c", numbered(45, 3, 5))}, .weight = 3.0});
  Result<Loader> loader = Loader::create(fixture.sets, {.sequence_length = 50});
  ASSERT_TRUE(loader);
  Rows rows;
  loader->next(100, rows);
  const auto second = std::ranges::count_if(rows.token_ids, [](int32_t id) { return id >= 900; });
  EXPECT_NEAR(static_cast<double>(second) / 5000.0, 0.75, 0.01);
}

TEST(Loader, CrossDocumentRowsAreOneDocumentEach) {
  Fixture fixture;
  Result<Loader> loader = Loader::create(fixture.sets, {.sequence_length = 16, .cross_documents = true});
  ASSERT_TRUE(loader);
  Rows rows;
  loader->next(3, rows);
  EXPECT_EQ(rows.documents, rows.sequences);
  EXPECT_EQ(rows.sequences, (std::vector<int64_t>{0, 16, 32}));
}

TEST(Loader, EvaluationTakesTheDocumentsInOrder) {
  Fixture fixture;
  const std::vector<Rows> all = evaluation_rows(fixture.sets[0], 16, 4, 0, false);
  std::vector<int32_t> targets;
  for (const Rows& rows : all) {
    EXPECT_LE(rows.rows(), 4);
    targets.insert(targets.end(), rows.targets.begin(), rows.targets.end());
  }
  std::vector<int32_t> expected;
  for (const auto& documents : {numbered(0, 20, 1), numbered(20, 25, 2)}) {
    for (const auto& document : documents) expected.insert(expected.end(), document.begin() + 1, document.end());
  }
  EXPECT_EQ(targets, expected);
  int64_t limited = 0;
  for (const Rows& rows : evaluation_rows(fixture.sets[0], 16, 4, 100, false)) limited += rows.counted;
  EXPECT_EQ(limited, 100);
}

TEST(Loader, RefusesFilesWithoutText) {
  testing::TempDir folder;
  std::vector<TokenSet> sets(1);
  sets[0].shards.push_back(written(folder, "a", {{3}, {4}}));
  const Result<Loader> loader = Loader::create(sets, {});
  ASSERT_FALSE(loader);
  EXPECT_EQ(loader.error().message, "data.train: expected a document of two tokens or more, found none");
}

}  // namespace
}  // namespace lathe::train
