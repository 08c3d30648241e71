// ModelBench: how fast a model's forward pass is, with a cache that is filled to any depth without computing what would
// have filled it. Below the Engine: no tokenizer, no sampling, no scheduler.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/base/rng.h"
#include "lathe/base/thread_pool.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/model/cpu_backend.h"
#include "lathe/model/decoder.h"
#include "lathe/model/weights.h"
#include "lathe/runtime/page_pool.h"
#include "lathe/runtime/pass_cost.h"

namespace lathe {

enum class BenchKind {
  kPrompt,      // `tokens` prompt tokens in chunks, logits of the last one
  kGeneration,  // `tokens` single tokens one after the other, logits of each
};
std::string_view name_of(BenchKind kind);  // "prompt", "gen"

// What is measured.
struct BenchCase {
  BenchKind kind = BenchKind::kGeneration;
  int64_t tokens = 1;
  int64_t depth = 0;  // cached positions before the first token
};

struct BenchSettings {
  std::vector<BenchCase> cases = {};
  int repeats = 5;             // of every case; at least 1
  int64_t batch_tokens = 512;  // prompt tokens of one forward pass
  CacheFormat cache_type = CacheFormat::kF16;
  uint64_t seed = 1;  // of token ids and cached rows
};

struct BenchRow {
  BenchCase measured;
  std::vector<double> seconds;  // of each repeat, in the order of measuring
  PassCost cost;                // of one repeat

  // Tokens per second: middle (mean of the two middles when even), slowest and fastest repeat.
  struct Rate {
    double median = 0.0;
    double min = 0.0;
    double max = 0.0;
  };

  // Over all repeats, of which there must be at least one.
  Rate tokens_per_second() const;
};

// Called after each measurement with how many are done of how many.
using BenchProgress = std::function<void(int64_t done, int64_t total, const BenchCase& measured)>;

class ModelBench {
 public:
  // Reserves scratch and a cache for the deepest case and fills it with random rows. `weights` and `pool` must outlive
  // the object. Errors: kInvalidArgument names a case that exceeds the model's max_position_embeddings (or has no
  // tokens), a batch or repeat count below 1; kResourceExhausted when memory is not to be had.
  static Result<std::unique_ptr<ModelBench>> create(const ModelWeights& weights,
                                                    ThreadPool& pool,
                                                    const KernelTable& kernels,
                                                    BenchSettings settings);

  // Cached positions that the cases and the signature need.
  static int64_t positions(const ModelConfig& config, const std::vector<BenchCase>& cases);

  // The first 16 hex digits of the SHA-256 over the logits and the chosen tokens of a fixed run: a prompt of fixed ids,
  // then greedy tokens. Equal for every thread count and vector instruction set; different when a build or a machine
  // computes something else, or the cache type differs. Also serves as the warm-up.
  std::string signature();

  // Every case once per repeat, in turns, so that a drift of the machine spreads over all of them.
  std::vector<BenchRow> run(const BenchProgress& progress);

  const CacheLayout& layout() const { return pages_.layout(); }

 private:
  ModelBench(const ModelWeights& weights, BenchSettings settings, PagePool pages);

  void fill_cache(const KernelTable& kernels);
  // One pass; logits of the last token.
  void forward(std::span<const int32_t> ids, int64_t position, int64_t expanded_until);
  double measure(const BenchCase& one);
  PassCost cost_of(const BenchCase& one) const;

  const ModelWeights& weights_;
  BenchSettings settings_;
  PagePool pages_;
  std::unique_ptr<SequenceCache> cache_;
  std::unique_ptr<CpuBackend> backend_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<float> logits_;  // one row
  std::vector<int32_t> ids_;
  Rng rng_;
};

}  // namespace lathe
