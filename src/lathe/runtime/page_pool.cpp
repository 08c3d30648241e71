#include "lathe/runtime/page_pool.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "lathe/attention/cache_view.h"
#include "lathe/base/check.h"
#include "lathe/base/str.h"

namespace lathe {

int64_t pages_for(int64_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

Result<PagePool> PagePool::create(const CacheLayout& layout, int64_t pages) {
  PagePool pool;
  pool.layout_ = layout;
  size_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<size_t>(layout.page_bytes()), static_cast<size_t>(pages), &bytes)) {
    return Error{Errc::kResourceExhausted, str("cache of ", pages, " pages: size overflows")};
  }
  pool.memory_ = AnonymousMemory(bytes, AnonymousMemory::Commit::kOnUse);
  if (pool.memory_.data() == nullptr) {
    return Error{Errc::kResourceExhausted,
                 str("no memory for a cache of ", human_bytes(bytes), "; a smaller --ctx-size needs less")};
  }
  pool.references_.resize(static_cast<size_t>(pages));
  pool.kept_.resize(pool.references_.size());
  pool.unused_at_.resize(pool.references_.size());
  for (int64_t i = pages; i > 0; --i) pool.free_.push_back(static_cast<int32_t>(i - 1));
  return pool;
}

size_t PagePool::index_of(const std::byte* page) const {
  const auto offset = static_cast<size_t>(page - memory_.data());
  const auto page_bytes = static_cast<size_t>(layout_.page_bytes());
  LATHE_CHECK(offset % page_bytes == 0 && offset < memory_.size());
  return offset / page_bytes;
}

std::byte* PagePool::acquire() {
  if (free_.empty() && unused_.empty()) return nullptr;
  const auto index = static_cast<size_t>(free_.empty() ? unused_.front() : free_.back());
  std::byte* page = memory_.data() + index * static_cast<size_t>(layout_.page_bytes());
  if (!free_.empty()) {
    free_.pop_back();
  } else {
    unused_.pop_front();
    kept_[index] = false;
    if (forget_) forget_(page);
  }
  references_[index] = 1;
  return page;
}

void PagePool::retain(const std::byte* page) {
  const size_t index = index_of(page);
  LATHE_CHECK(references_[index] > 0 || kept_[index]);
  if (references_[index]++ == 0) unused_.erase(unused_at_[index]);
}

void PagePool::release(const std::byte* page) {
  const size_t index = index_of(page);
  LATHE_CHECK(references_[index] > 0);
  if (--references_[index] > 0) return;
  if (kept_[index]) {
    unused_at_[index] = unused_.insert(unused_.end(), static_cast<int32_t>(index));
  } else {
    free_.push_back(static_cast<int32_t>(index));
  }
}

void PagePool::keep(const std::byte* page) {
  const size_t index = index_of(page);
  LATHE_CHECK(references_[index] > 0);
  kept_[index] = true;
}

void PagePool::copy_rows(const std::byte* from, std::byte* to, int64_t rows) const {
  LATHE_CHECK(rows <= kPageTokens && references_[index_of(to)] == 1 && from != to);
  const int64_t bytes = rows * cache_row_bytes(layout_.format, layout_.row_elements);
  for (int64_t layer = 0; layer < layout_.layers; ++layer) {
    const int64_t offset = layer * layout_.layer_bytes();
    std::memcpy(to + offset, from + offset, static_cast<size_t>(bytes));
  }
}

bool SequenceCache::reserve(int64_t tokens) {
  while (static_cast<int64_t>(pages_.size()) < pages_for(tokens)) {
    std::byte* page = pool_->acquire();
    if (page == nullptr) return false;
    pages_.push_back(page);
  }
  return true;
}

void SequenceCache::share(std::byte* page) {
  pool_->retain(page);
  pages_.push_back(page);
}

void SequenceCache::share_instead(size_t index, std::byte* page) {
  pool_->retain(page);
  pool_->release(std::exchange(pages_[index], page));
}

void SequenceCache::clear() {
  // Last page first: of kept pages, those that the fewest others build on are given up first.
  for (; !pages_.empty(); pages_.pop_back()) pool_->release(pages_.back());
}

}  // namespace lathe
