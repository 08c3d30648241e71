// Products of training on one thread, at the sizes of recipes/bench-moe.toml: floating point operations per second and
// their share of this core's measured peak. Operands come from memory, as in a training step: every call takes the next
// ones of a buffer far larger than the caches.
//
//   products_bench --benchmark_filter=/avx512vnni --benchmark_repetitions=9
//
// y = x W^T, dx = dy W, dW += dy^T x for x [rows, in], W [out, in].
#include <benchmark/benchmark.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "lathe/base/anonymous_memory.h"
#include "lathe/base/rng.h"
#include "lathe/base/str.h"
#include "lathe/tensor/tensor.h"
#include "lathe/train/matmul.h"
#include "machine.h"

namespace lathe {
namespace {

constexpr uint64_t kOperandBytes = uint64_t{1} << 29;

enum class Pass { kForward, kInputGradient, kWeightGradient };

struct ProductCase {
  const char* name;
  Pass pass;
  int64_t rows;
  int64_t in;
  int64_t out;

  // Floats of x, y and W, one after the other.
  int64_t x_floats() const { return Workspace::padded(rows * in); }

  int64_t y_floats() const { return Workspace::padded(rows * out); }

  int64_t floats() const { return x_floats() + y_floats() + Workspace::padded(in * out); }

  double operations() const { return 2.0 * static_cast<double>(rows) * static_cast<double>(in * out); }
};

constexpr ProductCase kCases[] = {
    {"hidden/y", Pass::kForward, 2048, 256, 256},
    {"hidden/dx", Pass::kInputGradient, 2048, 256, 256},
    {"hidden/dW", Pass::kWeightGradient, 4096, 256, 128},
    {"queries/y", Pass::kForward, 2048, 256, 384},
    {"keys_values/y", Pass::kForward, 2048, 64, 512},
    {"keys_values/dW", Pass::kWeightGradient, 4096, 64, 256},
    {"expert_up/y", Pass::kForward, 512, 256, 256},
    {"expert_down/y", Pass::kForward, 512, 128, 256},
    {"expert_up/dW", Pass::kWeightGradient, 512, 256, 256},
    {"head/y", Pass::kForward, 256, 256, 4096},
    {"head/dx", Pass::kInputGradient, 256, 256, 4096},
    {"head/dW", Pass::kWeightGradient, 512, 256, 2048},
};

// The product of one set of operands.
void multiply(const TrainContext& c, const ProductCase& p, float* set) {
  float* x = set;
  float* y = x + p.x_floats();
  float* w = y + p.y_floats();
  const LinearSize size{p.rows, p.in, p.out};
  switch (p.pass) {
    case Pass::kForward:
      return linear_forward(c, size, x, w, y, Sum::kStore);
    case Pass::kInputGradient:
      return linear_input_gradient(c, size, y, w, x, Sum::kStore);
    case Pass::kWeightGradient:
      return linear_weight_gradient(c, size, y, x, w);
  }
}

void fill_random(float* values, uint64_t count) {
  Rng rng(3);
  for (uint64_t i = 0; i < count; ++i) values[i] = static_cast<float>(rng.next_uniform() - 0.5);
}

// A buffer that all cases share, random at first.
float* operands() {
  static const AnonymousMemory memory = [] {
    AnonymousMemory fresh(kOperandBytes, AnonymousMemory::Commit::kNow);
    if (fresh.data() == nullptr) {
      std::fprintf(stderr, "products_bench: no memory\n");
      std::exit(1);
    }
    fill_random(reinterpret_cast<float*>(fresh.data()), kOperandBytes / sizeof(float));
    return fresh;
  }();
  return reinterpret_cast<float*>(memory.data());
}

void check(const TrainContext& context, const ProductCase& c) {
  std::vector<float> expected(static_cast<size_t>(c.floats()));
  fill_random(expected.data(), expected.size());
  std::vector<float> found = expected;
  multiply({*all_kernels()[0], context.pool, context.products}, c, expected.data());
  multiply(context, c, found.data());
  for (size_t i = 0; i < found.size(); ++i) {
    if (!(std::fabs(found[i] - expected[i]) <= 1e-3F)) {
      std::fprintf(stderr, "%s: wrong result at %zu\n", c.name, i);
      std::exit(1);
    }
  }
}

void bench_product(benchmark::State& state, const KernelTable* table, const ProductCase* c, double peak) {
  Tensor<float> scratch({kSgemmScratchFloats});
  const std::unique_ptr<ThreadPool> pool = ThreadPool::create(1).value();
  const TrainContext context{*table, *pool, scratch.data()};
  check(context, *c);
  float* const sets_begin = operands();
  const auto sets = static_cast<int64_t>(kOperandBytes / sizeof(float)) / c->floats();
  int64_t set = 0;
  double seconds = 0.0;
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    multiply(context, *c, sets_begin + set * c->floats());
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    set = (set + 1) % sets;
  }
  const double flops = c->operations() * static_cast<double>(state.iterations()) / seconds;
  state.counters["GFLOP/s"] = flops / 1e9;
  if (peak > 0.0) state.counters["%peak"] = 100.0 * flops / peak;
}

void register_all() {
  for (const KernelTable* table : all_kernels()) {
    if (table->isa == "reference") continue;  // far too slow to be of interest
    const double peak = bench::peak_rate(PeakKind::kFp32, *table);
    std::printf("%s: %.1f GFLOP/s measured peak of one thread\n", std::string(table->isa).c_str(), peak / 1e9);
    for (const ProductCase& c : kCases) {
      benchmark::RegisterBenchmark(str(c.name, "/", table->isa).c_str(), bench_product, table, &c, peak)
          ->Unit(benchmark::kMicrosecond);
    }
  }
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) {
  return lathe::bench::run(argc, argv, lathe::register_all);
}
