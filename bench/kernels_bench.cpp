// Kernels on one thread: bytes and floating point operations per second, and their share of what this core was measured
// to do in the same run: read bandwidth from a plain read loop, fused multiply-adds from a loop in registers.
//
//   kernels_bench --benchmark_filter=gemm/avx512vnni --benchmark_repetitions=9
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "lathe/base/rng.h"
#include "lathe/base/scalar.h"
#include "lathe/base/str.h"
#include "lathe/kernels/kernel_table.h"
#include "machine.h"

namespace lathe {
namespace {

using bench::peak_rate;
using bench::read_bandwidth;

// ---- cases ---------------------------------------------------------------------------------------------------------

struct GemmCase {
  DType dtype;
  int64_t rows;
  int64_t cols;
  int64_t tokens;
  bool transposed;
};

// Random codes of the type; E4M3 and the others from normally distributed values.
std::vector<std::byte> random_weights(DType dtype, int64_t n) {
  Rng rng(5);
  std::vector<std::byte> out(static_cast<size_t>(n * dtype_size(dtype)));
  std::vector<float> some(4096);
  for (float& v : some) v = static_cast<float>(rng.next_normal());
  for (int64_t i = 0; i < n; ++i) {
    const float value = some[static_cast<size_t>(i * 7 % 4093)];
    std::byte* to = out.data() + i * dtype_size(dtype);
    if (dtype == DType::kF32) {
      std::memcpy(to, &value, 4);
    } else if (dtype == DType::kF8E4M3) {
      *to = static_cast<std::byte>(float_to_e4m3(value));
    } else {
      const uint16_t bits = dtype == DType::kBF16 ? float_to_bf16(value) : float_to_f16(value);
      std::memcpy(to, &bits, 2);
    }
  }
  return out;
}

class GemmBench {
 public:
  GemmBench(const KernelTable& table, const GemmCase& c)
      : table_(table),
        c_(c),
        weights_(random_weights(c.dtype, c.rows * c.cols)),
        scales_(static_cast<size_t>((c.rows + 127) / 128 * ((c.cols + 127) / 128)), 0.5f),
        x_(static_cast<size_t>(c.tokens * inputs())),
        y_(static_cast<size_t>(c.tokens * outputs())) {
    Rng rng(6);
    for (float& v : x_) v = static_cast<float>(rng.next_normal());
  }

  size_t bytes() const { return weights_.size(); }

  void run(const KernelTable& table, std::vector<float>& y) const {
    const WeightMatrix w{.dtype = c_.dtype,
                         .rows = c_.rows,
                         .cols = c_.cols,
                         .data = weights_.data(),
                         .scales = c_.dtype == DType::kF8E4M3 ? scales_.data() : nullptr};
    if (c_.transposed) {
      table.gemm_transposed({.w = w,
                             .row_begin = 0,
                             .row_end = c_.rows,
                             .x = x_.data(),
                             .x_stride = inputs(),
                             .tokens = c_.tokens,
                             .y = y.data(),
                             .y_stride = outputs()});
    } else {
      table.gemm({.w = w,
                  .row_begin = 0,
                  .row_end = c_.rows,
                  .x = x_.data(),
                  .x_stride = inputs(),
                  .tokens = c_.tokens,
                  .y = y.data(),
                  .y_stride = outputs()});
    }
  }

  void run() { run(table_, y_); }

  // Ends the program when the table disagrees with the reference.
  void check() {
    run();
    std::vector<float> expected(y_.size());
    run(*all_kernels()[0], expected);
    const double allowed = 1e-5 * std::sqrt(static_cast<double>(inputs())) * 4.0;
    for (size_t i = 0; i < y_.size(); ++i) {
      if (!(std::fabs(y_[i] - expected[i]) <= allowed)) {
        std::fprintf(stderr,
                     "wrong result at %zu: %g for %g\n",
                     i,
                     static_cast<double>(y_[i]),
                     static_cast<double>(expected[i]));
        std::exit(1);
      }
    }
  }

 private:
  int64_t inputs() const { return c_.transposed ? c_.rows : c_.cols; }

  int64_t outputs() const { return c_.transposed ? c_.cols : c_.rows; }

