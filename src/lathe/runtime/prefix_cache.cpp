#include "lathe/runtime/prefix_cache.h"

#include <algorithm>

#include "lathe/base/check.h"

namespace lathe {

namespace {

// A step of a keyed mixing function: every bit of `value` reaches the upper half of the product, which is folded down.
uint64_t mix(uint64_t state, uint64_t value) {
  state = (state ^ value) * 0x9E3779B97F4A7C15U;
  return state ^ (state >> 29U);
}

}  // namespace

PrefixCache::PrefixCache(PagePool& pool, uint64_t hash_key)
    : pool_(pool), hash_key_(hash_key), entries_(static_cast<size_t>(pool.pages())) {
  pool_.on_forget([this](const std::byte* page) { forget(page); });
}

uint64_t PrefixCache::place_hash_of(const PrefixKey& key) const {
  return mix(mix(mix(hash_key_, key.before), key.scope), key.expanded ? 1 : 0);
}

uint64_t PrefixCache::hash_of(const PrefixKey& key) const {
  uint64_t hash = place_hash_of(key);
  for (const int32_t id : key.ids) hash = mix(hash, static_cast<uint64_t>(static_cast<uint32_t>(id)) ^ hash_key_);
  return hash;
}

const PrefixCache::Entry* PrefixCache::lookup(const PrefixKey& key, uint64_t hash) const {
  LATHE_CHECK(key.ids.size() == static_cast<size_t>(kPageTokens));
  const auto [begin, end] = index_by_hash_.equal_range(hash);
  for (auto at = begin; at != end; ++at) {
    const Entry& entry = entries_[at->second];
    if (entry.in_place_of(key) && std::ranges::equal(entry.ids, key.ids)) return &entry;
  }
  return nullptr;
}

CachedPage PrefixCache::find(const PrefixKey& key) const {
  const Entry* entry = lookup(key, hash_of(key));
  return entry != nullptr ? CachedPage{entry->id, entry->page} : CachedPage{};
}

CachedRows PrefixCache::find_rows(const PrefixKey& key) const {
  LATHE_CHECK(key.ids.size() <= static_cast<size_t>(kPageTokens));
  CachedRows best;
  const auto [begin, end] = index_by_place_.equal_range(place_hash_of(key));
  for (auto at = begin; at != end; ++at) {
    const Entry& entry = entries_[at->second];
    if (!entry.in_place_of(key)) continue;
    const auto rows = std::ranges::mismatch(entry.ids, key.ids).in2 - key.ids.begin();
    if (rows > best.rows) best = {entry.page, rows};
  }
  return best;
}

CachedPage PrefixCache::insert(const PrefixKey& key, std::byte* page) {
  const uint64_t hash = hash_of(key);
  if (const Entry* found = lookup(key, hash); found != nullptr) return {found->id, found->page};
  const size_t index = pool_.index_of(page);
  Entry& entry = entries_[index];
  LATHE_CHECK(entry.id == 0);
  entry.id = next_id_++;
  entry.hash = hash;
  entry.place_hash = place_hash_of(key);
  entry.before = key.before;
  entry.scope = key.scope;
  entry.expanded = key.expanded;
  entry.page = page;
  std::ranges::copy(key.ids, entry.ids.begin());
  index_by_hash_.emplace(hash, index);
  index_by_place_.emplace(entry.place_hash, index);
  pool_.keep(page);
  return {entry.id, page};
}

void PrefixCache::erase_from(Index& index, uint64_t hash, const Entry& entry) const {
  const auto [begin, end] = index.equal_range(hash);
  const auto at = std::find_if(begin, end, [&](const auto& found) { return &entries_[found.second] == &entry; });
  LATHE_CHECK(at != end);
  index.erase(at);
}

void PrefixCache::forget(const std::byte* page) {
  Entry& entry = entries_[pool_.index_of(page)];
  erase_from(index_by_hash_, entry.hash, entry);
  erase_from(index_by_place_, entry.place_hash, entry);
  entry.id = 0;
}

}  // namespace lathe
