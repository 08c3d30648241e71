// Products with packed block formats on one thread, for every format, instruction set and kind of shape: one token from
// the cache and from memory, a few tokens, an expert's share of a prompt, a whole chunk. Results must have the bits of
// the reference table before anything is timed.
//
//   panels_bench --benchmark_filter=avx512vnni/Q8_0 --benchmark_repetitions=9
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "lathe/base/rng.h"
#include "lathe/base/scalar.h"
#include "lathe/base/str.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/tensor/panels.h"
#include "lathe/tensor/tensor.h"
#include "machine.h"

namespace lathe {
namespace {

constexpr DType kFormats[] = {
    DType::kQ8_0, DType::kQ6_K, DType::kQ5_K, DType::kQ5_1, DType::kQ5_0, DType::kQ4_K, DType::kQ4_1, DType::kQ4_0};

struct Shape {
  int64_t rows;
  int64_t cols;
  int64_t tokens;
};

constexpr Shape kShapes[] = {
    {1408, 2048, 1},    // one expert's projection, from the cache
    {102400, 2048, 1},  // the output projection of V2-Lite, from memory
    {1408, 2048, 4},
    {1408, 2048, 8},   // from here on the amx table uses tiles
    {1408, 2048, 48},  // what an expert gets of 512 tokens
    {3072, 2048, 512},
};

class PanelBench {
 public:
  PanelBench(DType format, const Shape& shape)
      : shape_(shape),
        packed_({packed_bytes(format, shape.rows, shape.cols)}),
        x_({shape.tokens * QuantisedRows::row_bytes(shape.cols)}),
        y_(static_cast<size_t>(shape.tokens * shape.rows)) {
    w_ = {.dtype = format, .rows = shape.rows, .cols = shape.cols, .data = packed_.data(), .packed = true};
    fill(format);
    Rng rng(6);
    std::vector<float> row(static_cast<size_t>(shape.cols));
    for (int64_t t = 0; t < shape.tokens; ++t) {
      for (float& v : row) v = static_cast<float>(rng.next_normal());
      all_kernels()[0]->quantise(row.data(), 0, shape.cols / kBlock, {x_.data(), shape.cols}, t);
    }
  }

  double bytes() const { return static_cast<double>(packed_.size()); }

  double operations() const { return 2.0 * static_cast<double>(shape_.rows * shape_.cols * shape_.tokens); }

  void run(const KernelTable& table) { run(table, (shape_.rows + kPanelRows - 1) / kPanelRows, y_); }

  // Ends the program when the table and the reference differ in a bit. Four panels tell, and the reference is slow.
  void check(const KernelTable& table) {
    std::vector<float> found(y_.size());
    std::vector<float> expected(y_.size());
    run(table, 4, found);
    run(*all_kernels()[0], 4, expected);
    if (std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)) == 0) return;
    std::fprintf(stderr,
                 "%s %s: other bits than the reference\n",
                 std::string(table.isa).c_str(),
                 std::string(dtype_name(w_.dtype)).c_str());
    std::exit(1);
  }

 private:
  // Some random panels, repeated.
  void fill(DType format) {
    constexpr int64_t kDifferent = 4;
    Rng rng(5);
    std::vector<std::byte> rows(static_cast<size_t>(kDifferent * kPanelRows * row_bytes(format, shape_.cols)));
    for (std::byte& b : rows) b = static_cast<std::byte>(rng.next_int(0, 255));
    const uint16_t scale = float_to_f16(0.01F);
    const auto block = static_cast<size_t>(block_bytes(format));
    const bool two =
        format == DType::kQ4_1 || format == DType::kQ5_1 || format == DType::kQ4_K || format == DType::kQ5_K;
    for (size_t at = format == DType::kQ6_K ? block - 2 : 0; at < rows.size(); at += block) {
      std::memcpy(rows.data() + at, &scale, 2);
      if (two) std::memcpy(rows.data() + at + 2, &scale, 2);
    }
    const WeightMatrix matrix{
        .dtype = format, .rows = kDifferent * kPanelRows, .cols = shape_.cols, .data = rows.data()};
    const int64_t bytes = panel_bytes(format, shape_.cols);
    for (int64_t p = 0; p < packed_.size() / bytes; ++p) {
      if (p < kDifferent) {
        pack_panel(matrix, p, packed_.data() + p * bytes);
      } else {
        std::memcpy(packed_.data() + p * bytes, packed_.data() + (p % kDifferent) * bytes, static_cast<size_t>(bytes));
      }
    }
  }

  void run(const KernelTable& table, int64_t panels, std::vector<float>& y) {
    table.panel_gemm({.w = w_,
                      .panel_begin = 0,
                      .panel_end = panels,
                      .x = {x_.data(), shape_.cols},
                      .x_rows = nullptr,
                      .tokens = shape_.tokens,
                      .y = y.data(),
                      .y_stride = shape_.rows});
  }

  Shape shape_;
  Tensor<std::byte> packed_;
  Tensor<std::byte> x_;
  std::vector<float> y_;
  WeightMatrix w_;
};

void bench_panels(benchmark::State& state, const KernelTable* table, DType format, Shape shape, double peak) {
  PanelBench bench(format, shape);
  bench.check(*table);
  const double bandwidth = bench::read_bandwidth(static_cast<size_t>(bench.bytes()));
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
    bench.run(*table);
    benchmark::ClobberMemory();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double runs = static_cast<double>(state.iterations()) / seconds;
  state.counters["GB/s"] = bench.bytes() * runs / 1e9;
  state.counters["Gop/s"] = bench.operations() * runs / 1e9;
  state.counters["%bandwidth"] = 100.0 * bench.bytes() * runs / bandwidth;
  state.counters["%peak"] = 100.0 * bench.operations() * runs / peak;
}

void register_all() {
  for (const KernelTable* table : all_kernels()) {
    if (table->isa == "reference") continue;  // far too slow to be of interest
    const double peak = bench::peak_rate(PeakKind::kInt8, *table);
    std::printf("%s: %.1f Gop/s measured int8 peak of one thread\n", std::string(table->isa).c_str(), peak / 1e9);
    for (const DType format : kFormats) {
      for (const Shape& shape : kShapes) {
        const std::string name = str(
            "panels/", table->isa, "/", dtype_name(format), "/", shape.rows, "x", shape.cols, "/tokens:", shape.tokens);
        benchmark::RegisterBenchmark(name.c_str(), bench_panels, table, format, shape, peak)
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) {
  return lathe::bench::run(argc, argv, lathe::register_all);
}
