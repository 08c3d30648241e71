// Where a training step's time goes: real steps of the model of recipes/bench-moe.toml (forward, backward, AdamW) run
// over a kernel table whose functions measure themselves.
//
//   train_bench [THREADS [STEPS [nothing|latents|layers]]]
//
// Prints the median step, its tokens per second and its share of the measured peak of fused multiply-adds, then a row
// per kind of work: milliseconds of a step (mean over the threads), share of the step, and for products GFLOP, GFLOP/s
// of a thread and its share of the peak. Copies, routing, the walk over the tape and waiting for other threads are what
// remains.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/check.h"
#include "lathe/base/json.h"
#include "lathe/base/rng.h"
#include "lathe/base/str.h"
#include "lathe/kernels/peak.h"
#include "lathe/train/adamw.h"
#include "lathe/train/train_model.h"

namespace lathe {
namespace {

constexpr std::string_view kConfig = R"({"model_type": "deepseek_v2", "vocab_size": 4096, "hidden_size": 256,
  "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 8, "kv_lora_rank": 64, "q_lora_rank": null,
  "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "n_routed_experts": 16, "num_experts_per_tok": 2,
  "n_shared_experts": 1, "moe_intermediate_size": 128, "intermediate_size": 512, "first_k_dense_replace": 0,
  "moe_layer_freq": 1, "n_group": 1, "topk_group": 1, "topk_method": "greedy", "scoring_func": "softmax",
  "norm_topk_prob": false, "routed_scaling_factor": 1.0, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": false, "tie_word_embeddings": false,
  "seq_aux": true, "bos_token_id": 0, "eos_token_id": 1})";
constexpr int64_t kSequences = 16;
constexpr int64_t kSequenceLength = 256;
constexpr double kUsefulFlopsPerToken =
    27.8e6;  // 6 per active matrix weight, and causal attention forward and backward

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Ticks of a clock that costs little to read: functions of a hundred nanoseconds are measured.
int64_t ticks() {
#if defined(__x86_64__)
  return static_cast<int64_t>(__builtin_ia32_rdtsc());
#else
  return std::chrono::steady_clock::now().time_since_epoch().count();
#endif
}

double ticks_per_second() {
  const double start = now();
  const int64_t first = ticks();
  while (now() - start < 0.05) {
  }
  return static_cast<double>(ticks() - first) / (now() - start);
}

enum class Kind {
  kAttentionProducts,
  kAttentionPacking,
  kAttentionSoftmax,
  kCrossEntropy,
  kNorm,
  kSwiglu,
  kRope,
  kRows,
  kAdamw,
  kCount,
};

constexpr std::string_view kNames[] = {"attention: products",
                                       "attention: packing",
                                       "attention: softmax",
                                       "cross entropy",
                                       "norm",
                                       "SwiGLU",
                                       "RoPE",
                                       "sums and scales of rows",
                                       "AdamW"};
static_assert(std::size(kNames) == static_cast<size_t>(Kind::kCount));

// A product of training: of y = x W^T, dx = dy W and dW = dy^T x, by the sides of W.
struct Product {
  int64_t in;
  int64_t out;
  int pass;  // 0: y, 1: dx, 2: dW

  auto operator<=>(const Product&) const = default;
};

struct Spent {
  int64_t ticks = 0;
  double operations = 0.0;

  void add(const Spent& other) {
    ticks += other.ticks;
    operations += other.operations;
  }
};

// What one thread spends.
struct Account {
  Spent kinds[static_cast<size_t>(Kind::kCount)];
  std::map<Product, Spent> products;

  Spent& on(Kind kind) { return kinds[static_cast<size_t>(kind)]; }
};

// Every thread's account; an entry is made when a thread first works.
struct Accounts {
  std::vector<std::unique_ptr<Account>> all;
  std::mutex mutex;
};

Accounts& accounts() {
  static Accounts instance;
  return instance;
}

Account& own_account() {
  thread_local Account* own = [] {
    const std::lock_guard lock(accounts().mutex);
    return accounts().all.emplace_back(std::make_unique<Account>()).get();
  }();
  return *own;
}

class Timed {
 public:
  explicit Timed(Spent& spent) : spent_(spent), start_(ticks()) {}

  explicit Timed(Kind kind) : Timed(own_account().on(kind)) {}

  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

  ~Timed() { spent_.ticks += ticks() - start_; }

 private:
  Spent& spent_;
  int64_t start_;
};

// Products of attention are those with packed keys or values, and the two with a tile of probabilities on the left.
Spent& spent_on_product(const SgemmArgs& a) {
  const bool weight_gradient = a.a_col != 1;
  const bool forward = a.b_col != 1;
  const bool of_tile = weight_gradient && a.k <= 64;
  Account& account = own_account();
  if (a.b_packed != nullptr || of_tile) return account.on(Kind::kAttentionProducts);
  const int64_t in = forward ? a.k : a.c_row;
  const int64_t out = weight_gradient ? a.a_col : forward ? a.c_row : a.k;
  return account.products[{in, out, weight_gradient ? 2 : forward ? 0 : 1}];
}

