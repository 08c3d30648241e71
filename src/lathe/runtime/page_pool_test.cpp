// The page pool and sequence caches as state machines against a model that is a plain map.
#include "lathe/runtime/page_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "lathe/base/rng.h"

namespace lathe {
namespace {

using ::testing::HasSubstr;

constexpr CacheLayout kLayout{.format = CacheFormat::kF16, .row_elements = 3, .layers = 2};

TEST(PagesFor, RoundsUp) {
  EXPECT_EQ(pages_for(0), 0);
  EXPECT_EQ(pages_for(1), 1);
  EXPECT_EQ(pages_for(64), 1);
  EXPECT_EQ(pages_for(65), 2);
}

TEST(PagePool, PagesAreDistinctAndWritableToTheLastByte) {
  Result<PagePool> pool = PagePool::create(kLayout, 7);
  ASSERT_TRUE(pool.has_value());
  EXPECT_EQ(pool->pages(), 7);
  EXPECT_EQ(pool->free_pages(), 7);
  const auto bytes = static_cast<size_t>(kLayout.page_bytes());
  EXPECT_EQ(bytes, 2u * 64u * 3u * 2u);
  std::vector<std::byte*> pages;
  for (int i = 0; i < 7; ++i) {
    pages.push_back(pool->acquire());
    ASSERT_NE(pages.back(), nullptr);
    std::memset(pages.back(), i + 1, bytes);
  }
  EXPECT_EQ(pool->acquire(), nullptr);
  for (int i = 0; i < 7; ++i) {
    for (size_t b = 0; b < bytes; ++b) ASSERT_EQ(std::to_integer<int>(pages[static_cast<size_t>(i)][b]), i + 1);
    pool->release(pages[static_cast<size_t>(i)]);
  }
  EXPECT_EQ(pool->free_pages(), 7);
}

TEST(PagePool, MovingKeepsPagesWhereTheyAre) {
  Result<PagePool> made = PagePool::create(kLayout, 2);
  std::byte* page = made->acquire();
  page[0] = std::byte{42};
  PagePool pool = std::move(*made);
  EXPECT_EQ(pool.free_pages(), 1);
  EXPECT_EQ(std::to_integer<int>(page[0]), 42);
  pool.release(page);
  EXPECT_EQ(pool.free_pages(), 2);
}

TEST(PagePool, SizesThatCannotBeAreErrors) {
  const Result<PagePool> overflow = PagePool::create(kLayout, std::numeric_limits<int64_t>::max() / 2);
  ASSERT_FALSE(overflow.has_value());
  EXPECT_EQ(overflow.error().code, Errc::kResourceExhausted);
  EXPECT_THAT(overflow.error().message, HasSubstr("pages: size overflows"));
  const Result<PagePool> huge = PagePool::create(kLayout, int64_t{1} << 52);
  ASSERT_FALSE(huge.has_value());
  EXPECT_EQ(huge.error().code, Errc::kResourceExhausted);
  EXPECT_THAT(huge.error().message, HasSubstr("no memory for a cache of "));
  EXPECT_THAT(huge.error().message, HasSubstr("a smaller --ctx-size needs less"));
}

// Random acquire, retain and release against reference counts kept here.
TEST(PagePool, ReferenceCountsFollowTheModel) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    const int64_t total = rng.next_int(1, 12);
    Result<PagePool> pool = PagePool::create(kLayout, total);
    std::map<std::byte*, int> model;  // live pages -> references
    for (int step = 0; step < 500; ++step) {
      const int64_t action = rng.next_int(0, 2);
      if (action == 0) {
        std::byte* page = pool->acquire();
        ASSERT_EQ(page == nullptr, static_cast<int64_t>(model.size()) == total);
        if (page == nullptr) continue;
        const bool is_new = model.emplace(page, 1).second;
        ASSERT_TRUE(is_new) << "a page in use was given out again";
      } else if (!model.empty()) {
        auto at = model.begin();
        std::advance(at, rng.next_int(0, static_cast<int64_t>(model.size()) - 1));
        if (action == 1) {
          pool->retain(at->first);
          ++at->second;
        } else {
          pool->release(at->first);
          if (--at->second == 0) model.erase(at);
        }
      }
      ASSERT_EQ(pool->free_pages(), total - static_cast<int64_t>(model.size()));
    }
  }
}

TEST(PagePoolDeathTest, ForeignAndFreePagesAreBugs) {
  Result<PagePool> pool = PagePool::create(kLayout, 2);
  std::byte* page = pool->acquire();
  EXPECT_DEATH(pool->release(page + 1), "");
  pool->release(page);
  EXPECT_DEATH(pool->release(page), "");
  EXPECT_DEATH(pool->retain(page), "");
}

TEST(SequenceCache, ReservesGrowsAndReleasesWithTheObject) {
  Result<PagePool> pool = PagePool::create(kLayout, 4);
  {
    SequenceCache first(*pool);
    EXPECT_TRUE(first.reserve(0));
    EXPECT_EQ(first.pages().size(), 0u);
    EXPECT_TRUE(first.reserve(65));
    ASSERT_EQ(first.pages().size(), 2u);
    std::byte* const page = first.pages()[0];
    EXPECT_TRUE(first.reserve(64)) << "never gives back";
    EXPECT_EQ(first.pages().size(), 2u);
    EXPECT_TRUE(first.reserve(129));
    EXPECT_EQ(first.pages()[0], page) << "pages stay as the sequence grows";

    SequenceCache second(*pool);
    EXPECT_FALSE(second.reserve(65)) << "one page is left";
    EXPECT_EQ(second.pages().size(), 1u);
    second.clear();
    EXPECT_EQ(pool->free_pages(), 1);

    SequenceCache moved(std::move(first));
    EXPECT_EQ(moved.pages().size(), 3u);
    EXPECT_EQ(pool->free_pages(), 1);
  }
  EXPECT_EQ(pool->free_pages(), 4);
}

// Many sequences that grow and end at random never share a page and never lose one.
TEST(SequenceCache, SequencesNeverShareAPage) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    Result<PagePool> pool = PagePool::create(kLayout, 16);
    std::vector<std::unique_ptr<SequenceCache>> sequences;
    for (int step = 0; step < 300; ++step) {
      const int64_t which = rng.next_int(0, 5);
      if (which >= static_cast<int64_t>(sequences.size())) {
        sequences.push_back(std::make_unique<SequenceCache>(*pool));
      } else if (rng.next_int(0, 3) == 0) {
        sequences.erase(sequences.begin() + which);
      } else {
        const int64_t wanted = rng.next_int(0, 400);
        SequenceCache& sequence = *sequences[static_cast<size_t>(which)];
        const auto had = static_cast<int64_t>(sequence.pages().size());
        const int64_t free = pool->free_pages();
        ASSERT_EQ(sequence.reserve(wanted), pages_for(wanted) <= had + free);
      }
      std::set<const std::byte*> used;
      size_t held = 0;
      for (const auto& sequence : sequences) {
        used.insert(sequence->pages().begin(), sequence->pages().end());
        held += sequence->pages().size();
      }
      ASSERT_EQ(used.size(), held);
      ASSERT_EQ(pool->free_pages(), 16 - static_cast<int64_t>(held));
    }
  }
}

}  // namespace
}  // namespace lathe
