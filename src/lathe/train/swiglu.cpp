#include "lathe/train/swiglu.h"

namespace lathe {

void activate(const TrainContext& c, int64_t rows, int64_t width, const float* gate_up, float* act) {
  c.pool.run(rows, row_grain(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* row = gate_up + t * 2 * width;
      c.kernels.silu_mul(row, row + width, act + t * width, width);
    }
  });
}

void activate_backward(const TrainContext& c, int64_t rows, int64_t width, const float* dact, float* gate_up) {
  c.pool.run(rows, row_grain(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = gate_up + t * 2 * width;
      c.kernels.silu_mul_backward(
          {.gate = row, .up = row + width, .dh = dact + t * width, .dgate = row, .dup = row + width, .n = width});
    }
  });
}

void swiglu_train_forward(const TrainContext& c,
                          const SwigluSize& size,
                          const SwigluParameters& p,
                          const float* x,
                          float* gate_up,
                          float* act,
                          float* y,
                          Sum sum) {
  linear_forward(c, {size.rows, size.hidden, 2 * size.width}, x, p.gate_up.value, gate_up, Sum::kStore);
  activate(c, size.rows, size.width, gate_up, act);
  linear_forward(c, {size.rows, size.width, size.hidden}, act, p.down.value, y, sum);
}

void swiglu_train_backward(const TrainContext& c,
                           const SwigluSize& size,
                           const SwigluParameters& p,
                           const SwigluBackward& args) {
  const LinearSize up{size.rows, size.hidden, 2 * size.width};
  const LinearSize down{size.rows, size.width, size.hidden};
  activate(c, size.rows, size.width, args.gate_up, args.act);
  linear_weight_gradient(c, down, args.dy, args.act, p.down.gradient);
  linear_input_gradient(c, down, args.dy, p.down.value, args.dact, Sum::kStore);
  activate_backward(c, size.rows, size.width, args.dact, args.gate_up);
  linear_weight_gradient(c, up, args.gate_up, args.x, p.gate_up.gradient);
  linear_input_gradient(c, up, args.gate_up, p.gate_up.value, args.dx, args.sum);
}

}  // namespace lathe
