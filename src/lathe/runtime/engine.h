// Engine: a model opened for generation. Requests are submitted, batched by step(), and answered through callbacks, so
// that one request or many run through the same path and give the same bits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/base/thread_pool.h"
#include "lathe/model/config.h"
#include "lathe/model/decoder.h"
#include "lathe/model/memory_plan.h"
#include "lathe/model/weights.h"
#include "lathe/runtime/page_pool.h"
#include "lathe/runtime/sampler.h"
#include "lathe/tokenizer/chat_template.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

enum class Compute {
  kAuto,  // f16 cache unless cache_type says otherwise (docs/numerics.md: ten times closer than bf16 at equal size)
  kF32,   // reference-grade arithmetic on the stored weights, fp32 cache
};

struct EngineOptions {
  std::filesystem::path model;                 // folder in HuggingFace layout
  int threads = 0;                             // 0: default_thread_count()
  int64_t ctx_size = 0;                        // positions of the cache; 0: the model's, at most kDefaultContext
  std::optional<CacheFormat> cache_type = {};  // default by `compute`
  Compute compute = Compute::kAuto;
  int64_t max_batch_tokens = 512;             // of one step: prefill chunks are cut to it
  bool ignore_memory_limit = false;           // open even when the plan does not fit
  std::optional<QuantType> weight_type = {};  // quantise the weights of an unquantised model on load
  std::filesystem::path packed_folder = {};   // where packed weights are kept for the next start; empty: in memory
  const KernelTable* kernels = nullptr;       // null: the best for this machine
  // Called with the plan before cache and scratch are reserved. May be empty.
  std::function<void(const MemoryPlan&)> on_plan = {};
  // Called with bytes done and in all while weights are packed. May be empty.
  std::function<void(uint64_t, uint64_t)> on_packing = {};
};

inline constexpr int64_t kDefaultContext = 32768;

enum class FinishReason { kStop, kLength, kCancelled };
std::string_view name_of(FinishReason reason);  // "stop", "length", "cancelled"

// What the model's authors recommend: generation_config.json's values when it says do_sample, else greedy. The seed is
// 0.
SamplingParams default_sampling(const GenerationDefaults& defaults);

// A seed that differs from call to call, for requests that name none.
uint64_t random_seed();

struct TokenEvent {
  const SampledToken& token;
  std::string_view text;  // text that became certain; may be empty
};

struct Request {
  std::vector<int32_t> prompt;  // ids, not empty
  SamplingParams sampling;
  int64_t max_tokens = -1;              // new tokens; -1: until the context is full
  std::vector<std::string> stop;        // stop strings
  std::vector<int32_t> stop_token_ids;  // beside the model's EOS ids
  bool ignore_eos = false;
  // Called for every token that is part of the answer; false cancels the request. May be empty.
  std::function<bool(const TokenEvent&)> on_token;
};

struct Completion {
  std::vector<SampledToken> tokens;  // without the stop token
  std::string text;
  FinishReason finish_reason = FinishReason::kLength;
  std::string stop_reason;  // with kStop: "stop string" or "token N" (its id); empty otherwise
  int64_t prompt_tokens = 0;
  double prefill_s = 0.0;  // submission to first token
  double decode_s = 0.0;   // first to last token
};

// One finished request: what it became, or why it failed.
using RequestId = uint64_t;
using OnFinished = std::function<void(RequestId, Result<Completion>)>;

class Engine {
 public:
  // Reads, checks, maps and binds everything, and reserves cache and scratch. A plan that does not fit the memory is
  // refused with kResourceExhausted and its numbers.
  static Result<std::unique_ptr<Engine>> open(const EngineOptions& options);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine();

  // What config.json says.
  const ModelConfig& config() const;
  // The bound tensors; valid as long as the engine.
  const ModelWeights& weights() const;
  const Tokenizer* tokenizer() const;  // null when the folder has no tokenizer.json
  const GenerationDefaults& defaults() const;
  const MemoryPlan& plan() const;
  const std::vector<std::string>& warnings() const;
  int64_t context_size() const;  // positions a sequence may have
  int threads() const;
  CacheFormat cache_type() const;
  double load_seconds() const;

  // Checks the request and queues it. `on_finished` is called from step() or cancel().
  Result<RequestId> submit(Request request, OnFinished on_finished);
  // Ends a request early; does nothing for one that has ended. From inside a callback it takes effect after the step.
  void cancel(RequestId id);
  // One forward pass over everything that is ready: decode tokens first, then prompt chunks, oldest first. False when
  // idle.
  bool step();

  // submit and step until done.
  Result<Completion> generate(Request request);

  // Logits of every position of `ids` (a prompt of that length), chunk by chunk: visit(first position, rows, logits
  // [rows, vocab]). Stops early when visit returns false. A trace, when given, receives all chunks joined.
  // `chunk_tokens` (0: max_batch_tokens) changes no bit of the result.
  Status score(std::span<const int32_t> ids,
               const std::function<bool(int64_t, int64_t, const float*)>& visit,
               ForwardTrace* trace = nullptr,
               int64_t chunk_tokens = 0);

 private:
  Engine();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe
