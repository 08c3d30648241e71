#include "lathe/train/matmul.h"

#include <algorithm>

namespace lathe {
namespace {

constexpr int64_t kRowUnit = 14;     // rows of a part are a multiple of this: whole register tiles, or nearly
constexpr int64_t kColumnUnit = 32;  // likewise columns
constexpr int64_t kGrainOperations = 1 << 20;

// The index-th of `parts` ranges of [0, length), cut at multiples of `unit`, that differ by at most one unit.
struct Cut {
  int64_t begin = 0;
  int64_t end = 0;

  Cut(int64_t length, int64_t unit, int64_t parts, int64_t index) {
    const int64_t units = (length + unit - 1) / unit;
    begin = std::min(index * units / parts * unit, length);
    end = std::min((index + 1) * units / parts * unit, length);
  }
};

// A grid of parts of a result.
struct Grid {
  int64_t rows = 1;
  int64_t columns = 1;

  int64_t parts() const { return rows * columns; }
};

// The grid of at most `parts` parts whose largest one is smallest; of equal ones that with the shortest sides, since a
// part reads its rows of A and its columns of B.
Grid make_grid(int64_t m, int64_t n, int64_t parts) {
  const int64_t row_units = (m + kRowUnit - 1) / kRowUnit;
  const int64_t column_units = (n + kColumnUnit - 1) / kColumnUnit;
  Grid best;
  int64_t best_area = m * n;
  int64_t best_sides = m + n;
  for (int64_t rows = 1; rows <= std::min(parts, row_units); ++rows) {
    const int64_t columns = std::min(parts / rows, column_units);
    const int64_t height = std::min((row_units + rows - 1) / rows * kRowUnit, m);
    const int64_t width = std::min((column_units + columns - 1) / columns * kColumnUnit, n);
    const int64_t area = height * width;
    if (area > best_area || (area == best_area && height + width >= best_sides)) continue;
    best = {rows, columns};
    best_area = area;
    best_sides = height + width;
  }
  return best;
}

// The whole product, cut along both sides of the result.
void run_sgemm(const TrainContext& c, const SgemmArgs& whole) {
  const int64_t operations = 2 * whole.m * whole.n * whole.k;
  const int64_t parts = std::clamp<int64_t>(operations / kGrainOperations, 1, c.pool.threads());
  const Grid grid = make_grid(whole.m, whole.n, parts);
  c.pool.run(grid.parts(), 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      const Cut rows(whole.m, kRowUnit, grid.rows, i % grid.rows);
      const Cut columns(whole.n, kColumnUnit, grid.columns, i / grid.rows);
      SgemmArgs part = whole;
      part.m = rows.end - rows.begin;
      part.n = columns.end - columns.begin;
      part.a += rows.begin * whole.a_row;
      part.b += columns.begin * whole.b_col;
      part.c += rows.begin * whole.c_row + columns.begin;
      part.scratch = c.scratch(thread);
      c.kernels.sgemm(part);
    }
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
