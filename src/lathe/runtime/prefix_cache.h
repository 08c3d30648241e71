// PrefixCache: full pages of computed tokens by what decides their bits, so that requests which begin alike share them.
// The rows of a page follow from the model, from every token up to its end, and from the form of MLA that each of these
// was computed in (the form changes the attention's rounding, and with it the rows of all layers but the first). Forms
// change at multiples of four pages only, so a page has one. A page is therefore named by the page before it, its 64
// token ids and its form. The page before is compared by identity and the ids one by one; the hash only finds the
// candidates, so no collision can give a request somebody else's rows.
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
  std::span<const int32_t> ids;  // kPageTokens of them
};

struct CachedPage {
  uint64_t id = 0;  // never used twice; 0: none
  std::byte* page = nullptr;
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
  // Makes the rows of `page` (all 64 final, a reference held) findable and returns it; where the same rows are there
  // already, returns that page, to be used instead.
  CachedPage insert(const PrefixKey& key, std::byte* page);

 private:
  struct Entry {
    uint64_t id = 0;  // 0: the page is not in the cache
    uint64_t hash = 0;
    uint64_t before = 0;
    uint64_t scope = 0;
    bool expanded = false;
    std::byte* page = nullptr;
    std::array<int32_t, kPageTokens> ids{};
  };

  uint64_t hash_of(const PrefixKey& key) const;
  const Entry* lookup(const PrefixKey& key, uint64_t hash) const;
  void forget(const std::byte* page);

  PagePool& pool_;
  uint64_t hash_key_;
  uint64_t next_id_ = 1;
  std::vector<Entry> entries_;                               // by index of the page in the pool
  std::unordered_multimap<uint64_t, size_t> index_by_hash_;  // hash -> index
};

}  // namespace lathe
