// d hidden, d_e expert width, E experts, K chosen per token, rows: the assignments that were kept, sorted by expert.
#include "lathe/train/moe_block.h"

#include <algorithm>

namespace lathe {

void MoeBlock::take_kept(TrainArena& arena, int64_t tokens, KeptMoe& out) const {
  const int64_t rows = tokens * shape_.gate.num_experts_per_tok;
  out.routing.take(arena, shape_.gate, tokens);
  out.gate_up = arena.take(rows * 2 * shape_.moe_intermediate_size);
  out.shared_gate_up = arena.take(tokens * 2 * shape_.shared_intermediate_size);
}

void MoeBlock::take_work(TrainArena& arena, int64_t tokens, MoeWork& out) const {
  const int64_t rows = tokens * shape_.gate.num_experts_per_tok;
  const int64_t widest = std::max(rows * shape_.moe_intermediate_size, tokens * shape_.shared_intermediate_size);
  out.x = arena.take(rows * shape_.hidden_size);
  out.y = arena.take(rows * shape_.hidden_size);
  out.act = arena.take(widest);
  out.dact = arena.take(widest);
  out.dweights = arena.take(rows);
  out.dlogits = arena.take(tokens * shape_.gate.n_routed_experts);
}

void MoeBlock::gather(const TrainContext& c, const Routing& routing, const float* from, float* rows) const {
  const int64_t d = shape_.hidden_size;
  const int64_t K = shape_.gate.num_experts_per_tok;
  c.pool.run(routing.total_rows(), row_grain(d), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) std::copy_n(from + routing.assignment[i] / K * d, d, rows + i * d);
  });
}

void MoeBlock::forward(const MoePass& pass, float* out) const {
  const auto& [c, batch, p, kept, work, u] = pass;
  const int64_t T = batch.tokens;
  const int64_t d = shape_.hidden_size;
  const int64_t d_e = shape_.moe_intermediate_size;
  const int64_t K = shape_.gate.num_experts_per_tok;
  Routing& r = kept.routing;
  linear_forward(c, {T, d, shape_.gate.n_routed_experts}, u, p.router.value, r.scores, Sum::kStore);
  route(c, options_, batch, p.bias, r);
  gather(c, r, u, work.x);
  grouped_forward(c, {r.offsets, p.gate_up, d, 2 * d_e}, work.x, kept.gate_up);
  activate(c, r.total_rows(), d_e, kept.gate_up, work.act);
  grouped_forward(c, {r.offsets, p.down, d_e, d}, work.act, work.y);
  const bool shared = !p.shared.down.empty();
  if (shared) {
    swiglu_train_forward(
        c, {T, d, shape_.shared_intermediate_size}, p.shared, u, kept.shared_gate_up, work.act, out, Sum::kStore);
  }
  c.pool.run(T, row_grain(K * d), [&](int64_t begin, int64_t end, int) {  // Eq. 20
    if (!shared) std::fill(out + begin * d, out + end * d, 0.0F);
    for (int64_t i = begin * K; i < end * K; ++i) {
      if (r.rows[i] >= 0) c.kernels.axpy(out + i / K * d, r.weights[i], work.y + r.rows[i] * d, d);
    }
  });
}

// Leaves the gradient by the sorted inputs in work.y and that by the weights in work.dweights.
void MoeBlock::experts_backward(const MoePass& pass, const float* dout) const {
  const auto& [c, batch, p, kept, work, u] = pass;
  const int64_t d = shape_.hidden_size;
  const int64_t d_e = shape_.moe_intermediate_size;
  const Routing& r = kept.routing;
  std::fill_n(work.dweights, batch.tokens * shape_.gate.num_experts_per_tok, 0.0F);
  gather(c, r, dout, work.y);
  grouped_input_gradient(c, {r.offsets, p.down, d_e, d}, work.y, work.dact);
  activate(c, r.total_rows(), d_e, kept.gate_up, work.act);
  // The gradient by a weight is <dout, W_down act> = <W_down^T dout, act>; then both sides take the weight.
  c.pool.run(r.total_rows(), row_grain(d_e), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* act = work.act + i * d_e;
      float* dact = work.dact + i * d_e;
      const int32_t assignment = r.assignment[i];
      work.dweights[assignment] = dot(dact, act, d_e);
      c.kernels.scale(act, r.weights[assignment], d_e);
      c.kernels.scale(dact, r.weights[assignment], d_e);
    }
  });
  grouped_weight_gradient(c, {r.offsets, p.down, d_e, d}, work.y, work.act);
  activate_backward(c, r.total_rows(), d_e, work.dact, kept.gate_up);
  gather(c, r, u, work.x);
  grouped_weight_gradient(c, {r.offsets, p.gate_up, d, 2 * d_e}, kept.gate_up, work.x);
  grouped_input_gradient(c, {r.offsets, p.gate_up, d, 2 * d_e}, kept.gate_up, work.y);
}

void MoeBlock::backward(const MoePass& pass, const float* dout, double scale, float* du) const {
  const auto& [c, batch, p, kept, work, u] = pass;
  const int64_t T = batch.tokens;
  const int64_t d = shape_.hidden_size;
  const int64_t E = shape_.gate.n_routed_experts;
  const int64_t K = shape_.gate.num_experts_per_tok;
  const Routing& r = kept.routing;
  experts_backward(pass, dout);
  route_backward(c, options_, batch, r, work.dweights, scale, work.dlogits);
  linear_weight_gradient(c, {T, d, E}, work.dlogits, u, p.router.gradient);
  linear_input_gradient(c, {T, d, E}, work.dlogits, p.router.value, du, Sum::kStore);
  if (!p.shared.down.empty()) {
    swiglu_train_backward(c,
                          {T, d, shape_.shared_intermediate_size},
                          p.shared,
                          {.x = u,
                           .dy = dout,
                           .gate_up = kept.shared_gate_up,
                           .act = work.act,
                           .dact = work.dact,
                           .dx = du,
                           .sum = Sum::kAdd});
  }
  c.pool.run(T, row_grain(K * d), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin * K; i < end * K; ++i) {
      if (r.rows[i] >= 0) c.kernels.add(du + i / K * d, work.y + r.rows[i] * d, d);
    }
  });
}

}  // namespace lathe