  const KernelTable& table_;
  GemmCase c_;
  std::vector<std::byte> weights_;
  std::vector<float> scales_;
  std::vector<float> x_;
  std::vector<float> y_;
};

void bench_gemm(benchmark::State& state, const KernelTable* table, GemmCase c, double peak) {
  GemmBench bench(*table, c);
  bench.check();
  const double bandwidth = read_bandwidth(bench.bytes());
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
    bench.run();
    benchmark::ClobberMemory();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double runs_per_second = static_cast<double>(state.iterations()) / seconds;
  const double bytes = static_cast<double>(bench.bytes()) * runs_per_second;
  const double flops = 2.0 * static_cast<double>(c.rows * c.cols * c.tokens) * runs_per_second;
  state.counters["GB/s"] = bytes / 1e9;
  state.counters["GFLOP/s"] = flops / 1e9;
  state.counters["%bandwidth"] = 100.0 * bytes / bandwidth;
  if (peak > 0.0) state.counters["%peak"] = 100.0 * flops / peak;
}

// ---- attention -----------------------------------------------------------------------------------------------------

// One tile of 64 positions for `groups` lane groups of 16 (query, head) pairs: absorbed MLA over cached rows (values
// are the first columns of the keys), or the expanded form over strips that many queries share.
struct LaneCase {
  const char* name;
  CacheFormat format;
  int64_t key_cols;
  int64_t value_cols;
  int64_t groups;
  bool absorbed;
  int64_t lanes = kLaneGroup;  // with a pair
};

constexpr LaneCase kLaneCases[] = {
    {"absorbed_16_heads", CacheFormat::kF16, 576, 512, 1, true},
    {"absorbed_16_heads", CacheFormat::kF32, 576, 512, 1, true},
    {"absorbed_16_heads", CacheFormat::kQ8, 576, 512, 1, true},
    {"absorbed_16_heads", CacheFormat::kQ6, 576, 512, 1, true},
    {"absorbed_8_heads", CacheFormat::kF16, 576, 512, 1, true, kLaneGroup / 2},
    {"absorbed_8_heads", CacheFormat::kQ8, 576, 512, 1, true, kLaneGroup / 2},
    {"absorbed_128_heads", CacheFormat::kF16, 576, 512, 8, true},
    {"absorbed_128_heads", CacheFormat::kQ8, 576, 512, 8, true},
    {"absorbed_128_heads", CacheFormat::kQ6, 576, 512, 8, true},
    {"expanded_128_queries", CacheFormat::kF32, 192, 128, 8, false},
    {"expanded_128_queries", CacheFormat::kQ8, 192, 128, 8, false},
    {"expanded_16_queries", CacheFormat::kF32, 192, 128, 1, false},
};

// Floats at the start of a cache line, as a workspace gives them.
class Lines {
 public:
  Lines(int64_t n, float value) : lines_(static_cast<size_t>((n + 15) / 16)), n_(n) { fill(value); }

  float* data() { return lines_.front().floats; }

  void fill(float value) { std::fill_n(data(), n_, value); }

  std::vector<float> copy() { return {data(), data() + n_}; }

 private:
  struct alignas(64) Line {
    float floats[16];
  };

  std::vector<Line> lines_;
  int64_t n_;
};

class LaneBench {
 public:
  explicit LaneBench(const LaneCase& c)
      : c_(c),
        rows_(static_cast<size_t>(kTileKeys * cache_row_bytes(c.format, width()))),
        strip_(kStripFloats, 0.0F),
        q_(c.groups * c.key_cols * kLaneGroup, 0.02F),
        q8_(c.groups * c.key_cols / kCacheGroup * kLaneBlockBytes / 4, 0.0F),
        scores_(c.groups * kLaneScores, 0.0F),
        state_(c.groups * 3 * kLaneGroup, 0.0F),
        out_(c.groups * c.value_cols * kLaneGroup, 0.0F),
        visible_(static_cast<size_t>(c.groups * kLaneGroup), 64) {
    for (size_t i = 0; i < visible_.size(); ++i) {
      if (static_cast<int64_t>(i) % kLaneGroup >= c.lanes) visible_[i] = 0;
    }
    Rng rng(7);
    std::vector<float> row(static_cast<size_t>(width()));
    for (int64_t i = 0; i < kTileKeys; ++i) {
      for (float& v : row) v = static_cast<float>(rng.next_normal());
      encode_cache_row(c.format, row.data(), width(), rows_.data() + i * cache_row_bytes(c.format, width()));
    }
    all_kernels()[0]->lane_quantise(
        {.q = q_.data(), .cols = c.groups * c.key_cols, .out = reinterpret_cast<std::byte*>(q8_.data())});
  }

