// Causal attention of training inside documents, forward and backward (Eq. 7, 46 and their derivatives): tiles of
// queries against tiles of keys, of which only the output and the log-sum-exp of each row are kept. The backward pass
// computes the scores again.
#pragma once

#include <cstdint>
#include <span>

#include "lathe/train/train_context.h"

namespace lathe {

// Queries of a tile and keys of a tile. Sums over queries (dk, dv) go tile by tile, so the first is part of the order
// of sums. The second is a multiple of kSgemmDepth.
inline constexpr int64_t kQueryTile = 42;
inline constexpr int64_t kKeyTile = 512;

// Keys have `shared_dim` components that all heads share (the rotated k^R of MLA) after `own_dim` ones of each key
// head. Head i uses key head i / group.
struct AttentionShape {
  int64_t heads = 0;
  int64_t group = 1;
  int64_t own_dim = 0;
  int64_t shared_dim = 0;
  int64_t v_dim = 0;
  float scale = 0.0F;

  int64_t qk_dim() const { return own_dim + shared_dim; }
};

// Where queries, keys and values lie: row strides and steps from head to head, in floats.
struct AttentionRows {
  const float* q = nullptr;  // [T][heads][qk_dim], contiguous
  const float* k = nullptr;
  int64_t k_row = 0;
  int64_t k_head = 0;
  const float* shared_k = nullptr;
  int64_t shared_k_row = 0;
  const float* v = nullptr;
  int64_t v_row = 0;
  int64_t v_head = 0;
};

// documents: first rows, ascending from 0; tokens: rows in all.
struct AttentionTask {
  AttentionShape shape;
  AttentionRows rows;
  std::span<const int64_t> documents;
  int64_t tokens = 0;
  float* scratch = nullptr;  // [threads][attention_scratch_floats]
  int64_t scratch_floats = 0;
};

// Of one thread, for documents of at most `tokens` tokens.
int64_t attention_scratch_floats(const AttentionShape& shape, int64_t tokens);

// out [T][heads][v_dim], lse [T][heads].
void attention_forward(const TrainContext& c, const AttentionTask& task, float* out, float* lse);

// Gradients per head: dq as q; dk and dv of head i (not key head) at row strides and head steps of their own, dshared_k
// [T][heads][shared_dim]. All are stored, not added to.
struct AttentionGradients {
  const float* out = nullptr;   // of the forward pass
  const float* lse = nullptr;   // likewise
  const float* dout = nullptr;  // [T][heads][v_dim]
  float* dq = nullptr;
  float* dk = nullptr;
  int64_t dk_row = 0;
  int64_t dk_head = 0;
  float* dshared_k = nullptr;
  float* dv = nullptr;
  int64_t dv_row = 0;
  int64_t dv_head = 0;
};

// See AttentionGradients.
void attention_backward(const TrainContext& c, const AttentionTask& task, const AttentionGradients& gradients);

// Rows of `count` vectors of n values side by side, `row` floats apart.
struct HeadRows {
  int64_t tokens = 0;
  int64_t row = 0;
  int64_t count = 0;
  int64_t n = 0;
};

// sum[t] = the `count` vectors of row t added in ascending order; rows of sum are sum_row apart.
void sum_group(const TrainContext& c, const float* rows, const HeadRows& shape, float* sum, int64_t sum_row);

}  // namespace lathe
