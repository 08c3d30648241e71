#include "lathe/train/mtp_input.h"

#include <algorithm>

#include "lathe/train/cross_entropy.h"

namespace lathe {

void MtpInput::take(TrainArena& arena, int64_t tokens) {
  for (float** rows : {&embedded_, &h_, &dx_}) *rows = arena.take(tokens * hidden_);
  for (float** rows : {&joined_, &djoined_}) *rows = arena.take(tokens * 2 * hidden_);
  partials_ = arena.take(column_sum_floats(tokens, hidden_));
}

void MtpInput::forward(const MtpInputPass& pass, float* out) const {
  const int64_t d = hidden_;
  const auto R = static_cast<int64_t>(pass.tokens.size());
  for (size_t r = 0; r < pass.tokens.size(); ++r) {
    const auto at = static_cast<int64_t>(r);
    std::copy_n(pass.embed_tokens.value + pass.tokens[r] * d, d, embedded_ + at * d);
    std::copy_n(pass.h + pass.rows[r] * d, d, h_ + at * d);
  }
  norm_forward(pass.c, {embedded_, d, R, d, eps_}, pass.p.enorm.value, joined_, 2 * d);
  norm_forward(pass.c, {h_, d, R, d, eps_}, pass.p.hnorm.value, joined_ + d, 2 * d);
  linear_forward(pass.c, {R, 2 * d, d}, joined_, pass.p.eh_proj.value, out, Sum::kStore);
}

void MtpInput::backward(const MtpInputPass& pass, const float* dout, float* dh) const {
  const int64_t d = hidden_;
  const auto R = static_cast<int64_t>(pass.tokens.size());
  linear_weight_gradient(pass.c, {R, 2 * d, d}, dout, joined_, pass.p.eh_proj.gradient);
  linear_input_gradient(pass.c, {R, 2 * d, d}, dout, pass.p.eh_proj.value, djoined_, Sum::kStore);
  NormBackward norm{.rows = {embedded_, d, R, d, eps_},
                    .weight = pass.p.enorm,
                    .dy = djoined_,
                    .dy_stride = 2 * d,
                    .dx = dx_,
                    .dx_stride = d,
                    .sum = Sum::kStore,
                    .partials = partials_};
  norm_backward(pass.c, norm);
  embedding_backward(pass.c, pass.tokens, dx_, d, pass.embed_tokens.gradient);
  norm.rows.x = h_;
  norm.weight = pass.p.hnorm;
  norm.dy = djoined_ + d;
  norm_backward(pass.c, norm);
  for (size_t r = 0; r < pass.rows.size(); ++r) {
    pass.c.kernels.add(dh + pass.rows[r] * d, dx_ + static_cast<int64_t>(r) * d, d);
  }
}

}  // namespace lathe
