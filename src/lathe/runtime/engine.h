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
#include "lathe/model/generation_defaults.h"
#include "lathe/model/memory_plan.h"
#include "lathe/model/weights.h"
#include "lathe/runtime/drafter.h"
#include "lathe/runtime/page_pool.h"
#include "lathe/runtime/sampler.h"
#include "lathe/tokenizer/chat_template.h"
#include "lathe/tokenizer/token_constraint.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

enum class Compute {
  kAuto,  // f16 cache unless cache_type says otherwise (docs/numerics.md: ten times closer than bf16 at equal size)
  kF32,   // reference-grade arithmetic on the stored weights, fp32 cache
};

struct EngineOptions {
  std::filesystem::path model = {};            // folder in HuggingFace layout
  int threads = 0;                             // 0: default_thread_count()
  int64_t ctx_size = 0;                        // positions of a sequence; 0: the model's, at most kDefaultContext
  int64_t cache_tokens = 0;                    // positions of the cache, all sequences together; 0: ctx_size
  std::optional<CacheFormat> cache_type = {};  // default by `compute`
  Compute compute = Compute::kAuto;
  int64_t max_batch_tokens = 512;  // of one step: prefill chunks are cut to it
  int64_t max_running = 64;        // sequences that hold pages at a time, at most max_batch_tokens
  bool prefix_cache = false;       // keep computed pages for later requests that begin alike
  int64_t draft_tokens = 0;        // default of Request::draft_tokens
  // Who guesses. kMtp needs a checkpoint with a multi-token prediction layer, which is loaded, and MLA; nothing: kMtp
  // where that is so, else kText.
  std::optional<DrafterKind> drafter = DrafterKind::kText;
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
inline constexpr int64_t kMostDraftTokens = 32;  // of one request and step

enum class FinishReason { kStop, kLength, kCancelled };
std::string_view name_of(FinishReason reason);  // "stop", "length", "cancelled"

// A seed that differs from call to call, for requests that name none.
uint64_t random_seed();

// How much of a prompt is computed.
struct PromptEvent {
  int64_t done = 0;      // tokens
  int64_t cached = 0;    // of these, from the prefix cache
  int64_t total = 0;     // tokens of the prompt
  double seconds = 0.0;  // since the first step that computed some of it
};

struct TokenEvent {
  const SampledToken& token;
  std::string_view text;  // text that became certain; may be empty
  // `token` is the stop token, which is not part of the answer: it released text that was held back.
  bool is_stop_token = false;
  // With Request::prompt_logprobs: Completion::prompt_logprobs, which are complete before the first token.
  std::span<const SampledToken> prompt_logprobs = {};
};

struct Request {
  std::vector<int32_t> prompt = {};  // ids, not empty
  SamplingParams sampling = {};
  int64_t max_tokens = -1;                   // new tokens; -1: until the context is full
  int64_t min_tokens = 0;                    // at most max_tokens; before them nothing but a constraint ends the answer
  std::vector<std::string> stop = {};        // stop strings
  std::vector<int32_t> stop_token_ids = {};  // beside the model's EOS ids
  bool ignore_eos = false;
  // Special tokens whose text is part of the output's: markers that are to be read there. All others have none.
  std::vector<int32_t> visible_special = {};
  // Which tokens may come (grammars); its finished() ends the answer with kStop. Null: all. Used by this request alone.
  std::shared_ptr<TokenConstraint> constraint = {};
  // Log-probabilities of the prompt's own tokens, with that many alternatives each; -1: none. The prompt is then
  // computed whole, prefix cache or not.
  int64_t prompt_logprobs = -1;
  // Most tokens per step that are guessed (EngineOptions::drafter) and checked together: speculative decoding, which
  // changes no token. 0: off, -1: EngineOptions::draft_tokens.
  int64_t draft_tokens = -1;
  // Requests share cached prefixes within a scope only: give users who must not learn about one another different ones.
  uint64_t cache_scope = 0;
  // Called after a step that computed some of the prompt and left some; false cancels the request. May be empty. Throws
  // nothing.
  std::function<bool(const PromptEvent&)> on_prompt = {};
  // Called for every token that is part of the answer, and for a stop token that releases text; false cancels the
  // request. May be empty. Throws nothing.
  std::function<bool(const TokenEvent&)> on_token = {};
};

struct Completion {
  std::vector<SampledToken> tokens;  // without the stop token
  // With Request::prompt_logprobs: one per prompt token; the first has none (logprob 0, no alternatives).
  std::vector<SampledToken> prompt_logprobs;
  std::string text;
  FinishReason finish_reason = FinishReason::kLength;
  std::string stop_reason;  // with kStop: "stop string", "constraint" or "token N" (its id); empty otherwise
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;      // chosen: `tokens`, and the stop token where one ended the answer
  int64_t cached_prompt_tokens = 0;   // of the prompt's, taken from the prefix cache
  int64_t preemptions = 0;            // times it gave up its pages and was computed anew
  int64_t draft_tokens = 0;           // guessed
  int64_t accepted_draft_tokens = 0;  // of these, what the model would have said
  DrafterKind drafter = DrafterKind::kText;
  double queued_s = 0.0;   // submission to the first step that computed some of it
  double prefill_s = 0.0;  // submission to first token
  double decode_s = 0.0;   // first to last token
};

// What the engine does now, and has done since it was opened.
struct EngineStats {
  int64_t running = 0;        // requests that hold pages
  int64_t waiting = 0;        // requests in the queue, preempted ones included
  int64_t pages = 0;          // of the cache, 64 positions each
  int64_t free_pages = 0;     // hold nothing
  int64_t cached_pages = 0;   // hold a prefix that no running request uses: given up when pages are needed
  int64_t prompt_tokens = 0;  // of all prompts whose first token was computed, likewise below
  int64_t generated_tokens = 0;
  int64_t cached_prompt_tokens = 0;
  int64_t preemptions = 0;
  int64_t draft_tokens = 0;
  int64_t accepted_draft_tokens = 0;
  DrafterKind drafter = DrafterKind::kText;
  int64_t steps = 0;
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
  std::vector<int32_t> eos_ids() const;  // end an answer, unless a request ignores them
  const MemoryPlan& plan() const;
  const std::vector<std::string>& warnings() const;
  int64_t context_size() const;  // positions a sequence may have
  int threads() const;
  CacheFormat cache_type() const;
  double load_seconds() const;
  // Cheap. Like every other member not to be called while another thread is in one.
  EngineStats stats() const;

  // Checks the request and queues it. `on_finished` is called from step() or cancel() and throws nothing.
  Result<RequestId> submit(Request request, OnFinished on_finished);
  // Ends a request early; does nothing for one that has ended. From inside a callback it takes effect after the step,
  // and on_token is not called for it any more.
  void cancel(RequestId id);
  // One forward pass over everything that is ready (docs/serving-engine.md): a token of every answer, then prompts,
  // then guessed tokens. False when idle.
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