  int64_t multiply_adds() const { return kTileKeys * c_.lanes * c_.groups * (c_.key_cols + c_.value_cols); }

  void run(const KernelTable& table) {
    if (c_.format == CacheFormat::kQ8) {
      table.lane_scores_q8({.rows = rows_.data(),
                            .elements = width(),
                            .first = 0,
                            .keys = kTileKeys,
                            .blocks = c_.key_cols / kCacheGroup,
                            .q = reinterpret_cast<const std::byte*>(q8_.data()),
                            .q_stride = c_.key_cols / kCacheGroup * kLaneBlockBytes,
                            .scores = scores_.data(),
                            .groups = c_.groups,
                            .lanes = c_.lanes});
    } else {
      for (int64_t c = 0; c < c_.key_cols; c += kStripColumns) {
        load(table, c);
        table.lane_scores({.strip = strip_.data(),
                           .keys = kTileKeys,
                           .cols = kStripColumns,
                           .q = q_.data() + c * kLaneGroup,
                           .q_stride = c_.key_cols * kLaneGroup,
                           .scores = scores_.data(),
                           .groups = c_.groups,
                           .accumulate = c > 0,
                           .lanes = c_.lanes});
      }
    }
    const int64_t lanes = c_.groups * kLaneGroup;
    for (int64_t g = 0; g < c_.groups; ++g) {
      table.lane_softmax({.scores = scores_.data() + g * kLaneScores,
                          .keys = kTileKeys,
                          .visible = visible_.data(),
                          .scale = 0.5F,
                          .maximum = state_.data() + g * kLaneGroup,
                          .sum = state_.data() + lanes + g * kLaneGroup,
                          .factor = state_.data() + 2 * lanes + g * kLaneGroup});
    }
    if (c_.format == CacheFormat::kQ8) {
      table.lane_values_q8({.rows = rows_.data(),
                            .elements = width(),
                            .first = c_.absorbed ? 0 : c_.key_cols,
                            .keys = kTileKeys,
                            .blocks = c_.value_cols / kCacheGroup,
                            .weights = scores_.data(),
                            .visible = visible_.data(),
                            .factor = state_.data() + 2 * lanes,
                            .out = out_.data(),
                            .out_stride = c_.value_cols * kLaneGroup,
                            .groups = c_.groups,
                            .lanes = c_.lanes});
      return;
    }
    for (int64_t c = 0; c < c_.value_cols; c += kStripColumns) {
      load(table, c_.absorbed ? c : c_.key_cols + c);
      table.lane_values({.strip = strip_.data(),
                         .keys = kTileKeys,
                         .cols = kStripColumns,
                         .weights = scores_.data(),
                         .factor = state_.data() + 2 * lanes,
                         .out = out_.data() + c * kLaneGroup,
                         .out_stride = c_.value_cols * kLaneGroup,
                         .groups = c_.groups,
                         .lanes = c_.lanes});
    }
  }

  // Starts from nothing, runs once and returns the output.
  std::vector<float> first(const KernelTable& table) {
    state_.fill(0.0F);
    out_.fill(0.0F);
    run(table);
    return out_.copy();
  }

 private:
  int64_t width() const { return c_.absorbed ? c_.key_cols : c_.key_cols + c_.value_cols; }

  // The strip of columns [c, c + 64).
  void load(const KernelTable& table, int64_t c) {
    table.load_strip({.format = c_.format,
                      .data = rows_.data(),
                      .elements = width(),
                      .stride = cache_row_bytes(c_.format, width()),
                      .first = c,
                      .rows = kTileKeys,
                      .cols = kStripColumns},
                     strip_.data());
  }

