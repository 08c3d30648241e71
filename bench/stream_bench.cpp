// How fast products with one token, or a few, read weights from memory on all processors: matrices of the size of
// DeepSeek-V2-Lite's experts (1408 x 2048) from all over a large buffer in random order, as routing chooses them, each
// split over the threads. Plain reading of the same matrices takes turns with them: what memory gives wanders, the
// ratio stays.
//
//   stream_bench [THREADS [FORMAT ...]]      BF16 Q8_0 Q6_K Q4_K Q4_0, by default all of them
//
// For every format, instruction set and number of tokens: GB/s (median of 40 turns, quartiles) and the median of the
// turns' shares of plain reading. Results must be those of the reference table before anything is timed.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/anonymous_memory.h"
#include "lathe/base/clock.h"
#include "lathe/base/rng.h"
#include "lathe/base/str.h"
#include "lathe/base/thread_pool.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/kernels/peak.h"
#include "lathe/tensor/panels.h"
#include "lathe/tensor/tensor.h"

namespace lathe {
namespace {

constexpr int64_t kRows = 1408;
constexpr int64_t kCols = 2048;
constexpr uint64_t kBufferBytes = uint64_t{4} << 30;
constexpr int64_t kTurnBytes = int64_t{200} << 20;  // read in one turn: some milliseconds
constexpr int kTurns = 40;
constexpr int64_t kTokens[] = {1, 2, 4};
constexpr int64_t kMostTokens = 4;
constexpr DType kFormats[] = {DType::kBF16, DType::kQ8_0, DType::kQ6_K, DType::kQ4_K, DType::kQ4_0};

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(std::lround(share * static_cast<double>(values.size() - 1)))];
}

// Bytes that make sense in every format: as bf16, and as the fp16 scales of blocks, they are between 1e-19 and 2.
void fill(std::byte* buffer) {
  constexpr uint64_t kPattern = uint64_t{1} << 20;
  Rng rng(5);
  for (uint64_t i = 0; i < kPattern; ++i) buffer[i] = static_cast<std::byte>(rng.next_int(0x20, 0x3F));
  for (uint64_t at = kPattern; at < kBufferBytes; at += kPattern) std::memcpy(buffer + at, buffer, kPattern);
}

class StreamBench {
 public:
  StreamBench(ThreadPool& pool, std::byte* buffer) : pool_(pool), buffer_(buffer) {
    Rng rng(3);
    for (float& v : x_.flat()) v = static_cast<float>(rng.next_normal());
    for (int64_t t = 0; t < kMostTokens; ++t) {
      all_kernels()[0]->quantise(x_.data() + t * kCols, 0, kCols / kBlock, {q_.data(), kCols}, t);
    }
  }

  void run(DType format) {
    const int64_t matrix =
        is_block_format(format) ? packed_bytes(format, kRows, kCols) : kRows * kCols * dtype_size(format);
    std::vector<std::string> names = {"plain reading"};
    std::vector<std::function<void(const std::byte*)>> ways = {[&](const std::byte* w) { read(w, matrix); }};
    for (const KernelTable* table : all_kernels()) {
      if (table->isa == "reference") continue;
      check(*table, format);
      for (const int64_t tokens : kTokens) {
        names.push_back(str(table->isa, ", ", tokens, tokens == 1 ? " token" : " tokens"));
        ways.emplace_back([this, table, format, tokens](const std::byte* w) { multiply(*table, format, tokens, w); });
      }
    }
    print(std::string(dtype_name(format)), names, take_turns(ways, matrix));
  }

 private:
  // GB/s of every turn of every way. Each turn begins with another way, so that none is always behind the same one.
  std::vector<std::vector<double>> take_turns(const std::vector<std::function<void(const std::byte*)>>& ways,
                                              int64_t matrix) {
    const auto places = static_cast<int64_t>(kBufferBytes) / matrix;
    const int64_t reads = kTurnBytes / matrix;
    std::vector<std::vector<double>> rates(ways.size());
    for (size_t turn = 0; turn < kTurns; ++turn) {
      for (size_t i = 0; i < ways.size(); ++i) {
        const size_t way = (i + turn) % ways.size();
        const double start = now_seconds();
        for (int64_t r = 0; r < reads; ++r) ways[way](buffer_ + order_.next_int(0, places - 1) * matrix);
        rates[way].push_back(static_cast<double>(reads * matrix) / (now_seconds() - start) / 1e9);
      }
    }
    return rates;
  }

  static void print(const std::string& format,
                    const std::vector<std::string>& names,
                    const std::vector<std::vector<double>>& rates) {
    for (size_t way = 0; way < names.size(); ++way) {
      std::vector<double> shares;
      for (size_t turn = 0; turn < kTurns; ++turn) shares.push_back(100.0 * rates[way][turn] / rates[0][turn]);
      std::printf("%-6s %-24s %5.1f GB/s (%.1f to %.1f), %.0f %% of plain reading\n",
                  format.c_str(),
                  names[way].c_str(),
                  quantile(rates[way], 0.5),
                  quantile(rates[way], 0.25),
                  quantile(rates[way], 0.75),
                  quantile(shares, 0.5));
    }
    std::fflush(stdout);
  }

