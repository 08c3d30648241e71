#include "lathe/kernels/linear.h"

#include <algorithm>
#include <array>

#include "lathe/tensor/panels.h"

namespace lathe {

namespace {

// Multiply-adds below which waking another thread costs more than it saves.
constexpr int64_t kMinWork = 16 * 1024;
// Rows are handed out in groups of this many: two panels, so that a group of a SwiGLU's outputs is a whole block to
// quantise, and a multiple of the row tiles of the other kernels.
constexpr int64_t kRowGroup = 32;
static_assert(kRowGroup % kPanelRows == 0 && kRowGroup == kBlock);

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

// Rows [row_begin, row_end) of w times the tokens of an input; y points to the output of row_begin. Both are multiples
// of kRowGroup, but for the end of w.
template <class Job>
void multiply_rows(const KernelTable& kernels,
                   const Job& job,
                   const WeightMatrix& w,
                   int64_t row_begin,
                   int64_t row_end,
                   float* y,
                   int64_t y_stride) {
  if (w.packed) {
    kernels.panel_gemm({.w = w,
                        .panel_begin = row_begin / kPanelRows,
                        .panel_end = (row_end + kPanelRows - 1) / kPanelRows,
                        .x = job.quantised,
                        .x_rows = job.x_rows,
                        .tokens = job.tokens,
                        .y = y,
                        .y_stride = y_stride});
    return;
  }
  kernels.gemm({.w = w,
                .row_begin = row_begin,
                .row_end = row_end,
                .x = job.x,
                .x_stride = w.cols,
                .tokens = job.tokens,
                .y = y,
                .y_stride = y_stride,
                .accumulate = false});
}

}  // namespace

int64_t quantised_floats(int64_t rows, int64_t cols) {
  return Workspace::padded(rows * QuantisedRows::row_bytes(cols) / static_cast<int64_t>(sizeof(float)));
}

QuantisedRows take_quantised(Workspace& workspace, int64_t rows, int64_t cols) {
  return {workspace.take_as<std::byte>(rows * QuantisedRows::row_bytes(cols)), cols};
}

QuantisedRows quantise_activations(const CpuContext& cpu, const float* x, int64_t rows, int64_t cols) {
  const QuantisedRows out = take_quantised(cpu.workspace, rows, cols);
  const int64_t blocks = cols / kBlock;
  cpu.pool.run(
      rows, std::max<int64_t>(1, 4 * kMinWork / std::max<int64_t>(cols, 1)), [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; ++r) cpu.kernels.quantise(x + r * cols, 0, blocks, out, r);
      });
  return out;
}

QuantisedRows rows_from(const QuantisedRows& rows, int64_t first) {
  return {rows.data + first * QuantisedRows::row_bytes(rows.cols), rows.cols};
}

void run_jobs(const CpuContext& cpu, std::span<const LinearJob> jobs) {
  const auto rows_of = [](const LinearJob& job) { return job.w.rows; };
  int64_t grain = 1;
  const int64_t units = total_units(
      jobs, rows_of, [](const LinearJob& job) { return job.w.cols; }, grain);
  cpu.pool.run(units, grain, [&](int64_t begin, int64_t end, int) {
    visit_part(jobs, begin, end, rows_of, [&](const LinearJob& job, int64_t row_begin, int64_t row_end) {
      multiply_rows(cpu.kernels, job, job.w, row_begin, row_end, job.y + row_begin, job.y_stride);
    });
  });
}

void run_linear(const CpuContext& cpu, const float* x, int64_t tokens, std::span<const LinearOutput> outputs) {
  constexpr size_t kMostOutputs = 4;
  LATHE_CHECK(!outputs.empty() && outputs.size() <= kMostOutputs);
  const Workspace::Scope scope(cpu.workspace);
  QuantisedRows quantised;
  if (std::ranges::any_of(outputs, [](const LinearOutput& out) { return out.w.packed; })) {
    quantised = quantise_activations(cpu, x, tokens, outputs.front().w.cols);
  }
  std::array<LinearJob, kMostOutputs> jobs;
  for (size_t i = 0; i < outputs.size(); ++i) {
    jobs[i] = {.w = outputs[i].w,
               .x = x,
               .quantised = quantised,
               .x_rows = nullptr,
               .tokens = tokens,
               .y = outputs[i].y,
               .y_stride = outputs[i].y_stride};
  }
  run_jobs(cpu, {jobs.data(), outputs.size()});
}

void linear(const CpuContext& cpu, const WeightMatrix& w, const float* bias, const float* x, int64_t tokens, float* y) {
  const LinearOutput output{w, y, w.rows};
  run_linear(cpu, x, tokens, {&output, 1});
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
      multiply_rows(cpu.kernels, job, job.gate, row_begin, row_end, job.out + row_begin, width);
      multiply_rows(cpu.kernels, job, job.up, row_begin, row_end, job.up_scratch + row_begin, width);
      for (int64_t t = 0; t < job.tokens; ++t) {
        float* out = job.out + t * width;
        cpu.kernels.silu_mul(
            out + row_begin, job.up_scratch + t * width + row_begin, out + row_begin, row_end - row_begin);
        if (job.out_quantised.data != nullptr) {
          cpu.kernels.quantise(out, row_begin / kBlock, row_end / kBlock, job.out_quantised, t);
        }
      }
    });
  });
}

}  // namespace lathe
