// The expanded form of MLA for the tokens of one segment: keys and values of 64 positions at a time are rebuilt from
// the cached latents (Eq. 10-11), used by all queries of the segment, and forgotten. Internal to attention/mla.cpp.
#pragma once

#include "lathe/attention/mla.h"

namespace lathe {

// q_THK: rotated queries of the whole batch [T, H, d_h + d_h^R]; out_THV: [T, H, d_v], rows of the segment are written.
void mla_expanded(
    const CpuContext& cpu, const MlaArgs& args, const AttentionSegment& segment, const float* q_THK, float* out_THV);

// Workspace floats that mla_expanded takes for segments of at most `tokens` tokens.
int64_t mla_expanded_scratch_floats(const MlaShape& shape, int64_t tokens, int threads);

}  // namespace lathe
