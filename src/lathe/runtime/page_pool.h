// PagePool: the cache's memory in pages of 64 positions, all layers together, one pool for every sequence and reference
// counted. Memory is reserved once and touched when used. A page may be kept after its last reference, for somebody who
// needs what it holds (PrefixCache): it is given up, the longest unused one first, when no page is free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "lathe/base/anonymous_memory.h"
#include "lathe/base/result.h"
#include "lathe/model/backend.h"

namespace lathe {

class PagePool {
 public:
  // Fails with kResourceExhausted when the address space or memory limit does not allow it.
  static Result<PagePool> create(const CacheLayout& layout, int64_t pages);
  PagePool(PagePool&&) noexcept = default;
  PagePool& operator=(PagePool&&) = delete;

  // A page with one reference, or nullptr when all are in use. Content is undefined. When none is free, the page that
  // was kept without a reference for longest is given up for it.
  std::byte* acquire();
  void retain(const std::byte* page);   // one with a reference, or kept without
  void release(const std::byte* page);  // the last reference frees it, or leaves it kept
  // The content of a page with a reference is worth keeping. `forget` is called when it is given up.
  void keep(const std::byte* page);

  void on_forget(std::function<void(const std::byte*)> forget) { forget_ = std::move(forget); }

  const CacheLayout& layout() const { return layout_; }

  int64_t pages() const { return static_cast<int64_t>(references_.size()); }

  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }

  // Kept pages without a reference.
  int64_t kept_pages() const { return static_cast<int64_t>(unused_.size()); }

  // The first `rows` positions of a page with a reference become those of `from`, in every layer.
  void copy_rows(const std::byte* from, std::byte* to, int64_t rows) const;

  // 0 to pages() - 1, for tables beside the pool.
  size_t index_of(const std::byte* page) const;

 private:
  PagePool() = default;

  CacheLayout layout_;
  AnonymousMemory memory_;
  std::vector<int32_t> references_;
  std::vector<int32_t> free_;  // indices, used from the back
  std::vector<bool> kept_;
  std::list<int32_t> unused_;  // kept pages without a reference, the longest unused first
  std::vector<std::list<int32_t>::iterator> unused_at_;
  std::function<void(const std::byte*)> forget_;
};

// The pages of one sequence, released with it. `pool` must outlive it.
class SequenceCache {
 public:
  explicit SequenceCache(PagePool& pool) : pool_(&pool) {}

  SequenceCache(SequenceCache&& other) noexcept : pool_(other.pool_), pages_(std::move(other.pages_)) {
    other.pages_.clear();
  }

  SequenceCache& operator=(SequenceCache&&) = delete;
  SequenceCache(const SequenceCache&) = delete;

  ~SequenceCache() { clear(); }

  // Makes room for `tokens` positions. False when the pool is exhausted; pages taken so far are kept.
  bool reserve(int64_t tokens);
  // Adds a page that others may use too, or puts it in the place of page `index`.
  void share(std::byte* page);
  void share_instead(size_t index, std::byte* page);
  void clear();

  std::span<std::byte* const> pages() const { return pages_; }

 private:
  PagePool* pool_;
  std::vector<std::byte*> pages_;
};

// Pages that `tokens` positions take.
int64_t pages_for(int64_t tokens);

}  // namespace lathe
