// PagedCache: cache pages of one sequence for attention tests, and the plain double-precision attention over them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lathe/attention/flash.h"
#include "lathe/base/rng.h"
#include "support/cpu.h"

namespace lathe::testing {

// Pages lie in memory in a shuffled order, each with another layer's rows in front. Rows that nobody wrote are NaN, so
// that reading one shows in the result.
class PagedCache {
 public:
  PagedCache(CacheFormat format, int64_t row_elements, int64_t tokens, uint64_t shuffle_seed)
      : format_(format), row_elements_(row_elements) {
    const int64_t pages = (tokens + kPageTokens - 1) / kPageTokens;
    const int64_t layer = kPageTokens * cache_row_bytes(format, row_elements);
    memory_.assign(static_cast<size_t>(2 * layer * pages), std::byte{0xff});
    layer_offset_ = layer;
    for (int64_t i = 0; i < pages; ++i) pages_.push_back(memory_.data() + 2 * layer * i);
    Rng rng(shuffle_seed);
    for (size_t i = pages_.size(); i > 1; --i) {
      std::swap(pages_[i - 1], pages_[static_cast<size_t>(rng.next_int(0, static_cast<int64_t>(i) - 1))]);
    }
  }

  CacheView view() const {
    return {.format = format_, .row_elements = row_elements_, .pages = pages_, .layer_offset = layer_offset_};
  }

  // Rounds `values` [row_elements] to the cache's type.
  void store(int64_t position, const float* values) { view().store(lathe::kernels(), position, values); }

  // The row as it is stored.
  std::vector<float> load(int64_t position) const { return load_row(view(), position); }

  static std::vector<float> load_row(const CacheView& cache, int64_t position) {
    std::vector<float> row(static_cast<size_t>(cache.row_elements));
    cache.load(lathe::kernels(), position, 0, cache.row_elements, row.data());
    return row;
  }

 private:
  CacheFormat format_;
  int64_t row_elements_;
  int64_t layer_offset_ = 0;
  std::vector<std::byte> memory_;
  std::vector<std::byte*> pages_;
};

struct NaiveAttention {
  std::vector<float> out;   // [T, heads, value_cols]
  std::vector<double> lse;  // [T, heads]: log of the sum of exp(score)
};

// softmax(q k^T scale) v in double, one score after the other, whatever flash_attention does to be fast.
inline NaiveAttention naive_attention(const FlashProblem& p, int64_t tokens) {
  NaiveAttention result{std::vector<float>(static_cast<size_t>(tokens * p.num_heads * p.value_cols)),
                        std::vector<double>(static_cast<size_t>(tokens * p.num_heads))};
  // Keys [begin, end).
  const auto one = [&](const FlashGroup& group,
                       const std::vector<std::vector<float>>& rows,
                       int64_t at,
                       int64_t begin,
                       int64_t end) {
    const float* q = p.q + at * p.key_cols;
    std::vector<double> scores;
    for (int64_t j = begin; j < end; ++j) {
      double score = 0.0;
      for (int64_t c = 0; c < p.key_cols; ++c) {
        score += static_cast<double>(q[c]) * rows[static_cast<size_t>(j)][static_cast<size_t>(group.key_first + c)];
      }
      scores.push_back(score * p.scale);
    }
    const double largest = *std::ranges::max_element(scores);
    double sum = 0.0;
    for (double& score : scores) sum += score = std::exp(score - largest);
    result.lse[static_cast<size_t>(at)] = largest + std::log(sum);
    for (int64_t c = 0; c < p.value_cols; ++c) {
      double value = 0.0;
      for (int64_t j = begin; j < end; ++j) {
        value += scores[static_cast<size_t>(j - begin)] / sum *
                 rows[static_cast<size_t>(j)][static_cast<size_t>(group.value_first + c)];
      }
      result.out[static_cast<size_t>(at * p.value_cols + c)] = static_cast<float>(value);
    }
  };
  for (const AttentionSegment& segment : p.segments) {
    std::vector<std::vector<float>> rows;
    for (int64_t j = 0; j < segment.position + segment.tokens; ++j) {
      rows.push_back(PagedCache::load_row(segment.cache, j));
    }
    for (int64_t t = 0; t < segment.tokens; ++t) {
      for (const FlashGroup& group : p.groups) {
        for (int64_t h = 0; h < group.heads; ++h) {
          const int64_t at = (segment.first_row + t) * p.num_heads + group.first_head + h;
          one(group, rows, at, segment.first_key, segment.position + t + 1);
        }
      }
    }
  }
  return result;
}

}  // namespace lathe::testing
