// What an Engine holds; shared by engine.cpp and engine_requests.cpp only.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lathe/model/cpu_backend.h"
#include "lathe/runtime/engine.h"
#include "lathe/runtime/prefix_cache.h"
#include "lathe/runtime/scheduler.h"

namespace lathe {

struct Engine::State {
  ModelConfig config;
  std::unique_ptr<const ModelWeights> weights;
  std::optional<Tokenizer> tokenizer;
  GenerationDefaults defaults;
  MemoryPlan plan;
  std::vector<std::string> warnings;
  int64_t context = 0;
  int64_t max_batch_tokens = 0;
  int64_t draft_tokens = 0;
  CacheLayout cache_layout;
  double load_seconds = 0.0;
  std::vector<bool> usable;                                 // ids the tokenizer knows; empty without a tokenizer
  std::vector<std::string> breaker_texts;                   // of the last request with a DRY penalty,
  std::shared_ptr<const std::vector<bool>> breaker_tokens;  // and their ids; null: there was none

  std::unique_ptr<ThreadPool> pool;
  std::optional<PagePool> pages;
  std::optional<PrefixCache> prefixes;
  std::unique_ptr<CpuBackend> backend;
  std::optional<Decoder> decoder;
  std::unique_ptr<Drafter> drafter;
  std::optional<Scheduler> scheduler;
  RequestId next_id = 1;
  Batch batch;
  std::vector<float> logits;
  bool stepping = false;             // callbacks may run: the sequences of `batch` must stay
  std::vector<RequestId> cancelled;  // by callbacks of the current step
  EngineStats totals;                // the counters; stats() adds what is there now

  // What submit() refuses, apart from what does not fit the cache.
  Status check(const Request& request) const;
  // Most tokens of prompt and output.
  int64_t length_limit(const Request& request) const;
  std::vector<int32_t> eos_ids() const;
  // The ids that end an answer to `request`.
  std::vector<int32_t> stop_tokens(const Request& request) const;
  // The ids of dry.breakers; null while the penalty is off.
  std::shared_ptr<const std::vector<bool>> breakers(const DryParams& dry);
  // Whether a callback of this step cancelled it.
  bool is_cancelled(RequestId id) const;

  // Takes the tokens that the rows of `entry` give.
  void answer(const BatchEntry& entry);
  // `row`: logits of the prompt token before the next one without a log-probability.
  Status take_prompt_logprob(Sequence& sequence, std::span<const float> row);
  // The prompt is computed: takes the time and counts it, once.
  void first_token(Sequence& sequence);
  // Out of the scheduler and of the batch.
  std::unique_ptr<Sequence> take_out(RequestId id);
  // False when the request has ended, and the sequence with it.
  bool take_token(Sequence& sequence, const SampledToken& token);
  // Both end the request, and the sequence with it.
  void finish(Sequence& sequence, FinishReason reason, std::string stop_reason);
  void fail(RequestId id, Error error);

  // Logits of the i-th of the batch's logit rows.
  std::span<float> logit_row(int64_t i) {
    const auto v = static_cast<size_t>(config.vocab_size);
    return std::span(logits).subspan(static_cast<size_t>(i) * v, v);
  }
};

}  // namespace lathe
