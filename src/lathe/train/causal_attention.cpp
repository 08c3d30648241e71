#include "lathe/train/causal_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lathe {
namespace {

// Floats from one row of scores to the next: not a power of two, so that a column's values lie in different cache sets.
constexpr int64_t kScoreRow = kKeyTile + 16;

// One document and head as one thread works on it. T, S: tokens of the document.
struct Head {
  int64_t first = 0;   // row of its first token
  int64_t tokens = 0;  // S
  int64_t head = 0;
  int64_t thread = 0;
};

// Division of a thread's scratch.
struct Scratch {
  float* keys = nullptr;    // [S, qk]
  float* keys_t = nullptr;  // packed [qk, S]
  float* keys_n = nullptr;  // packed [S, qk]
  float* values = nullptr;  // packed [S, v] forward, [v, S] backward
  float* dk = nullptr;      // [S, qk]
  float* dv = nullptr;      // [S, v]
  float* scores = nullptr;  // [kQueryTile][kScoreRow]
  float* dp = nullptr;      // [kQueryTile][kScoreRow]

  Scratch(const AttentionShape& s, int64_t tokens, TrainArena arena, int64_t* used = nullptr) {
    const int64_t qk = s.qk_dim();
    keys = arena.take(tokens * qk);
    keys_t = arena.take(sgemm_packed_floats(qk, tokens));
    keys_n = arena.take(sgemm_packed_floats(tokens, qk));
    values = arena.take(std::max(sgemm_packed_floats(tokens, s.v_dim), sgemm_packed_floats(s.v_dim, tokens)));
    dk = arena.take(tokens * qk);
    dv = arena.take(tokens * s.v_dim);
    scores = arena.take(kQueryTile * kScoreRow);
    dp = arena.take(kQueryTile * kScoreRow);
    if (used != nullptr) *used = arena.used();
  }
};

// Calls body(Head) for every document and head.
template <class Body>
void for_heads(const TrainContext& c, const AttentionTask& task, const Body& body) {
  const auto documents = static_cast<int64_t>(task.documents.size());
  c.pool.run(documents * task.shape.heads, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      const auto document = static_cast<size_t>(i / task.shape.heads);
      const int64_t first = task.documents[document];
      const int64_t last = document + 1 < task.documents.size() ? task.documents[document + 1] : task.tokens;
      body(Head{.first = first, .tokens = last - first, .head = i % task.shape.heads, .thread = thread});
    }
  });
}

class HeadRun {
 public:
  HeadRun(const TrainContext& c, const AttentionTask& task, const Head& head)
      : c_(c),
        task_(task),
        s_(task.shape),
        head_(head),
        scratch_(s_, head.tokens, TrainArena(task.scratch + head.thread * task.scratch_floats)) {}

  void forward(float* out, float* lse) {
    gather_keys();
    const int64_t S = head_.tokens;
    c_.kernels.sgemm_pack(
        {.k = S, .n = s_.v_dim, .b = values(), .b_row = task_.rows.v_row, .b_col = 1, .out = scratch_.values});
    for (int64_t i = 0; i < S; i += kQueryTile) forward_tile(i, std::min(kQueryTile, S - i), out, lse);
  }

  void backward(const AttentionGradients& g) {
    gather_keys();
    const int64_t S = head_.tokens;
    const int64_t qk = s_.qk_dim();
    c_.kernels.sgemm_pack({.k = S, .n = qk, .b = scratch_.keys, .b_row = qk, .b_col = 1, .out = scratch_.keys_n});
    c_.kernels.sgemm_pack(
        {.k = s_.v_dim, .n = S, .b = values(), .b_row = 1, .b_col = task_.rows.v_row, .out = scratch_.values});
    std::fill_n(scratch_.dk, S * qk, 0.0F);
    std::fill_n(scratch_.dv, S * s_.v_dim, 0.0F);
    for (int64_t i = 0; i < S; i += kQueryTile) backward_tile(i, std::min(kQueryTile, S - i), g);
    for (int64_t j = 0; j < S; ++j) {
      const int64_t row = head_.first + j;
      const float* dk = scratch_.dk + j * qk;
      std::copy_n(dk, s_.own_dim, g.dk + row * g.dk_row + head_.head * g.dk_head);
      if (s_.shared_dim > 0) {
        std::copy_n(dk + s_.own_dim, s_.shared_dim, g.dshared_k + (row * s_.heads + head_.head) * s_.shared_dim);
      }
      std::copy_n(scratch_.dv + j * s_.v_dim, s_.v_dim, g.dv + row * g.dv_row + head_.head * g.dv_head);
    }
  }