// The table's functions, each on the account of its kind.
KernelTable measuring_table() {
  KernelTable table = kernels();
  table.sgemm = [](const SgemmArgs& a) {
    Spent& spent = spent_on_product(a);
    spent.operations += 2.0 * static_cast<double>(a.m) * static_cast<double>(a.n) * static_cast<double>(a.k);
    const Timed timed(spent);
    kernels().sgemm(a);
  };
  table.sgemm_pack = [](const SgemmPackArgs& a) {
    const Timed timed(Kind::kAttentionPacking);
    kernels().sgemm_pack(a);
  };
  table.softmax_step = [](float* scores, int64_t count, int64_t padded, float scale, SoftmaxState& state) {
    const Timed timed(padded > 1024 ? Kind::kCrossEntropy : Kind::kAttentionSoftmax);
    return kernels().softmax_step(scores, count, padded, scale, state);
  };
  table.softmax_backward = [](const SoftmaxBackwardArgs& a) {
    const Timed timed(Kind::kAttentionSoftmax);
    kernels().softmax_backward(a);
  };
  table.rms_norm = [](const float* x, const float* weight, float* y, int64_t n, float eps) {
    const Timed timed(Kind::kNorm);
    kernels().rms_norm(x, weight, y, n, eps);
  };
  table.rms_norm_backward = [](const RmsNormBackwardArgs& a) {
    const Timed timed(Kind::kNorm);
    kernels().rms_norm_backward(a);
  };
  table.silu_mul = [](const float* gate, const float* up, float* out, int64_t n) {
    const Timed timed(Kind::kSwiglu);
    kernels().silu_mul(gate, up, out, n);
  };
  table.silu_mul_backward = [](const SiluMulBackwardArgs& a) {
    const Timed timed(Kind::kSwiglu);
    kernels().silu_mul_backward(a);
  };
  table.rope_interleaved = [](float* x, const float* cos, const float* sin, int64_t pairs) {
    const Timed timed(Kind::kRope);
    kernels().rope_interleaved(x, cos, sin, pairs);
  };
  table.scale = [](float* y, float factor, int64_t n) {
    const Timed timed(n > 1024 ? Kind::kCrossEntropy : Kind::kRows);
    kernels().scale(y, factor, n);
  };
  table.axpy = [](float* y, float factor, const float* x, int64_t n) {
    const Timed timed(Kind::kRows);
    kernels().axpy(y, factor, x, n);
  };
  table.add = [](float* y, const float* x, int64_t n) {
    const Timed timed(Kind::kRows);
    kernels().add(y, x, n);
  };
  table.adamw = [](const AdamwArgs& a) {
    const Timed timed(Kind::kAdamw);
    kernels().adamw(a);
  };
  return table;
}

// Operations per second of one thread while all threads run the loop of fused multiply-adds; the best of some runs.
double peak_per_thread(ThreadPool& pool) {
  constexpr int64_t kRounds = 4'000'000;
  double best = 0.0;
  for (int run = 0; run < 5; ++run) {
    std::vector<double> rates(static_cast<size_t>(pool.threads()));
    pool.run(pool.threads(), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        const double start = now();
        const auto operations = static_cast<double>(run_peak_loop(PeakKind::kFp32, kernels().isa, kRounds));
        rates[static_cast<size_t>(t)] = operations / (now() - start);
      }
    });
    best = std::max(best, std::reduce(rates.begin(), rates.end()) / static_cast<double>(rates.size()));
  }
  return best;
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Random tokens; every sequence is one document.
struct Batch {
  std::vector<int32_t> ids;
  std::vector<int32_t> targets;
  std::vector<int64_t> starts;

  Batch() {
    Rng rng(1);
    for (int64_t t = 0; t < kSequences * kSequenceLength; ++t)
      ids.push_back(static_cast<int32_t>(rng.next_int(0, 4095)));
    targets.assign(ids.begin() + 1, ids.end());
    targets.push_back(kIgnoredTarget);
    for (int64_t s = 0; s < kSequences; ++s) starts.push_back(s * kSequenceLength);
  }

  TrainBatch view() const {
    return {.token_ids = ids,
            .targets = targets,
            .sequences = starts,
            .documents = starts,
            .sequence_ids = {},
            .target_weights = {}};
  }
};

struct Step {
  double seconds;
  double cpu;
};