  void read(const std::byte* w, int64_t bytes) {
    const int64_t each = bytes / pool_.threads();
    pool_.run(pool_.threads(), 1, [&](int64_t begin, int64_t end, int /*thread*/) {
      const std::span part(w + begin * each, static_cast<size_t>((end - begin) * each));
      benchmark::DoNotOptimize(read_once(part, kernels().isa));
    });
  }

  void multiply(const KernelTable& table, DType format, int64_t tokens, const std::byte* w) {
    const int64_t panels = kRows / kPanelRows;
    const int64_t each = (panels + pool_.threads() - 1) / pool_.threads();
    pool_.run(panels, each, [&](int64_t begin, int64_t end, int /*thread*/) {
      multiply(table, format, tokens, w, begin, end, y_.data() + begin * kPanelRows);
    });
  }

  // Rows [16 begin, 16 end).
  void multiply(const KernelTable& table,
                DType format,
                int64_t tokens,
                const std::byte* w,
                int64_t begin,
                int64_t end,
                float* y) {
    const WeightMatrix matrix{
        .dtype = format, .rows = kRows, .cols = kCols, .data = w, .packed = is_block_format(format)};
    if (matrix.packed) {
      table.panel_gemm({.w = matrix,
                        .panel_begin = begin,
                        .panel_end = end,
                        .x = {q_.data(), kCols},
                        .x_rows = nullptr,
                        .tokens = tokens,
                        .y = y,
                        .y_stride = kRows});
    } else {
      table.gemm({.w = matrix,
                  .row_begin = begin * kPanelRows,
                  .row_end = end * kPanelRows,
                  .x = x_.data(),
                  .x_stride = kCols,
                  .tokens = tokens,
                  .y = y,
                  .y_stride = kRows});
    }
  }

  // Ends the program when the table and the reference differ: in any bit, or for stored floats, whose reference sums in
  // float64, by more than rounding.
  void check(const KernelTable& table, DType format) {
    for (const int64_t tokens : kTokens) {
      Tensor<float> expected({kMostTokens, kRows});
      Tensor<float> found({kMostTokens, kRows});
      multiply(*all_kernels()[0], format, tokens, buffer_, 1, 4, expected.data());
      multiply(table, format, tokens, buffer_, 1, 4, found.data());
      float largest = 0.0f;
      float error = 0.0f;
      for (int64_t i = 0; i < found.size(); ++i) {
        largest = std::max(largest, std::fabs(expected.data()[i]));
        error = std::max(error, std::fabs(found.data()[i] - expected.data()[i]));
      }
      if (error <= (is_block_format(format) ? 0.0f : 1e-5f * largest)) continue;
      std::fprintf(stderr,
                   "stream_bench: %s %s: not what the reference computes\n",
                   std::string(table.isa).c_str(),
                   std::string(dtype_name(format)).c_str());
      std::exit(1);
    }
  }

  ThreadPool& pool_;
  std::byte* buffer_;
  Tensor<float> x_{{kMostTokens, kCols}};
  Tensor<std::byte> q_{{kMostTokens * QuantisedRows::row_bytes(kCols)}};
  Tensor<float> y_{{kMostTokens, kRows}};
  Rng order_{7};
};

int run(int argc, char** argv) {
  int64_t threads = default_thread_count();
  if (argc > 1 && (!parse_int(argv[1], threads) || threads < 1 || threads > 1024)) {
    std::fprintf(stderr, "stream_bench: '%s' is no number of threads\n", argv[1]);
    return 2;
  }
  std::vector<DType> formats(std::begin(kFormats), std::end(kFormats));
  if (argc > 2) formats.clear();
  for (int i = 2; i < argc; ++i) {
    const auto* format = std::find_if(std::begin(kFormats), std::end(kFormats), [&](DType known) {
      return dtype_name(known) == std::string_view(argv[i]);
    });
    if (format == std::end(kFormats)) {
      std::fprintf(stderr, "stream_bench: no format '%s'; there are BF16, Q8_0, Q6_K, Q4_K and Q4_0\n", argv[i]);
      return 2;
    }
    formats.push_back(*format);
  }
  const Result<std::unique_ptr<ThreadPool>> pool = ThreadPool::create(static_cast<int>(threads));
  const AnonymousMemory buffer(kBufferBytes, AnonymousMemory::Commit::kOnUse);
  if (!pool || buffer.data() == nullptr) {
    std::fprintf(stderr, "stream_bench: no threads, or no 4 GiB of memory\n");
    return 1;
  }
  fill(buffer.data());
  StreamBench bench(**pool, buffer.data());
  for (const DType format : formats) bench.run(format);
  return 0;
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) {
  return lathe::run(argc, argv);
}
