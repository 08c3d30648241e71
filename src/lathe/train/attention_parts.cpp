#include "lathe/train/attention_parts.h"

namespace lathe {

void project_forward(
    const TrainContext& c, const LinearSize& size, const float* x, const Trained& w, const Trained& bias, float* y) {
  linear_forward(c, size, x, w.value, y, Sum::kStore);
  if (!bias.empty()) add_bias(c, bias.value, size.rows, size.out, y);
}

void project_backward(const TrainContext& c, const ProjectBackward& args, const Trained& w, const Trained& bias) {
  linear_weight_gradient(c, args.size, args.dy, args.x, w.gradient);
  if (!bias.empty()) bias_gradient(c, args.dy, args.size.rows, args.size.out, args.partials, bias.gradient);
  linear_input_gradient(c, args.size, args.dy, w.value, args.dx, args.sum);
}

void rotate(const TrainContext& c, const AttentionBatch& batch, const RotateArgs& args) {
  const auto turn = args.interleaved ? c.kernels.rope_interleaved : c.kernels.rope_half_split;
  const float* sin = args.back ? batch.sin_back : batch.sin;
  c.pool.run(batch.tokens, row_grain(2 * batch.pairs * args.heads), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t i = 0; i < args.heads; ++i) {
        turn(args.x + t * args.row + i * args.head_step,
             batch.cos + t * batch.pairs,
             sin + t * batch.pairs,
             batch.pairs);
      }
    }
  });
}

}  // namespace lathe
