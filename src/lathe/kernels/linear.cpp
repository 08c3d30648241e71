#include "lathe/kernels/linear.h"

#include <algorithm>

namespace lathe {

namespace {

// Multiply-adds below which waking another thread costs more than it saves.
constexpr int64_t kMinWork = 16 * 1024;
// Rows are handed out in groups of this many, which is a multiple of every kernel's row tile.
constexpr int64_t kRowGroup = 8;

int64_t row_groups(int64_t rows) {
  return (rows + kRowGroup - 1) / kRowGroup;
}

// Calls visit(job, first row, last row) for the part [begin, end) of the groups of all jobs, laid end to end.
// A group of a job with more tokens costs more, so positions count groups weighted by tokens.
template <class Jobs, class Rows, class Visit>
void visit_part(const Jobs& jobs, int64_t begin, int64_t end, const Rows& rows_of, const Visit& visit) {
  int64_t offset = 0;
  for (const auto& job : jobs) {
    const int64_t weight = std::max<int64_t>(job.tokens, 1);
    const int64_t groups = row_groups(rows_of(job));
    const int64_t units = groups * weight;
    const int64_t from = std::clamp(begin - offset, int64_t{0}, units);
    const int64_t to = std::clamp(end - offset, int64_t{0}, units);
    offset += units;
    if (from >= to || job.tokens == 0) continue;
    // A group belongs to the part in which its first unit lies.
    const int64_t first = (from + weight - 1) / weight;
    const int64_t last = (to + weight - 1) / weight;
    const int64_t row_begin = first * kRowGroup;
    const int64_t row_end = std::min(last * kRowGroup, rows_of(job));
    if (row_begin < row_end) visit(job, row_begin, row_end);
  }
}

template <class Jobs, class Rows, class Cols>
int64_t total_units(const Jobs& jobs, const Rows& rows_of, const Cols& cols_of, int64_t& grain) {
  int64_t units = 0;
  int64_t work = 0;
  for (const auto& job : jobs) {
    units += row_groups(rows_of(job)) * std::max<int64_t>(job.tokens, 1);
    work += rows_of(job) * cols_of(job) * job.tokens;
  }
  grain = work > 0 ? std::max<int64_t>(1, units * kMinWork / work) : std::max<int64_t>(units, 1);
  return units;
}

}  // namespace

void run_gemms(const CpuContext& cpu, std::span<const GemmArgs> jobs) {
  const auto rows_of = [](const GemmArgs& job) { return job.row_end - job.row_begin; };
  int64_t grain = 1;
  const int64_t units = total_units(
      jobs, rows_of, [](const GemmArgs& job) { return job.w.cols; }, grain);
  cpu.pool.run(units, grain, [&](int64_t begin, int64_t end, int) {
    visit_part(jobs, begin, end, rows_of, [&](const GemmArgs& job, int64_t row_begin, int64_t row_end) {
      GemmArgs part = job;
      part.row_begin = job.row_begin + row_begin;
      part.row_end = job.row_begin + row_end;
      part.y = job.y + row_begin;
      cpu.kernels.gemm(part);
    });
  });
}

GemmArgs whole_product(const WeightMatrix& w, const float* x, int64_t tokens, float* y, int64_t y_stride) {
  return {.w = w,
          .row_begin = 0,
          .row_end = w.rows,
          .x = x,
          .x_stride = w.cols,
          .tokens = tokens,
          .y = y,
          .y_stride = y_stride,
          .accumulate = false};
}

void linear(const CpuContext& cpu, const WeightMatrix& w, const float* bias, const float* x, int64_t tokens, float* y) {
  const GemmArgs job = whole_product(w, x, tokens, y, w.rows);
  run_gemms(cpu, {&job, 1});
  add_bias(cpu, bias, y, tokens, w.rows);
}

void add_bias(const CpuContext& cpu, const float* bias, float* y, int64_t tokens, int64_t n) {
  if (bias == nullptr) return;
  for (int64_t t = 0; t < tokens; ++t) cpu.kernels.add(y + t * n, bias, n);
}

void run_gated(const CpuContext& cpu, std::span<const GatedJob> jobs) {
  const auto rows_of = [](const GatedJob& job) { return job.gate.rows; };
  int64_t grain = 1;
  const int64_t units = total_units(
      jobs, rows_of, [](const GatedJob& job) { return 2 * job.gate.cols; }, grain);
  cpu.pool.run(units, grain, [&](int64_t begin, int64_t end, int) {
    visit_part(jobs, begin, end, rows_of, [&](const GatedJob& job, int64_t row_begin, int64_t row_end) {
      const int64_t width = job.gate.rows;
      GemmArgs part{.w = job.gate,
                    .row_begin = row_begin,
                    .row_end = row_end,
                    .x = job.x,
                    .x_stride = job.gate.cols,
                    .tokens = job.tokens,
                    .y = job.out + row_begin,
                    .y_stride = width,
                    .accumulate = false};
      cpu.kernels.gemm(part);
      part.w = job.up;
      part.y = job.up_scratch + row_begin;
      cpu.kernels.gemm(part);
      for (int64_t t = 0; t < job.tokens; ++t) {
        float* out = job.out + t * width + row_begin;
        cpu.kernels.silu_mul(out, job.up_scratch + t * width + row_begin, out, row_end - row_begin);
      }
    });
  });
}

}  // namespace lathe
