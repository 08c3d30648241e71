// Equation numbers are those of the paper's Appendix C. H heads, qk = d_h + d_h^R, v = d_v, r = d_c, r_q = d'_c.
#include <algorithm>

#include "lathe/train/attention_parts.h"

namespace lathe {

AttentionShape MlaBlock::core() const {
  return {.heads = shape_.num_heads,
          .group = 1,
          .own_dim = shape_.qk_nope_head_dim,
          .shared_dim = shape_.qk_rope_head_dim,
          .v_dim = shape_.v_head_dim,
          .scale = shape_.softmax_scale};
}

void MlaBlock::take_kept(TrainArena& arena, int64_t tokens, KeptAttention& out) const {
  out.q_a = arena.take(tokens * shape_.q_lora_rank);
  out.kv_a = arena.take(tokens * shape_.cache_row());
  out.out = arena.take(tokens * shape_.num_heads * shape_.v_head_dim);
  out.lse = arena.take(tokens * shape_.num_heads);
}

void MlaBlock::take_recomputed(TrainArena& arena, int64_t tokens, KeptAttention& out) const {
  out.c_q = arena.take(tokens * shape_.q_lora_rank);
  out.c_kv = arena.take(tokens * shape_.kv_lora_rank);
  out.q = arena.take(tokens * shape_.num_heads * shape_.qk_head_dim());
  out.kv = arena.take(tokens * shape_.num_heads * (shape_.qk_nope_head_dim + shape_.v_head_dim));
}

void MlaBlock::take_work(TrainArena& arena, int64_t tokens, int threads, AttentionWork& out) const {
  const int64_t H = shape_.num_heads;
  const int64_t latent = std::max(shape_.kv_lora_rank, shape_.q_lora_rank);
  out.dout = arena.take(tokens * H * shape_.v_head_dim);
  out.dq = arena.take(tokens * H * shape_.qk_head_dim());
  out.dkv = arena.take(tokens * H * (shape_.qk_nope_head_dim + shape_.v_head_dim));
  out.dk_rope = arena.take(tokens * H * shape_.qk_rope_head_dim);
  out.dkv_a = arena.take(tokens * shape_.cache_row());
  out.dlatent = arena.take(tokens * latent);
  out.dq_a = arena.take(tokens * shape_.q_lora_rank);
  const int64_t widest = std::max({shape_.hidden_size, H * shape_.qk_head_dim(), shape_.cache_row(), latent});
  out.partials = arena.take(column_sum_floats(tokens, widest));
  out.scratch_floats = attention_scratch_floats(core(), tokens);
  out.scratch = arena.take(threads * out.scratch_floats);
}

AttentionTask MlaBlock::task(const AttentionPass& pass) const {
  const KeptAttention& kept = pass.kept;
  const int64_t kv_head = shape_.qk_nope_head_dim + shape_.v_head_dim;
  return {.shape = core(),
          .rows = {.q = kept.q,
                   .k = kept.kv,
                   .k_row = shape_.num_heads * kv_head,
                   .k_head = kv_head,
                   .shared_k = kept.kv_a + shape_.kv_lora_rank,
                   .shared_k_row = shape_.cache_row(),
                   .v = kept.kv + shape_.qk_nope_head_dim,
                   .v_row = shape_.num_heads * kv_head,
                   .v_head = kv_head},
          .documents = pass.batch.documents,
          .tokens = pass.batch.tokens,
          .scratch = pass.work.scratch,
          .scratch_floats = pass.work.scratch_floats};
}

// Queries, keys and values from the raw latents: c^Q and c^KV (their norms), Eq. 38-40, 42, 44, 45.
void MlaBlock::expand(const AttentionPass& pass) const {
  const auto& [c, batch, p, kept, work, h] = pass;
  const MlaShape& s = shape_;
  const int64_t T = batch.tokens;
  const int64_t q_width = s.num_heads * s.qk_head_dim();
  if (s.q_lora_rank > 0) {
    const float* c_q = kept.q_a;
    if (!p.q_a_layernorm.empty()) {
      norm_forward(c,
                   {kept.q_a, s.q_lora_rank, T, s.q_lora_rank, kLatentNormEps},
                   p.q_a_layernorm.value,
                   kept.c_q,
                   s.q_lora_rank);
      c_q = kept.c_q;
    }
    project_forward(c, {T, s.q_lora_rank, q_width}, c_q, p.q_b_proj, p.q_b_proj_bias, kept.q);
  } else {
    project_forward(c, {T, s.hidden_size, q_width}, h, p.q_proj, p.q_proj_bias, kept.q);
  }
  rotate(c,
         batch,
         {.x = kept.q + s.qk_nope_head_dim,
          .row = q_width,
          .heads = s.num_heads,
          .head_step = s.qk_head_dim(),
          .interleaved = s.rope_interleaved});
  if (!p.kv_a_layernorm.empty()) {
    norm_forward(c,
                 {kept.kv_a, s.cache_row(), T, s.kv_lora_rank, kLatentNormEps},
                 p.kv_a_layernorm.value,
                 kept.c_kv,
                 s.kv_lora_rank);
  } else {
    for (int64_t t = 0; t < T; ++t)
      std::copy_n(kept.kv_a + t * s.cache_row(), s.kv_lora_rank, kept.c_kv + t * s.kv_lora_rank);
  }
  const int64_t kv_width = s.num_heads * (s.qk_nope_head_dim + s.v_head_dim);
  linear_forward(c, {T, s.kv_lora_rank, kv_width}, kept.c_kv, p.kv_b_proj.value, kept.kv, Sum::kStore);
}

void MlaBlock::forward(const AttentionPass& pass, float* out) const {
  const auto& [c, batch, p, kept, work, h] = pass;
  const MlaShape& s = shape_;
  const int64_t T = batch.tokens;
  if (s.q_lora_rank > 0) {  // Eq. 37
    project_forward(c, {T, s.hidden_size, s.q_lora_rank}, h, p.q_a_proj, p.q_a_proj_bias, kept.q_a);
  }
  project_forward(c, {T, s.hidden_size, s.cache_row()}, h, p.kv_a_proj, p.kv_a_proj_bias, kept.kv_a);  // Eq. 41, 43
  rotate(c, batch, {.x = kept.kv_a + s.kv_lora_rank, .row = s.cache_row(), .interleaved = s.rope_interleaved});
  expand(pass);
  attention_forward(c, task(pass), kept.out, kept.lse);                                                        // Eq. 46
  project_forward(c, {T, s.num_heads * s.v_head_dim, s.hidden_size}, kept.out, p.o_proj, p.o_proj_bias, out);  // Eq. 47
}

void MlaBlock::backward(const AttentionPass& pass, const float* dout, float* dh) const {
  const auto& [c, batch, p, kept, work, h] = pass;
  const MlaShape& s = shape_;
  const int64_t T = batch.tokens;
  const int64_t kv_head = s.qk_nope_head_dim + s.v_head_dim;
  const int64_t kv_width = s.num_heads * kv_head;
  if (!kept.kept) expand(pass);
  project_backward(c,
                   {.size = {T, s.num_heads * s.v_head_dim, s.hidden_size},
                    .x = kept.out,
                    .dy = dout,
                    .dx = work.dout,
                    .partials = work.partials},
                   p.o_proj,
                   p.o_proj_bias);
  attention_backward(c,
                     task(pass),
                     {.out = kept.out,
                      .lse = kept.lse,
                      .dout = work.dout,
                      .dq = work.dq,
                      .dk = work.dkv,
                      .dk_row = kv_width,
                      .dk_head = kv_head,
                      .dshared_k = work.dk_rope,
                      .dv = work.dkv + s.qk_nope_head_dim,
                      .dv_row = kv_width,
                      .dv_head = kv_head});
  // The rotated key is shared: its gradient is the sum over heads, turned back (spec section 9).
  const int64_t rope_width = s.num_heads * s.qk_rope_head_dim;
  sum_group(
      c, work.dk_rope, {T, rope_width, s.num_heads, s.qk_rope_head_dim}, work.dkv_a + s.kv_lora_rank, s.cache_row());
  rotate(c,
         batch,
         {.x = work.dkv_a + s.kv_lora_rank, .row = s.cache_row(), .interleaved = s.rope_interleaved, .back = true});
  linear_weight_gradient(c, {T, s.kv_lora_rank, kv_width}, work.dkv, kept.c_kv, p.kv_b_proj.gradient);
  linear_input_gradient(c, {T, s.kv_lora_rank, kv_width}, work.dkv, p.kv_b_proj.value, work.dlatent, Sum::kStore);
  if (!p.kv_a_layernorm.empty()) {
    norm_backward(c,
                  {.rows = {kept.kv_a, s.cache_row(), T, s.kv_lora_rank, kLatentNormEps},
                   .weight = p.kv_a_layernorm,
                   .dy = work.dlatent,
                   .dy_stride = s.kv_lora_rank,
                   .dx = work.dkv_a,
                   .dx_stride = s.cache_row(),
                   .partials = work.partials});
  } else {
    for (int64_t t = 0; t < T; ++t)
      std::copy_n(work.dlatent + t * s.kv_lora_rank, s.kv_lora_rank, work.dkv_a + t * s.cache_row());
  }
  project_backward(
      c,
      {.size = {T, s.hidden_size, s.cache_row()}, .x = h, .dy = work.dkv_a, .dx = dh, .partials = work.partials},
      p.kv_a_proj,
      p.kv_a_proj_bias);
  query_backward(pass, dh);
}

// From work.dq to the gradients of the query's matrices, and dh += its part.
void MlaBlock::query_backward(const AttentionPass& pass, float* dh) const {
  const auto& [c, batch, p, kept, work, h] = pass;
  const MlaShape& s = shape_;
  const int64_t T = batch.tokens;
  const int64_t q_width = s.num_heads * s.qk_head_dim();
  rotate(c,
         batch,
         {.x = work.dq + s.qk_nope_head_dim,
          .row = q_width,
          .heads = s.num_heads,
          .head_step = s.qk_head_dim(),
          .interleaved = s.rope_interleaved,
          .back = true});
  if (s.q_lora_rank == 0) {
    project_backward(c,
                     {.size = {T, s.hidden_size, q_width},
                      .x = h,
                      .dy = work.dq,
                      .dx = dh,
                      .sum = Sum::kAdd,
                      .partials = work.partials},
                     p.q_proj,
                     p.q_proj_bias);
    return;
  }
  const bool normed = !p.q_a_layernorm.empty();
  project_backward(c,
                   {.size = {T, s.q_lora_rank, q_width},
                    .x = normed ? kept.c_q : kept.q_a,
                    .dy = work.dq,
                    .dx = normed ? work.dlatent : work.dq_a,
                    .partials = work.partials},
                   p.q_b_proj,
                   p.q_b_proj_bias);
  if (normed) {
    norm_backward(c,
                  {.rows = {kept.q_a, s.q_lora_rank, T, s.q_lora_rank, kLatentNormEps},
                   .weight = p.q_a_layernorm,
                   .dy = work.dlatent,
                   .dy_stride = s.q_lora_rank,
                   .dx = work.dq_a,
                   .dx_stride = s.q_lora_rank,
                   .partials = work.partials});
  }
  project_backward(c,
                   {.size = {T, s.hidden_size, s.q_lora_rank},
                    .x = h,
                    .dy = work.dq_a,
                    .dx = dh,
                    .sum = Sum::kAdd,
                    .partials = work.partials},
                   p.q_a_proj,
                   p.q_a_proj_bias);
}

}  // namespace lathe
