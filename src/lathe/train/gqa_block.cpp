// H heads of d_h, n_kv key heads; head i reads key head i / (H / n_kv).
#include <algorithm>

#include "lathe/train/attention_parts.h"

namespace lathe {

AttentionShape GqaBlock::core() const {
  return {.heads = shape_.num_heads,
          .group = shape_.num_heads / shape_.num_key_value_heads,
          .own_dim = shape_.head_dim,
          .shared_dim = 0,
          .v_dim = shape_.head_dim,
          .scale = shape_.softmax_scale};
}

void GqaBlock::take_kept(TrainArena& arena, int64_t tokens, KeptAttention& out) const {
  out.out = arena.take(tokens * shape_.num_heads * shape_.head_dim);
  out.lse = arena.take(tokens * shape_.num_heads);
}

void GqaBlock::take_recomputed(TrainArena& arena, int64_t tokens, KeptAttention& out) const {
  out.q = arena.take(tokens * shape_.num_heads * shape_.head_dim);
  out.kv = arena.take(tokens * shape_.num_key_value_heads * shape_.head_dim);
  out.v = arena.take(tokens * shape_.num_key_value_heads * shape_.head_dim);
}

void GqaBlock::take_work(TrainArena& arena, int64_t tokens, int threads, AttentionWork& out) const {
  const int64_t q_width = shape_.num_heads * shape_.head_dim;
  const int64_t kv_width = shape_.num_key_value_heads * shape_.head_dim;
  out.dout = arena.take(tokens * q_width);
  out.dq = arena.take(tokens * q_width);
  out.dkv = arena.take(tokens * q_width);
  out.dv = arena.take(tokens * q_width);
  out.dkv_a = arena.take(tokens * kv_width);
  out.dlatent = arena.take(tokens * kv_width);
  out.partials = arena.take(column_sum_floats(tokens, std::max(shape_.hidden_size, q_width)));
  out.scratch_floats = attention_scratch_floats(core(), tokens);
  out.scratch = arena.take(threads * out.scratch_floats);
}

AttentionTask GqaBlock::task(const AttentionPass& pass) const {
  const KeptAttention& kept = pass.kept;
  const int64_t row = shape_.num_key_value_heads * shape_.head_dim;
  return {.shape = core(),
          .rows = {.q = kept.q,
                   .k = kept.kv,
                   .k_row = row,
                   .k_head = shape_.head_dim,
                   .v = kept.v,
                   .v_row = row,
                   .v_head = shape_.head_dim},
          .documents = pass.batch.documents,
          .tokens = pass.batch.tokens,
          .scratch = pass.work.scratch,
          .scratch_floats = pass.work.scratch_floats};
}

// Eq. 1-6, rotated.
void GqaBlock::project(const AttentionPass& pass) const {
  const auto& [c, batch, p, kept, work, h] = pass;
  const GqaShape& s = shape_;
  const int64_t q_width = s.num_heads * s.head_dim;
  const int64_t kv_width = s.num_key_value_heads * s.head_dim;
  project_forward(c, {batch.tokens, s.hidden_size, q_width}, h, p.q_proj, p.q_proj_bias, kept.q);
  project_forward(c, {batch.tokens, s.hidden_size, kv_width}, h, p.k_proj, p.k_proj_bias, kept.kv);
  project_forward(c, {batch.tokens, s.hidden_size, kv_width}, h, p.v_proj, p.v_proj_bias, kept.v);
  rotate(
      c,
      batch,
      {.x = kept.q, .row = q_width, .heads = s.num_heads, .head_step = s.head_dim, .interleaved = s.rope_interleaved});
  rotate(c,
         batch,
         {.x = kept.kv,
          .row = kv_width,
          .heads = s.num_key_value_heads,
          .head_step = s.head_dim,
          .interleaved = s.rope_interleaved});
}

void GqaBlock::forward(const AttentionPass& pass, float* out) const {
  const auto& [c, batch, p, kept, work, h] = pass;
  project(pass);
  attention_forward(c, task(pass), kept.out, kept.lse);  // Eq. 7
  const LinearSize size{batch.tokens, shape_.num_heads * shape_.head_dim, shape_.hidden_size};
  project_forward(c, size, kept.out, p.o_proj, p.o_proj_bias, out);  // Eq. 8
}

void GqaBlock::backward(const AttentionPass& pass, const float* dout, float* dh) const {
  const auto& [c, batch, p, kept, work, h] = pass;
  const GqaShape& s = shape_;
  const int64_t T = batch.tokens;
  const int64_t q_width = s.num_heads * s.head_dim;
  const int64_t kv_width = s.num_key_value_heads * s.head_dim;
  if (!kept.kept) project(pass);
  project_backward(
      c,
      {.size = {T, q_width, s.hidden_size}, .x = kept.out, .dy = dout, .dx = work.dout, .partials = work.partials},
      p.o_proj,
      p.o_proj_bias);
  attention_backward(c,
                     task(pass),
                     {.out = kept.out,
                      .lse = kept.lse,
                      .dout = work.dout,
                      .dq = work.dq,
                      .dk = work.dkv,
                      .dk_row = q_width,
                      .dk_head = s.head_dim,
                      .dv = work.dv,
                      .dv_row = q_width,
                      .dv_head = s.head_dim});
  // A key head's gradient is the sum over the heads that read it.
  const int64_t group = s.num_heads / s.num_key_value_heads;
  for (int64_t g = 0; g < s.num_key_value_heads; ++g) {
    sum_group(
        c, work.dkv + g * group * s.head_dim, {T, q_width, group, s.head_dim}, work.dkv_a + g * s.head_dim, kv_width);
    sum_group(
        c, work.dv + g * group * s.head_dim, {T, q_width, group, s.head_dim}, work.dlatent + g * s.head_dim, kv_width);
  }
  rotate(c,
         batch,
         {.x = work.dq,
          .row = q_width,
          .heads = s.num_heads,
          .head_step = s.head_dim,
          .interleaved = s.rope_interleaved,
          .back = true});
  rotate(c,
         batch,
         {.x = work.dkv_a,
          .row = kv_width,
          .heads = s.num_key_value_heads,
          .head_step = s.head_dim,
          .interleaved = s.rope_interleaved,
          .back = true});
  project_backward(c,
                   {.size = {T, s.hidden_size, q_width}, .x = h, .dy = work.dq, .dx = dh, .partials = work.partials},
                   p.q_proj,
                   p.q_proj_bias);
  project_backward(c,
                   {.size = {T, s.hidden_size, kv_width},
                    .x = h,
                    .dy = work.dkv_a,
                    .dx = dh,
                    .sum = Sum::kAdd,
                    .partials = work.partials},
                   p.k_proj,
                   p.k_proj_bias);
  project_backward(c,
                   {.size = {T, s.hidden_size, kv_width},
                    .x = h,
                    .dy = work.dlatent,
                    .dx = dh,
                    .sum = Sum::kAdd,
                    .partials = work.partials},
                   p.v_proj,
                   p.v_proj_bias);
}

}  // namespace lathe