 private:
  int64_t q_row() const { return s_.heads * s_.qk_dim(); }

  int64_t v_row() const { return s_.heads * s_.v_dim; }

  int64_t key_head() const { return head_.head / s_.group; }

  const float* queries(int64_t i) const {
    return task_.rows.q + (head_.first + i) * q_row() + head_.head * s_.qk_dim();
  }

  const float* values() const { return task_.rows.v + head_.first * task_.rows.v_row + key_head() * task_.rows.v_head; }

  float* product_scratch() const { return c_.scratch(static_cast<int>(head_.thread)); }

  // The head's keys side by side, and packed as the right-hand side of q k^T.
  void gather_keys() {
    const AttentionRows& rows = task_.rows;
    const int64_t qk = s_.qk_dim();
    for (int64_t j = 0; j < head_.tokens; ++j) {
      const int64_t row = head_.first + j;
      std::copy_n(rows.k + row * rows.k_row + key_head() * rows.k_head, s_.own_dim, scratch_.keys + j * qk);
      if (s_.shared_dim > 0) {
        std::copy_n(rows.shared_k + row * rows.shared_k_row, s_.shared_dim, scratch_.keys + j * qk + s_.own_dim);
      }
    }
    c_.kernels.sgemm_pack(
        {.k = qk, .n = head_.tokens, .b = scratch_.keys, .b_row = 1, .b_col = qk, .out = scratch_.keys_t});
  }

  // Raw scores of queries [i, i + m) against keys [j, j + n): [m][kScoreRow].
  void scores(int64_t i, int64_t m, int64_t j, int64_t n) {
    c_.kernels.sgemm({.m = m,
                      .n = n,
                      .k = s_.qk_dim(),
                      .a = queries(i),
                      .a_row = q_row(),
                      .a_col = 1,
                      .b_packed = scratch_.keys_t,
                      .packed_k = s_.qk_dim(),
                      .packed_n = head_.tokens,
                      .packed_column = j,
                      .c = scratch_.scores,
                      .c_row = kScoreRow,
                      .scratch = product_scratch()});
  }

  void forward_tile(int64_t i, int64_t m, float* out_all, float* lse_all) {
    float* out = out_all + (head_.first + i) * v_row() + head_.head * s_.v_dim;
    SoftmaxState state[kQueryTile];
    std::fill_n(state, m, SoftmaxState{-std::numeric_limits<float>::infinity(), 0.0F});
    for (int64_t j = 0; j < i + m; j += kKeyTile) {
      const int64_t n = std::min(kKeyTile, i + m - j);
      scores(i, m, j, n);
      for (int64_t r = 0; r < m; ++r) {
        float* row = scratch_.scores + r * kScoreRow;
        const int64_t visible = std::min(n, i + r + 1 - j);
        if (visible <= 0) {
          std::fill_n(row, n, 0.0F);
          continue;
        }
        const float factor = c_.kernels.softmax_step(row, visible, n, s_.scale, state[r]);
        if (j > 0) c_.kernels.scale(out + r * v_row(), factor, s_.v_dim);
      }
      c_.kernels.sgemm({.m = m,
                        .n = s_.v_dim,
                        .k = n,
                        .a = scratch_.scores,
                        .a_row = kScoreRow,
                        .a_col = 1,
                        .b_packed = scratch_.values + j * ((s_.v_dim + 15) / 16 * 16),
                        .packed_k = head_.tokens - j,
                        .packed_n = s_.v_dim,
                        .c = out,
                        .c_row = v_row(),
                        .accumulate = j > 0,
                        .scratch = product_scratch()});
    }
    for (int64_t r = 0; r < m; ++r) {
      c_.kernels.scale(out + r * v_row(), 1.0F / state[r].sum, s_.v_dim);
      lse_all[(head_.first + i + r) * s_.heads + head_.head] = state[r].maximum + std::log(state[r].sum);
    }
  }

