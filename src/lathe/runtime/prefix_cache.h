// PrefixCache: full pages of computed tokens by what decides their bits, so that requests which begin alike share them.
// The rows of a page follow from the model, from every token up to its end, and from the form of MLA that each of these
// was computed in (the form changes the attention's rounding, and with it the rows of all layers but the first). Forms
// change at multiples of four pages only, so a page has one. A page is therefore named by the page before it, its 64
// token ids and its form. The page before is compared by identity and the ids one by one; the hash only finds the
// candidates, so no collision can give a request somebody else's rows. The same holds for a page's first rows: a
// request that leaves a known page in its middle can copy those that it shares.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "lathe/attention/cache_view.h"
#include "lathe/runtime/page_pool.h"

namespace lathe {

// What decides the rows of a page.
struct PrefixKey {
  uint64_t before = 0;           // CachedPage::id of the page before; 0: the first one
  uint64_t scope = 0;            // pages are shared within a scope only
  bool expanded = false;         // form of MLA
  std::span<const int32_t> ids;  // kPageTokens of them; fewer where only a page's first rows are looked for
};

struct CachedPage {
  uint64_t id = 0;  // never used twice; 0: none
  std::byte* page = nullptr;
};

// The first rows of a page.
struct CachedRows {
  const std::byte* page = nullptr;
  int64_t rows = 0;  // 0: none
};

class PrefixCache {
 public:
  // `pool` must outlive the cache and tells it which pages it gives up. `hash_key` (random) keeps those who choose the
  // tokens from choosing the hash.
  PrefixCache(PagePool& pool, uint64_t hash_key);
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  ~PrefixCache() { pool_.on_forget({}); }

  // The page with these rows; id 0 when there is none. It lives as long as somebody holds a reference: take one at
  // once.
  CachedPage find(const PrefixKey& key) const;
  // The page in key's place whose first ids agree with most of key's, and with how many. To be copied at once.
  CachedRows find_rows(const PrefixKey& key) const;
  // Makes the rows of `page` (all 64 final, a reference held) findable and returns it; where the same rows are there
  // already, returns that page, to be used instead.
  CachedPage insert(const PrefixKey& key, std::byte* page);

 private:
  struct Entry {
    uint64_t id = 0;  // 0: the page is not in the cache
    uint64_t hash = 0;
    uint64_t place_hash = 0;
    uint64_t before = 0;
    uint64_t scope = 0;
    bool expanded = false;
    std::byte* page = nullptr;
    std::array<int32_t, kPageTokens> ids{};

    bool in_place_of(const PrefixKey& key) const {
      return before == key.before && scope == key.scope && expanded == key.expanded;
    }
  };

  using Index = std::unordered_multimap<uint64_t, size_t>;  // hash -> index of the page in the pool

  uint64_t place_hash_of(const PrefixKey& key) const;  // of all but the ids
  uint64_t hash_of(const PrefixKey& key) const;
  void erase_from(Index& index, uint64_t hash, const Entry& entry) const;
  const Entry* lookup(const PrefixKey& key, uint64_t hash) const;
  void forget(const std::byte* page);

  PagePool& pool_;
  uint64_t hash_key_;
  uint64_t next_id_ = 1;
  std::vector<Entry> entries_;  // by index of the page in the pool
  Index index_by_hash_;
  Index index_by_place_;
};

}  // namespace lathe
