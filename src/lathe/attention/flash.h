// The attention core shared by absorbed MLA, MHA, GQA and MQA: flash decoding over cache pages with one canonical
// order. A (query, head) walks its keys in tiles of one page (64 positions) by online softmax; tiles are grouped in
// splits that start fresh and are combined left to right. Tiles and splits lie at absolute positions, so a result
// depends on the query, its head and its own context alone: not on the batch, the chunk, the pages or the threads.
#pragma once

#include <cstdint>
#include <span>

#include "lathe/attention/cache_view.h"
#include "lathe/kernels/linear.h"

namespace lathe {

// The first positions are split finely, so that one short sequence gives several threads work, the others coarsely.
inline constexpr int64_t kSplitTokens = 512;
inline constexpr int64_t kFirstSplitTokens = 128;
inline constexpr int64_t kFirstSplits = kSplitTokens / kFirstSplitTokens;

// First position of a split.
constexpr int64_t split_begin(int64_t split) {
  return split < kFirstSplits ? split * kFirstSplitTokens : (split - kFirstSplits + 1) * kSplitTokens;
}

// The split that a position lies in.
constexpr int64_t split_of(int64_t position) {
  return position < kSplitTokens ? position / kFirstSplitTokens : position / kSplitTokens + kFirstSplits - 1;
}

// Heads that share keys and values: `heads` query heads over one column range of the cache row. Absorbed MLA has one
// group of all heads; GQA has one group per kv head.
struct FlashGroup {
  int64_t first_head = 0;
  int64_t heads = 0;
  int64_t key_first = 0;  // columns of the cache row
  int64_t value_first = 0;
};

// All queries of a step. `segments` and `groups` are borrowed; out must not overlap q.
struct FlashProblem {
  std::span<const AttentionSegment> segments;
  std::span<const FlashGroup> groups;
  int64_t num_heads = 0;
  int64_t key_cols = 0;
  int64_t value_cols = 0;
  float scale = 1.0F;
  const float* q = nullptr;  // [T, num_heads, key_cols]
  float* out = nullptr;      // [T, num_heads, value_cols]
};

// softmax(q k^T * scale) v for every token and head, causal: position t sees positions first_key..t of its own
// sequence.
void flash_attention(const CpuContext& cpu, const FlashProblem& problem);

// Workspace floats that flash_attention takes.
int64_t flash_scratch_floats(int64_t key_cols, int64_t value_cols, int threads);

}  // namespace lathe
