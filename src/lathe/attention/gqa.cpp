// Shape letters: T packed tokens, H query heads, G key/value heads, D hidden, N head dim.
#include "lathe/attention/gqa.h"

#include <algorithm>
#include <array>

#include "lathe/attention/flash.h"

namespace lathe {

int64_t gqa_scratch_floats(const GqaShape& s, int64_t tokens, int threads) {
  return 2 * Workspace::padded(tokens * s.num_heads * s.head_dim) + Workspace::padded(tokens * s.cache_row()) +
         Workspace::padded(s.num_key_value_heads * static_cast<int64_t>(sizeof(FlashGroup)) / 4) +
         std::max({flash_scratch_floats(s.head_dim, s.head_dim, threads),
                   quantised_floats(tokens, s.hidden_size),
                   quantised_floats(tokens, s.num_heads * s.head_dim)});
}

void gqa_attention(const CpuContext& cpu, const GqaArgs& a) {
  const GqaShape& s = a.shape;
  const GqaWeights& w = a.weights;
  const Workspace::Scope scope(cpu.workspace);
  float* q_THN = cpu.workspace.take(a.tokens * s.num_heads * s.head_dim);
  float* out_THN = cpu.workspace.take(a.tokens * s.num_heads * s.head_dim);
  float* kv_TGN = cpu.workspace.take(a.tokens * s.cache_row());  // [k heads | v heads] per token, as cached
  const int64_t kv_width = s.num_key_value_heads * s.head_dim;

  // Eq. 1-3 in one parallel region.
  const std::array<LinearOutput, 3> outputs{LinearOutput{w.q_proj, q_THN, s.num_heads * s.head_dim},
                                            LinearOutput{w.k_proj, kv_TGN, s.cache_row()},
                                            LinearOutput{w.v_proj, kv_TGN + kv_width, s.cache_row()}};
  run_linear(cpu, a.x, a.tokens, outputs);
  add_bias(cpu, w.q_proj_bias, q_THN, a.tokens, s.num_heads * s.head_dim);

  const int64_t pairs = s.head_dim / 2;
  const auto rope = s.rope_interleaved ? cpu.kernels.rope_interleaved : cpu.kernels.rope_half_split;
  for (const AttentionSegment& segment : a.segments) {
    cpu.pool.run(segment.tokens, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t t = segment.first_row + i;
        float* row = kv_TGN + t * s.cache_row();
        if (w.k_proj_bias != nullptr) cpu.kernels.add(row, w.k_proj_bias, kv_width);
        if (w.v_proj_bias != nullptr) cpu.kernels.add(row + kv_width, w.v_proj_bias, kv_width);
        for (int64_t h = 0; h < s.num_heads; ++h) {
          rope(q_THN + (t * s.num_heads + h) * s.head_dim, a.rope_cos + t * pairs, a.rope_sin + t * pairs, pairs);
        }
        for (int64_t g = 0; g < s.num_key_value_heads; ++g) {
          rope(row + g * s.head_dim, a.rope_cos + t * pairs, a.rope_sin + t * pairs, pairs);
        }
        segment.cache.store(cpu.kernels, segment.position + i, row);
      }
    });
  }

  // Eq. 7: query head i uses key/value head floor(i / (H / n_kv)).
  auto* groups = cpu.workspace.take_as<FlashGroup>(s.num_key_value_heads);
  const int64_t heads_per_group = s.num_heads / s.num_key_value_heads;
  for (int64_t g = 0; g < s.num_key_value_heads; ++g) {
    groups[g] = {.first_head = g * heads_per_group,
                 .heads = heads_per_group,
                 .key_first = g * s.head_dim,
                 .value_first = kv_width + g * s.head_dim};
  }
  flash_attention(cpu,
                  {.segments = a.segments,
                   .groups = {groups, static_cast<size_t>(s.num_key_value_heads)},
                   .num_heads = s.num_heads,
                   .key_cols = s.head_dim,
                   .value_cols = s.head_dim,
                   .scale = s.softmax_scale,
                   .q = q_THN,
                   .out = out_THN});
  linear(cpu, w.o_proj, w.o_proj_bias, out_THN, a.tokens, a.out);  // Eq. 8
}

}  // namespace lathe