  LaneCase c_;
  std::vector<std::byte> rows_;
  Lines strip_;
  Lines q_;
  Lines q8_;  // the queries as bytes
  Lines scores_;
  Lines state_;
  Lines out_;
  std::vector<int32_t> visible_;
};

void bench_lanes(benchmark::State& state, const KernelTable* table, const LaneCase* c, double peak) {
  LaneBench bench(*c);
  const std::vector<float> expected = bench.first(*all_kernels()[0]);
  const std::vector<float> found = bench.first(*table);
  for (size_t i = 0; i < found.size(); ++i) {
    if (static_cast<int64_t>(i) % kLaneGroup >= c->lanes) continue;
    if (!(std::fabs(found[i] - expected[i]) <= 1e-3F)) {
      std::fprintf(stderr, "%s: wrong result at %zu\n", c->name, i);
      std::exit(1);
    }
  }
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
    bench.run(*table);
    benchmark::ClobberMemory();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double flops =
      2.0 * static_cast<double>(bench.multiply_adds()) * static_cast<double>(state.iterations()) / seconds;
  state.counters["GFLOP/s"] = flops / 1e9;
  if (peak > 0.0) state.counters["%peak"] = 100.0 * flops / peak;
}

// Elementwise work on n floats: nanoseconds per element say all.
struct VectorCase {
  const char* name;
  void (*run)(const KernelTable& table, float* a, float* b, int64_t n);
};

const VectorCase kVectorCases[] = {
    {"rms_norm", [](const KernelTable& k, float* a, float* b, int64_t n) { k.rms_norm(a, b, a, n, 1e-6f); }},
    {"silu_mul", [](const KernelTable& k, float* a, float* b, int64_t n) { k.silu_mul(a, b, b, n); }},
    {"softmax_step",
     [](const KernelTable& k, float* a, float*, int64_t n) {
       SoftmaxState state{-INFINITY, 0.0f};
       k.softmax_step(a, n, n, 0.1f, state);
     }},
    {"rope_interleaved",
     [](const KernelTable& k, float* a, float* b, int64_t n) { k.rope_interleaved(a, b, b, n / 2); }},
};

void bench_vector(benchmark::State& state, const KernelTable* table, const VectorCase* c) {
  constexpr int64_t kCount = 2048;
  std::vector<float> a(kCount, 0.7f), b(kCount, 0.5f), a_reference = a, b_reference = b;
  c->run(*table, a.data(), b.data(), kCount);
  c->run(*all_kernels()[0], a_reference.data(), b_reference.data(), kCount);
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::fabs(a[i] - a_reference[i]) <= 1e-5f) || !(std::fabs(b[i] - b_reference[i]) <= 1e-5f)) {
      std::fprintf(stderr, "%s: wrong result at %zu\n", c->name, i);
      std::exit(1);
    }
  }
  const std::vector<float> a_start(kCount, 0.7f), b_start(kCount, 0.5f);
  for (auto _ : state) {
    std::copy(a_start.begin(), a_start.end(), a.begin());
    std::copy(b_start.begin(), b_start.end(), b.begin());
    c->run(*table, a.data(), b.data(), kCount);
    benchmark::ClobberMemory();
  }
  state.counters["Gelement/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * kCount) / 1e9, benchmark::Counter::kIsRate);
}

void register_all() {
  for (const KernelTable* table : all_kernels()) {
    if (table->isa == "reference") continue;  // far too slow to be of interest
    const double peak = peak_rate(PeakKind::kFp32, *table);
    std::printf("%s: %.1f GFLOP/s measured peak of one thread\n", std::string(table->isa).c_str(), peak / 1e9);
    const auto add = [&](const GemmCase& c) {
      const std::string name = str(c.transposed ? "gemm_transposed/" : "gemm/",
                                   table->isa,
                                   "/",
                                   dtype_name(c.dtype),
                                   "/",
                                   c.rows,
                                   "x",
                                   c.cols,
                                   "/tokens:",
                                   c.tokens);
      benchmark::RegisterBenchmark(name.c_str(), bench_gemm, table, c, peak)->Unit(benchmark::kMicrosecond);
    };
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3}) {
      for (const int64_t tokens : {1, 4, 16, 64}) add({dtype, 1408, 2048, tokens, false});
      add({dtype, 102400, 2048, 1, false});  // the output projection of V2-Lite: from memory, not from a cache
      for (const int64_t tokens : {1, 16}) add({dtype, 128, 512, tokens, true});  // one head of the absorbed W_UK
    }
    for (const LaneCase& c : kLaneCases) {
      benchmark::RegisterBenchmark(str("lanes/", table->isa, "/", c.name, "/", cache_format_name(c.format)).c_str(),
                                   bench_lanes,
                                   table,
                                   &c,
                                   peak)
          ->Unit(benchmark::kMicrosecond);
    }
    for (const VectorCase& c : kVectorCases) {
      benchmark::RegisterBenchmark(str(c.name, "/", table->isa).c_str(), bench_vector, table, &c);
    }
  }
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) {
  return lathe::bench::run(argc, argv, lathe::register_all);
}
