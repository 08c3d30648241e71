#include "lathe/train/matmul.h"

#include <algorithm>

namespace lathe {
namespace {

constexpr int64_t kRowUnit = 42;     // rows of a register tile divide it, with every table
constexpr int64_t kColumnUnit = 32;  // likewise columns
constexpr int64_t kGrainOperations = 1 << 20;

// The whole product, cut along the longer side of the result.
void run_sgemm(const TrainContext& c, const SgemmArgs& whole) {
  const bool by_rows = whole.m >= whole.n;
  const int64_t unit = by_rows ? kRowUnit : kColumnUnit;
  const int64_t length = by_rows ? whole.m : whole.n;
  const int64_t per_unit = 2 * unit * whole.k * (by_rows ? whole.n : whole.m);
  const int64_t grain = std::max<int64_t>(1, kGrainOperations / std::max<int64_t>(per_unit, 1));
  c.pool.run((length + unit - 1) / unit, grain, [&](int64_t begin, int64_t end, int thread) {
    SgemmArgs part = whole;
    const int64_t first = begin * unit;
    const int64_t count = std::min(end * unit, length) - first;
    if (by_rows) {
      part.m = count;
      part.a += first * whole.a_row;
      part.c += first * whole.c_row;
    } else {
      part.n = count;
      part.b += first * whole.b_col;
      part.c += first;
    }
    part.scratch = c.scratch(thread);
    c.kernels.sgemm(part);
  });
}

// Calls body(expert, begin, end, thread) for parts of the experts' rows.
template <class Body>
void for_expert_rows(const TrainContext& c, const GroupedLinear& g, const Body& body) {
  const auto experts = static_cast<int64_t>(g.weights.size());
  const int64_t grain = std::max<int64_t>(1, kGrainOperations / std::max<int64_t>(2 * g.in * g.out, 1));
  c.pool.run(g.rows(), grain, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t e = 0; e < experts; ++e) {
      const int64_t first = std::max(begin, g.offsets[static_cast<size_t>(e)]);
      const int64_t last = std::min(end, g.offsets[static_cast<size_t>(e) + 1]);
      if (first < last) body(e, first, last, thread);
    }
  });
}

}  // namespace

void linear_forward(const TrainContext& c, const LinearSize& size, const float* x, const float* w, float* y, Sum sum) {
  run_sgemm(c,
            {.m = size.rows,
             .n = size.out,
             .k = size.in,
             .a = x,
             .a_row = size.in,
             .a_col = 1,
             .b = w,
             .b_row = 1,
             .b_col = size.in,
             .c = y,
             .c_row = size.out,
             .accumulate = sum == Sum::kAdd});
}

void linear_input_gradient(
    const TrainContext& c, const LinearSize& size, const float* dy, const float* w, float* dx, Sum sum) {
  run_sgemm(c,
            {.m = size.rows,
             .n = size.in,
             .k = size.out,
             .a = dy,
             .a_row = size.out,
             .a_col = 1,
             .b = w,
             .b_row = size.in,
             .b_col = 1,
             .c = dx,
             .c_row = size.in,
             .accumulate = sum == Sum::kAdd});
}

void linear_weight_gradient(const TrainContext& c, const LinearSize& size, const float* dy, const float* x, float* dw) {
  run_sgemm(c,
            {.m = size.out,
             .n = size.in,
             .k = size.rows,
             .a = dy,
             .a_row = 1,
             .a_col = size.out,
             .b = x,
             .b_row = size.in,
             .b_col = 1,
             .c = dw,
             .c_row = size.in,
             .accumulate = true});
}

void add_bias(const TrainContext& c, const float* bias, int64_t rows, int64_t n, float* y) {
  c.pool.run(rows, row_grain(n), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) c.kernels.add(y + t * n, bias, n);
  });
}

void bias_gradient(const TrainContext& c, const float* dy, int64_t rows, int64_t n, float* partials, float* db) {
  const int64_t blocks = (rows + kColumnSumRows - 1) / kColumnSumRows;
  c.pool.run(blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      float* sum = partials + block * n;
      std::fill_n(sum, n, 0.0F);
      const int64_t last = std::min((block + 1) * kColumnSumRows, rows);
      for (int64_t t = block * kColumnSumRows; t < last; ++t) c.kernels.add(sum, dy + t * n, n);
    }
  });
  for (int64_t block = 0; block < blocks; ++block) c.kernels.add(db, partials + block * n, n);
}

void grouped_forward(const TrainContext& c, const GroupedLinear& g, const float* x, float* y) {
  for_expert_rows(c, g, [&](int64_t e, int64_t begin, int64_t end, int thread) {
    c.kernels.sgemm({.m = end - begin,
                     .n = g.out,
                     .k = g.in,
                     .a = x + begin * g.in,
                     .a_row = g.in,
                     .a_col = 1,
                     .b = g.weights[static_cast<size_t>(e)].value,
                     .b_row = 1,
                     .b_col = g.in,
                     .c = y + begin * g.out,
                     .c_row = g.out,
                     .scratch = c.scratch(thread)});
  });
}

void grouped_input_gradient(const TrainContext& c, const GroupedLinear& g, const float* dy, float* dx) {
  for_expert_rows(c, g, [&](int64_t e, int64_t begin, int64_t end, int thread) {
    c.kernels.sgemm({.m = end - begin,
                     .n = g.in,
                     .k = g.out,
                     .a = dy + begin * g.out,
                     .a_row = g.out,
                     .a_col = 1,
                     .b = g.weights[static_cast<size_t>(e)].value,
                     .b_row = g.in,
                     .b_col = 1,
                     .c = dx + begin * g.in,
                     .c_row = g.in,
                     .scratch = c.scratch(thread)});
  });
}

void grouped_weight_gradient(const TrainContext& c, const GroupedLinear& g, const float* dy, const float* x) {
  // An expert's cost is that of its rows, so the rows are divided and each part stands for as many rows of its matrix.
  for_expert_rows(c, g, [&](int64_t e, int64_t begin, int64_t end, int thread) {
    const int64_t first = g.offsets[static_cast<size_t>(e)];
    const int64_t rows = g.offsets[static_cast<size_t>(e) + 1] - first;
    const int64_t out_begin = (begin - first) * g.out / rows;
    const int64_t out_end = (end - first) * g.out / rows;
    c.kernels.sgemm({.m = out_end - out_begin,
                     .n = g.in,
                     .k = rows,
                     .a = dy + first * g.out + out_begin,
                     .a_row = 1,
                     .a_col = g.out,
                     .b = x + first * g.in,
                     .b_row = g.in,
                     .b_col = 1,
                     .c = g.weights[static_cast<size_t>(e)].gradient + out_begin * g.in,
                     .c_row = g.in,
                     .accumulate = true,
                     .scratch = c.scratch(thread)});
  });
}

}  // namespace lathe
