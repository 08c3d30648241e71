// What tells pages apart, and which of them are given up first.
#include "lathe/runtime/prefix_cache.h"

#include <gtest/gtest.h>

#include <numeric>
#include <optional>
#include <utility>

namespace lathe {
namespace {

constexpr CacheLayout kLayout{.format = CacheFormat::kF16, .row_elements = 3, .layers = 2};

struct Bench {
  PagePool pool;
  std::optional<PrefixCache> cache;

  explicit Bench(int64_t pages) : pool(PagePool::create(kLayout, pages).value()) { cache.emplace(pool, 12345); }
};

std::vector<int32_t> ids_from(int32_t first) {
  std::vector<int32_t> ids(kPageTokens);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

TEST(PrefixCache, EverythingThatDecidesTheRowsTellsPagesApart) {
  Bench bench(4);
  const std::vector<int32_t> ids = ids_from(0);
  EXPECT_EQ(bench.cache->find({.ids = ids}).id, 0u);
  std::byte* page = bench.pool.acquire();
  const CachedPage first = bench.cache->insert({.ids = ids}, page);
  EXPECT_NE(first.id, 0u);
  EXPECT_EQ(first.page, page);
  EXPECT_EQ(bench.cache->find({.ids = ids}).page, page);
  EXPECT_EQ(bench.cache->find({.before = first.id, .ids = ids}).id, 0u);
  EXPECT_EQ(bench.cache->find({.scope = 1, .ids = ids}).id, 0u);
  EXPECT_EQ(bench.cache->find({.expanded = true, .ids = ids}).id, 0u);
  for (const size_t at : {0, 31, 63}) {
    std::vector<int32_t> changed = ids;
    changed[at] ^= 1;
    EXPECT_EQ(bench.cache->find({.ids = changed}).id, 0u) << at;
  }
  std::byte* again = bench.pool.acquire();
  EXPECT_EQ(bench.cache->insert({.ids = ids}, again).page, page) << "the one that is there";
  bench.pool.release(again);
  EXPECT_EQ(bench.pool.free_pages(), 3);
  const CachedPage form = bench.cache->insert({.expanded = true, .ids = ids}, bench.pool.acquire());
  EXPECT_NE(form.id, first.id);
  EXPECT_EQ(bench.cache->find({.expanded = true, .ids = ids}).page, form.page);
}

TEST(PrefixCache, ThePageThatAgreesLongestLendsItsFirstRows) {
  Bench bench(4);
  std::vector<int32_t> ids = ids_from(0);
  std::vector<std::byte*> pages;
  for (const size_t differs_at : {60, 40, 50}) {
    std::vector<int32_t> other = ids;
    other[differs_at] = -1;
    pages.push_back(bench.pool.acquire());
    bench.cache->insert({.ids = other}, pages.back());
  }
  const auto rows = [&](const PrefixKey& key) {
    const CachedRows found = bench.cache->find_rows(key);
    return std::pair(found.page, found.rows);
  };
  EXPECT_EQ(rows({.ids = ids}), (std::pair<const std::byte*, int64_t>(pages[0], 60)));
  EXPECT_EQ(rows({.ids = std::span(ids).first(20)}).second, 20);
  EXPECT_EQ(rows({.expanded = true, .ids = ids}).second, 0);
  EXPECT_EQ(rows({.before = 1, .ids = ids}).second, 0);
  EXPECT_EQ(rows({.scope = 1, .ids = ids}).second, 0);
  EXPECT_EQ(rows({.ids = {}}).second, 0);
  for (std::byte* page : pages) bench.pool.release(page);
  bench.pool.acquire();
  EXPECT_EQ(bench.pool.acquire(), pages[0]) << "given up";
  EXPECT_EQ(rows({.ids = ids}), (std::pair<const std::byte*, int64_t>(pages[2], 50)));
}

TEST(PrefixCache, LongestUnusedPagesAreGivenUpFirstAndThoseInUseNever) {
  Bench bench(4);
  std::vector<CachedPage> pages;
  std::vector<std::byte*> held;
  for (int32_t i = 0; i < 3; ++i) {
    held.push_back(bench.pool.acquire());
    pages.push_back(bench.cache->insert({.ids = ids_from(i)}, held.back()));
  }
  for (const int i : {1, 0, 2}) bench.pool.release(held[static_cast<size_t>(i)]);
  EXPECT_EQ(bench.pool.free_pages(), 1);
  EXPECT_EQ(bench.pool.kept_pages(), 3);
  bench.pool.retain(held[1]);  // used again
  EXPECT_EQ(bench.pool.kept_pages(), 2);
  EXPECT_NE(bench.pool.acquire(), nullptr) << "the free one";
  EXPECT_EQ(bench.pool.acquire(), held[0]);
  EXPECT_EQ(bench.cache->find({.ids = ids_from(0)}).id, 0u);
  EXPECT_EQ(bench.cache->find({.ids = ids_from(2)}).page, held[2]);
  EXPECT_EQ(bench.pool.acquire(), held[2]);
  EXPECT_EQ(bench.pool.acquire(), nullptr) << "all in use";
  EXPECT_EQ(bench.cache->find({.ids = ids_from(1)}).page, held[1]);
  // A page that was given up is an ordinary one, and its key may come back.
  bench.pool.release(held[0]);
  EXPECT_EQ(bench.pool.free_pages(), 1);
  EXPECT_NE(bench.cache->insert({.ids = ids_from(0)}, held[2]).id, pages[0].id) << "a new identity";
}

TEST(PrefixCache, ASequencesFirstPagesOutliveItsLast) {
  Bench bench(3);
  SequenceCache sequence(bench.pool);
  ASSERT_TRUE(sequence.reserve(3 * kPageTokens));
  const std::vector<std::byte*> pages(sequence.pages().begin(), sequence.pages().end());
  uint64_t before = 0;
  for (std::byte* page : pages) before = bench.cache->insert({.before = before, .ids = ids_from(0)}, page).id;
  sequence.clear();
  EXPECT_EQ(bench.pool.acquire(), pages[2]);
  EXPECT_EQ(bench.pool.acquire(), pages[1]);
  SequenceCache next(bench.pool);
  next.share(bench.cache->find({.ids = ids_from(0)}).page);
  EXPECT_EQ(next.pages()[0], pages[0]);
  EXPECT_EQ(bench.pool.acquire(), nullptr);
}

}  // namespace
}  // namespace lathe