  void backward_tile(int64_t i, int64_t m, const AttentionGradients& g) {
    const int64_t qk = s_.qk_dim();
    const int64_t row = head_.first + i;
    const float* out = g.out + row * v_row() + head_.head * s_.v_dim;
    const float* dout = g.dout + row * v_row() + head_.head * s_.v_dim;
    float delta[kQueryTile];  // sum over keys of p dp = dout . out
    for (int64_t r = 0; r < m; ++r) {
      delta[r] = dot(dout + r * v_row(), out + r * v_row(), s_.v_dim);
    }
    for (int64_t j = 0; j < i + m; j += kKeyTile) {
      const int64_t n = std::min(kKeyTile, i + m - j);
      scores(i, m, j, n);
      c_.kernels.sgemm({.m = m,
                        .n = n,
                        .k = s_.v_dim,
                        .a = dout,
                        .a_row = v_row(),
                        .a_col = 1,
                        .b_packed = scratch_.values,
                        .packed_k = s_.v_dim,
                        .packed_n = head_.tokens,
                        .packed_column = j,
                        .c = scratch_.dp,
                        .c_row = kScoreRow,
                        .scratch = product_scratch()});
      for (int64_t r = 0; r < m; ++r) {
        c_.kernels.softmax_backward({.scores = scratch_.scores + r * kScoreRow,
                                     .dp = scratch_.dp + r * kScoreRow,
                                     .count = std::max<int64_t>(0, std::min(n, i + r + 1 - j)),
                                     .padded = n,
                                     .scale = s_.scale,
                                     .lse = g.lse[(row + r) * s_.heads + head_.head],
                                     .delta = delta[r]});
      }
      // dq = ds k, dv += p^T dout, dk += ds^T q.
      c_.kernels.sgemm({.m = m,
                        .n = qk,
                        .k = n,
                        .a = scratch_.dp,
                        .a_row = kScoreRow,
                        .a_col = 1,
                        .b_packed = scratch_.keys_n + j * ((qk + 15) / 16 * 16),
                        .packed_k = head_.tokens - j,
                        .packed_n = qk,
                        .c = g.dq + row * q_row() + head_.head * qk,
                        .c_row = q_row(),
                        .accumulate = j > 0,
                        .scratch = product_scratch()});
      add_transposed(scratch_.scores, n, m, dout, v_row(), s_.v_dim, scratch_.dv + j * s_.v_dim);
      add_transposed(scratch_.dp, n, m, queries(i), q_row(), qk, scratch_.dk + j * qk);
    }
  }

  // c[n][width] += a^T b for a [m][kScoreRow], b [m][width].
  void add_transposed(const float* a, int64_t n, int64_t m, const float* b, int64_t b_row, int64_t width, float* to) {
    c_.kernels.sgemm({.m = n,
                      .n = width,
                      .k = m,
                      .a = a,
                      .a_row = 1,
                      .a_col = kScoreRow,
                      .b = b,
                      .b_row = b_row,
                      .b_col = 1,
                      .c = to,
                      .c_row = width,
                      .accumulate = true,
                      .scratch = product_scratch()});
  }

  const TrainContext& c_;
  const AttentionTask& task_;
  const AttentionShape& s_;
  Head head_;
  Scratch scratch_;
};

}  // namespace

int64_t attention_scratch_floats(const AttentionShape& shape, int64_t tokens) {
  int64_t used = 0;
  const Scratch counted(shape, tokens, TrainArena(), &used);
  return used;
}

void attention_forward(const TrainContext& c, const AttentionTask& task, float* out, float* lse) {
  for_heads(c, task, [&](const Head& head) { HeadRun(c, task, head).forward(out, lse); });
}

void attention_backward(const TrainContext& c, const AttentionTask& task, const AttentionGradients& gradients) {
  for_heads(c, task, [&](const Head& head) { HeadRun(c, task, head).backward(gradients); });
}

void sum_group(const TrainContext& c, const float* rows, const HeadRows& shape, float* sum, int64_t sum_row) {
  c.pool.run(shape.tokens, row_grain(shape.count * shape.n), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* row = rows + t * shape.row;
      std::copy_n(row, shape.n, sum + t * sum_row);
      for (int64_t i = 1; i < shape.count; ++i) c.kernels.add(sum + t * sum_row, row + i * shape.n, shape.n);
    }
  });
}

}  // namespace lathe
