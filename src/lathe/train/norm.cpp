#include "lathe/train/norm.h"

#include <algorithm>

namespace lathe {

void norm_forward(const TrainContext& c, const NormRows& rows, const float* weight, float* y, int64_t y_stride) {
  c.pool.run(rows.rows, row_grain(rows.n), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      c.kernels.rms_norm(rows.x + t * rows.x_stride, weight, y + t * y_stride, rows.n, static_cast<float>(rows.eps));
    }
  });
}

void norm_backward(const TrainContext& c, const NormBackward& args) {
  const NormRows& rows = args.rows;
  const int64_t blocks = (rows.rows + kColumnSumRows - 1) / kColumnSumRows;
  c.pool.run(blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      float* dweight = args.partials + block * rows.n;
      std::fill_n(dweight, rows.n, 0.0F);
      const int64_t last = std::min((block + 1) * kColumnSumRows, rows.rows);
      for (int64_t t = block * kColumnSumRows; t < last; ++t) {
        c.kernels.rms_norm_backward({.x = rows.x + t * rows.x_stride,
                                     .weight = args.weight.value,
                                     .dy = args.dy + t * args.dy_stride,
                                     .dx = args.dx + t * args.dx_stride,
                                     .dweight = dweight,
                                     .n = rows.n,
                                     .eps = static_cast<float>(rows.eps),
                                     .accumulate = args.sum == Sum::kAdd});
      }
    }
  });
  for (int64_t block = 0; block < blocks; ++block) {
    c.kernels.add(args.weight.gradient, args.partials + block * rows.n, rows.n);
  }
}

}  // namespace lathe
