// The expanded form of MLA: keys and values of 64 positions at a time are rebuilt from the cached latents (Eq. 10-11),
// used by all queries of the segment, and of the segments beside it whose caches begin with the same pages, and
// forgotten. Internal to attention/mla.cpp.
#pragma once

#include <span>

#include "lathe/attention/mla.h"

namespace lathe {

inline constexpr int64_t kExpandedSegments = 64;  // most of a call

// q_THK: rotated queries of the whole batch [T, H, d_h + d_h^R]; out_THV: [T, H, d_v], rows of the segments, in row
// order, are written.
void mla_expanded(const CpuContext& cpu,
                  const MlaArgs& args,
                  std::span<const AttentionSegment> segments,
                  const float* q_THK,
                  float* out_THV);

// Workspace floats that mla_expanded takes for batches of at most `tokens` tokens.
int64_t mla_expanded_scratch_floats(const MlaShape& shape, int64_t tokens, int threads);

}  // namespace lathe
