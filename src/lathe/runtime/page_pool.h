// PagePool: the memory of all caches, in pages of 64 positions over all layers, shared by every sequence and reference
// counted. Memory is reserved once and touched when used.
#pragma once

#include <cstddef>
#include <cstdint>
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

  // A page with one reference, or nullptr when all are in use. Content is undefined.
  std::byte* acquire();
  void retain(const std::byte* page);
  void release(const std::byte* page);  // the last reference frees it

  const CacheLayout& layout() const { return layout_; }

  int64_t pages() const { return static_cast<int64_t>(references_.size()); }

  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }

 private:
  PagePool() = default;
  size_t index_of(const std::byte* page) const;

  CacheLayout layout_;
  AnonymousMemory memory_;
  std::vector<int32_t> references_;
  std::vector<int32_t> free_;  // indices, used from the back
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
  void clear();

  std::span<std::byte* const> pages() const { return pages_; }

 private:
  PagePool* pool_;
  std::vector<std::byte*> pages_;
};

// Pages that `tokens` positions take.
int64_t pages_for(int64_t tokens);

}  // namespace lathe
