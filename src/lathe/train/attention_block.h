// The attention blocks of training: MLA (Eq. 9-19, 37-47) and MHA/GQA/MQA (Eq. 1-8), forward and backward. Of the
// forward pass stay: the raw latents (before their norms), the rotated shared key, the head outputs and the
// log-sum-exp. q, k and v are computed again from the latents, or kept as well (KeptAttention).
#pragma once

#include <cstdint>
#include <span>

#include "lathe/attention/gqa.h"
#include "lathe/attention/mla.h"
#include "lathe/train/causal_attention.h"
#include "lathe/train/matmul.h"
#include "lathe/train/norm.h"

namespace lathe {

// What the tokens of a batch have in common for every layer. cos, sin: [T, pairs]; sin_back = -sin turns back.
struct AttentionBatch {
  std::span<const int64_t> documents;
  int64_t tokens = 0;
  const float* cos = nullptr;
  const float* sin = nullptr;
  const float* sin_back = nullptr;
  int64_t pairs = 0;
};

// Gradients of absent tensors (biases, norms, one of the two forms of the query) are empty.
struct AttentionParameters {
  // MLA
  Trained q_a_proj, q_a_proj_bias, q_a_layernorm, q_b_proj, q_b_proj_bias;  // with query compression
  Trained kv_a_proj, kv_a_proj_bias, kv_a_layernorm, kv_b_proj;
  // both: q_proj without query compression
  Trained q_proj, q_proj_bias, o_proj, o_proj_bias;
  // GQA
  Trained k_proj, k_proj_bias, v_proj, v_proj_bias;
};

// Buffers of one layer. The first group stays from the forward to the backward pass; the second may be shared by all
// layers, and is then computed again (`kept` false).
struct KeptAttention {
  float* q_a = nullptr;   // [T, d'_c]: W^DQ h
  float* kv_a = nullptr;  // [T, d_c + d_h^R]: W^DKV h before its norm, then k^R after its rotation
  float* out = nullptr;   // [T, H d_v]
  float* lse = nullptr;   // [T, H]
  bool kept = false;
  float* c_q = nullptr;   // [T, d'_c]: normed
  float* c_kv = nullptr;  // [T, d_c]: normed
  float* q = nullptr;     // [T, H (d_h + d_h^R)], rotated; GQA: [T, H d_h]
  float* kv = nullptr;    // [T, H (d_h + d_v)]; GQA: k [T, n_kv d_h], rotated
  float* v = nullptr;     // GQA: [T, n_kv d_h]
};

// Buffers of the backward pass, shared by all layers.
struct AttentionWork {
  float* dout = nullptr;      // [T, H d_v]
  float* dq = nullptr;        // as q
  float* dkv = nullptr;       // as kv; GQA: per query head, [T, H d_h]
  float* dv = nullptr;        // GQA: per query head, [T, H d_h]
  float* dk_rope = nullptr;   // [T, H, d_h^R]
  float* dkv_a = nullptr;     // as kv_a; GQA: dk of the key heads
  float* dlatent = nullptr;   // [T, max(d_c, d'_c)]; GQA: dv of the key heads
  float* dq_a = nullptr;      // as q_a
  float* partials = nullptr;  // column_sum_floats of the widest of these rows
  float* scratch = nullptr;   // [threads][scratch_floats]
  int64_t scratch_floats = 0;
};

// One layer's attention in one step: what both passes work with.
struct AttentionPass {
  const TrainContext& c;
  const AttentionBatch& batch;
  const AttentionParameters& p;
  const KeptAttention& kept;
  const AttentionWork& work;
  const float* h;  // [T, d], block-normed
};

// The two kinds of attention, each with the same functions.
class MlaBlock {
 public:
  explicit MlaBlock(const MlaShape& shape) : shape_(shape) {}

  // The attention between the projections.
  AttentionShape core() const;
  // Buffers for that many tokens: what stays, what may be shared by layers, and what the backward pass works in.
  void take_kept(TrainArena& arena, int64_t tokens, KeptAttention& out) const;
  // See take_kept.
  void take_recomputed(TrainArena& arena, int64_t tokens, KeptAttention& out) const;
  // See take_kept.
  void take_work(TrainArena& arena, int64_t tokens, int threads, AttentionWork& out) const;

  // out [T, d] = attention of pass.h.
  void forward(const AttentionPass& pass, float* out) const;
  // dh [T, d] is stored; gradients of parameters are added.
  void backward(const AttentionPass& pass, const float* dout, float* dh) const;

 private:
  void expand(const AttentionPass& pass) const;
  AttentionTask task(const AttentionPass& pass) const;
  void query_backward(const AttentionPass& pass, float* dh) const;

  MlaShape shape_;
};

// MHA, GQA and MQA.
class GqaBlock {
 public:
  explicit GqaBlock(const GqaShape& shape) : shape_(shape) {}

  // The attention between the projections.
  AttentionShape core() const;
  // Buffers for that many tokens: what stays, what may be shared by layers, and what the backward pass works in.
  void take_kept(TrainArena& arena, int64_t tokens, KeptAttention& out) const;
  // See take_kept.
  void take_recomputed(TrainArena& arena, int64_t tokens, KeptAttention& out) const;
  // See take_kept.
  void take_work(TrainArena& arena, int64_t tokens, int threads, AttentionWork& out) const;
  // As MlaBlock's.
  void forward(const AttentionPass& pass, float* out) const;
  void backward(const AttentionPass& pass, const float* dout, float* dh) const;

 private:
  void project(const AttentionPass& pass) const;
  AttentionTask task(const AttentionPass& pass) const;

  GqaShape shape_;
};

}  // namespace lathe
