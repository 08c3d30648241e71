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
#include <string>
#include <vector>

#include "lathe/base/anonymous_memory.h"
#include "lathe/base/rng.h"
#include "lathe/base/str.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/tensor/tensor.h"
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

  // Floats of x, y and W, one after the other, rounded up to cache lines.
  int64_t x_floats() const { return padded(rows * in); }

  int64_t y_floats() const { return padded(rows * out); }

  int64_t floats() const { return x_floats() + y_floats() + padded(in * out); }

  double operations() const { return 2.0 * static_cast<double>(rows) * static_cast<double>(in * out); }

 private:
  static int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }
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
SgemmArgs product(const ProductCase& c, float* set, float* scratch) {
  float* x = set;
  float* y = x + c.x_floats();
  float* w = y + c.y_floats();
  const auto args = [&](int64_t m, int64_t n, int64_t k, float* result) {
    return SgemmArgs{.m = m, .n = n, .k = k, .c = result, .c_row = n, .scratch = scratch};
  };
  const auto a = [](SgemmArgs& to, const float* from, int64_t row, int64_t col) {
    to.a = from;
    to.a_row = row;
    to.a_col = col;
  };
  const auto b = [](SgemmArgs& to, const float* from, int64_t row, int64_t col) {
    to.b = from;
    to.b_row = row;
    to.b_col = col;
  };
  SgemmArgs out;
  switch (c.pass) {
    case Pass::kForward:
      out = args(c.rows, c.out, c.in, y);
      a(out, x, c.in, 1);
      b(out, w, 1, c.in);
      break;
    case Pass::kInputGradient:
      out = args(c.rows, c.in, c.out, x);
      a(out, y, c.out, 1);
      b(out, w, c.in, 1);
      break;
    case Pass::kWeightGradient:
      out = args(c.out, c.in, c.rows, w);
      a(out, y, 1, c.out);
      b(out, x, c.in, 1);
      out.accumulate = true;
      break;
  }
  return out;
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

void check(const KernelTable& table, const ProductCase& c, float* scratch) {
  std::vector<float> expected(static_cast<size_t>(c.floats()));
  fill_random(expected.data(), expected.size());
  std::vector<float> found = expected;
  all_kernels()[0]->sgemm(product(c, expected.data(), scratch));
  table.sgemm(product(c, found.data(), scratch));
  for (size_t i = 0; i < found.size(); ++i) {
    if (!(std::fabs(found[i] - expected[i]) <= 1e-3F)) {
      std::fprintf(stderr, "%s: wrong result at %zu\n", c.name, i);
      std::exit(1);
    }
  }
}

void bench_product(benchmark::State& state, const KernelTable* table, const ProductCase* c, double peak) {
  Tensor<float> scratch({kSgemmScratchFloats});
  check(*table, *c, scratch.data());
  float* const sets_begin = operands();
  const auto sets = static_cast<int64_t>(kOperandBytes / sizeof(float)) / c->floats();
  int64_t set = 0;
  double seconds = 0.0;
  for (auto _ : state) {
    const SgemmArgs args = product(*c, sets_begin + set * c->floats(), scratch.data());
    const auto start = std::chrono::steady_clock::now();
    table->sgemm(args);
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
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  lathe::register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
