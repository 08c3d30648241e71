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
  std::vector<bool> usable;  // ids the tokenizer knows; empty without a tokenizer

  std::unique_ptr<ThreadPool> pool;
  std::optional<PagePool> pages;
  std::optional<PrefixCache> prefixes;
  std::unique_ptr<CpuBackend> backend;
  std::optional<Decoder> decoder;
  std::optional<Scheduler> scheduler;
  RequestId next_id = 1;
  Batch batch;
  std::vector<float> logits;
  bool stepping = false;             // callbacks may run: the sequences of `batch` must stay
  std::vector<RequestId> cancelled;  // by callbacks of the current step
  EngineStats totals;                // the counters; stats() adds what is there now

  Status check(const Request& request) const;
  int64_t length_limit(const Request& request) const;
  bool is_stop_token(const Sequence& sequence, int32_t id) const;
  bool is_cancelled(RequestId id) const;

  void answer(const BatchEntry& entry);
  Status take_prompt_logprob(Sequence& sequence, std::span<const float> row);
  void first_token(Sequence& sequence);
  // False when the request has ended, and the sequence with it.
  bool take_token(Sequence& sequence, const SampledToken& token);
  void finish(Sequence& sequence, FinishReason reason, std::string stop_reason);
  void fail(RequestId id, Error error);

  std::span<float> logit_row(int64_t i) {
    const auto v = static_cast<size_t>(config.vocab_size);
    return std::span(logits).subspan(static_cast<size_t>(i) * v, v);
  }
};

}  // namespace lathe
