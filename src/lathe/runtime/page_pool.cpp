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
  if (free_.empty()) return nullptr;
  const auto index = static_cast<size_t>(free_.back());
  free_.pop_back();
  references_[index] = 1;
  return memory_.data() + index * static_cast<size_t>(layout_.page_bytes());
}

void PagePool::retain(const std::byte* page) {
  int32_t& count = references_[index_of(page)];
  LATHE_CHECK(count > 0);
  ++count;
}

void PagePool::release(const std::byte* page) {
  const size_t index = index_of(page);
  LATHE_CHECK(references_[index] > 0);
  if (--references_[index] == 0) free_.push_back(static_cast<int32_t>(index));
}

bool SequenceCache::reserve(int64_t tokens) {
  while (static_cast<int64_t>(pages_.size()) < pages_for(tokens)) {
    std::byte* page = pool_->acquire();
    if (page == nullptr) return false;
    pages_.push_back(page);
  }
  return true;
}

void SequenceCache::clear() {
  for (const std::byte* page : pages_) pool_->release(page);
  pages_.clear();
}

}  // namespace lathe
