#include "lathe/train/muon.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace lathe {
namespace {

// The quintic's coefficients: the steepest at 0 that still keep all singular values near 1.
constexpr float kLinear = 3.4445F;
constexpr float kCubic = -4.7750F;
constexpr float kQuintic = 2.0315F;

constexpr double kAdamRms = 0.2;  // root mean square of what AdamW's steps are times the rate, as Moonlight measured

// |x| from sums in eight lanes, added in order.
double norm_of(const float* x, int64_t size) {
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {};
  for (int64_t i = 0; i < size; ++i) {
    const double value = x[i];
    lanes[i % kLanes] += value * value;
  }
  double sum = 0.0;
  for (const double lane : lanes) sum += lane;
  return std::sqrt(sum);
}

// c[m, n] = a[m, k] b[k, n], all row-major.
SgemmArgs product_of(int64_t m, int64_t n, int64_t k, const float* a, const float* b, float* c, float* scratch) {
  return {.m = m,
          .n = n,
          .k = k,
          .a = a,
          .a_row = k,
          .a_col = 1,
          .b = b,
          .b_row = n,
          .b_col = 1,
          .c = c,
          .c_row = n,
          .scratch = scratch};
}

int64_t rows_of(const Parameter& p) {
  return p.shape.front();
}

int64_t columns_of(const Parameter& p) {
  return p.size / p.shape.front();
}

int64_t floats_of_thread(std::span<const Parameter> list) {
  int64_t most = 0;
  for (const Parameter& p : list) {
    if (!p.hidden) continue;
    most = std::max(most, Workspace::padded(p.size) + orthogonalise_floats(rows_of(p), columns_of(p)));
  }
  return most;
}

}  // namespace

int64_t orthogonalise_floats(int64_t rows, int64_t columns) {
  const int64_t side = std::min(rows, columns);
  return 2 * Workspace::padded(side * side) + Workspace::padded(rows * columns) +
         Workspace::padded(kSgemmScratchFloats);
}

void orthogonalise(
    const KernelTable& kernels, int64_t rows, int64_t columns, int64_t iterations, float* x, float* memory) {
  const int64_t size = rows * columns;
  const double norm = norm_of(x, size);
  if (norm == 0.0) return;
  const auto scale = static_cast<float>(1.0 / norm);
  for (int64_t i = 0; i < size; ++i) x[i] *= scale;

  // The Gram matrix on the shorter side: X X^T, or X^T X, which multiplies X from the right.
  const bool wide = rows <= columns;
  const int64_t side = std::min(rows, columns);
  float* const gram = memory;
  float* const polynomial = gram + Workspace::padded(side * side);
  float* const product = polynomial + Workspace::padded(side * side);
  float* const scratch = product + Workspace::padded(size);
  const SgemmArgs gram_of_x{.m = side,
                            .n = side,
                            .k = std::max(rows, columns),
                            .a = x,
                            .a_row = wide ? columns : 1,
                            .a_col = wide ? 1 : columns,
                            .b = x,
                            .b_row = wide ? 1 : columns,
                            .b_col = wide ? columns : 1,
                            .c = gram,
                            .c_row = side,
                            .scratch = scratch};
  const SgemmArgs square = product_of(side, side, side, gram, gram, polynomial, scratch);
  const SgemmArgs apply =
      product_of(rows, columns, side, wide ? polynomial : x, wide ? x : polynomial, product, scratch);
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    kernels.sgemm(gram_of_x);
    kernels.sgemm(square);
    for (int64_t i = 0; i < side * side; ++i) polynomial[i] = kCubic * gram[i] + kQuintic * polynomial[i];
    kernels.sgemm(apply);
    for (int64_t i = 0; i < size; ++i) x[i] = kLinear * x[i] + product[i];
  }
}

int64_t Muon::memory_floats(std::span<const Parameter> list, int threads) {
  return threads * floats_of_thread(list);
}

Result<Muon> Muon::create(const MuonOptions& options,
                          std::span<const Parameter> list,
                          ThreadPool& pool,
                          const KernelTable& kernels) {
  Muon out;
  out.options_ = options;
  out.pool_ = &pool;
  out.kernels_ = &kernels;
  out.thread_floats_ = floats_of_thread(list);
  LATHE_TRY(out.memory_, Workspace::create(memory_floats(list, pool.threads())));
  out.scratch_ = out.memory_.take(out.memory_.capacity());
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].hidden) out.order_.push_back(static_cast<int64_t>(i));
  }
  std::ranges::stable_sort(out.order_, std::greater<>(), [&](int64_t i) { return list[static_cast<size_t>(i)].size; });
  return out;
}

void Muon::step(ParameterSet& parameters, std::span<float> momenta, double learning_rate, double gradient_factor) {
  const Step step{parameters, momenta, learning_rate, gradient_factor};
  pool_->run_each(std::ssize(order_), [&](int thread) {
    return [&, memory = scratch_ + thread * thread_floats_](int64_t i) {
      const int64_t position = order_[static_cast<size_t>(i)];
      step_one(step, parameters.list()[static_cast<size_t>(position)], memory);
    };
  });
}

void Muon::step_one(const Step& step, const Parameter& p, float* memory) const {
  float* const value = step.parameters.values().data() + p.offset;
  const float* const gradient = step.parameters.gradients().data() + p.offset;
  float* const momentum = step.momenta.data() + p.offset;
  const auto factor = static_cast<float>(step.gradient_factor);
  const auto mu = static_cast<float>(options_.momentum);
  float* const update = memory;
  for (int64_t i = 0; i < p.size; ++i) {
    const float g = factor * gradient[i];
    momentum[i] = mu * momentum[i] + g;
    update[i] = g + mu * momentum[i];
  }
  const int64_t rows = rows_of(p);
  const int64_t columns = columns_of(p);
  orthogonalise(*kernels_, rows, columns, options_.iterations, update, memory + Workspace::padded(p.size));
  const double scale = kAdamRms * std::sqrt(static_cast<double>(std::max(rows, columns)));
  const auto rate = static_cast<float>(step.learning_rate * scale);
  const auto kept = static_cast<float>(1.0 - step.learning_rate * options_.weight_decay);
  for (int64_t i = 0; i < p.size; ++i) value[i] = kept * value[i] - rate * update[i];
}

}  // namespace lathe