void print(const std::vector<Step>& steps, double peak, int threads) {
  std::vector<Step> sorted = steps;
  std::ranges::sort(sorted, {}, &Step::seconds);
  const Step median = sorted[sorted.size() / 2];
  const double tokens = kSequences * kSequenceLength;
  std::printf(
      "%s, %d threads, peak %.1f GFLOP/s per thread\n", std::string(kernels().isa).c_str(), threads, peak / 1e9);
  std::printf("step %.0f ms (%.0f to %.0f), %.0f ms of processor time; %.0f tokens/s, %.1f %% of the peak\n\n",
              1e3 * median.seconds,
              1e3 * sorted.front().seconds,
              1e3 * sorted.back().seconds,
              1e3 * median.cpu,
              tokens / median.seconds,
              100.0 * kUsefulFlopsPerToken * tokens / median.seconds / (peak * threads));
  Account total;
  for (const auto& account : accounts().all) {
    for (size_t i = 0; i < std::size(kNames); ++i) total.kinds[i].add(account->kinds[i]);
    for (const auto& [product, spent] : account->products) total.products[product].add(spent);
  }
  double wall = 0.0;
  for (const Step& step : steps) wall += step.seconds;
  const auto count = static_cast<double>(steps.size());
  const double rate = ticks_per_second();
  std::printf("%-26s %8s %7s %8s %9s %7s\n", "", "ms", "share", "GFLOP", "GFLOP/s", "peak");
  const auto row = [&](const std::string& name, const Spent& spent) {
    const double seconds = static_cast<double>(spent.ticks) / rate;
    const double share = seconds / threads / wall;
    std::printf("%-26s %8.1f %5.1f %%", name.c_str(), 1e3 * seconds / threads / count, 100.0 * share);
    if (spent.operations > 0.0) {
      const double speed = spent.operations / seconds;
      std::printf(" %8.2f %9.1f %5.1f %%", spent.operations / count / 1e9, speed / 1e9, 100.0 * speed / peak);
    }
    std::printf("\n");
    return share;
  };
  double products = 0.0;
  Spent all_products;
  for (const auto& [product, spent] : total.products) {
    constexpr std::string_view kPasses[] = {"y", "dx", "dW"};
    products += row(str("product ", product.in, " -> ", product.out, " ", kPasses[product.pass]), spent);
    all_products.add(spent);
  }
  row("all products", all_products);
  double attention = 0.0;
  double others = 0.0;
  for (size_t i = 0; i < std::size(kNames); ++i) {
    (kNames[i].starts_with("attention") ? attention : others) += row(std::string(kNames[i]), total.kinds[i]);
  }
  const double rest = 1.0 - products - attention - others;
  std::printf("%-26s %8.1f %5.1f %%\n", "everything else", 1e3 * rest * wall / count, 100.0 * rest);
  std::printf("neither products nor attention: %.1f %% of the step\n", 100.0 * (others + rest));
}

Recompute recompute_of(std::string_view name) {
  return name == "nothing" ? Recompute::kNothing : name == "layers" ? Recompute::kLayers : Recompute::kLatents;
}

int run(int threads, int64_t steps, Recompute recompute) {
  const KernelTable table = measuring_table();
  const std::unique_ptr<ThreadPool> pool = ThreadPool::create(threads, ThreadPool::kSpinLong).value();
  const ModelConfig config = parse_config(parse_json(kConfig).value()).value().config;
  TrainOptions options;
  options.max_tokens = kSequences * kSequenceLength;
  options.expert_balance_alpha = 0.003;
  options.init_std = 0.02;
  options.recompute = recompute;
  const std::unique_ptr<TrainModel> model = TrainModel::create(config, options, *pool, table).value();
  model->initialise(1);
  AdamW optimizer = AdamW::create({}, model->parameters().size(), *pool, table).value();
  const Batch batch;
  LATHE_CHECK(model->check(batch.view()).has_value());
  const double peak = peak_per_thread(*pool);
  std::vector<Step> measured;
  for (int64_t i = -1; i < steps; ++i) {  // the first one touches the memory
    if (i == 0) {
      for (const auto& account : accounts().all) *account = {};
    }
    const double start = now();
    const double cpu = cpu_seconds();
    model->parameters().zero_gradients(*pool);
    const TrainLosses losses = model->forward_backward(batch.view(), 1.0);
    const double norm = optimizer.global_norm(model->parameters());
    optimizer.step(model->parameters(), 1e-4, AdamW::clip_factor(norm, 1.0));
    LATHE_CHECK(losses.total() > 0.0 && losses.total() < 12.0);
    if (i >= 0) measured.push_back({now() - start, cpu_seconds() - cpu});
  }
  print(measured, std::max(peak, peak_per_thread(*pool)), threads);
  std::printf("planned memory %.0f MB with the optimizer\n",
              static_cast<double>(model->memory().total_with_moments()) / 1e6);
  return 0;
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : lathe::default_thread_count();
  const int64_t steps = argc > 2 ? std::atoi(argv[2]) : 10;
  if (threads < 1 || steps < 1) {
    std::fprintf(stderr, "usage: train_bench [THREADS [STEPS [nothing|latents|layers]]]\n");
    return 2;
  }
  return lathe::run(threads, steps, lathe::recompute_of(argc > 3 ? argv[3] : "latents"));
}
