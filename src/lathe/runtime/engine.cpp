#include "lathe/runtime/engine.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "lathe/base/cpu.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/model/cpu_backend.h"
#include "lathe/model/model_files.h"
#include "lathe/runtime/scheduler.h"

namespace lathe {

namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Bytes this process may still take: the least of free memory, the cgroup's and the address space's limits.
uint64_t memory_limit() {
  const MachineLimits limits = machine_limits();
  uint64_t least = limits.available_memory;
  if (limits.cgroup_memory) {
    const uint64_t used = limits.cgroup_memory_used.value_or(0);
    least = std::min(least, *limits.cgroup_memory > used ? *limits.cgroup_memory - used : 0);
  }
  if (limits.address_space) least = std::min(least, *limits.address_space);
  return least;
}

Status check_plan(const MemoryPlan& plan, int64_t context) {
  const uint64_t limit = memory_limit();
  if (limit == 0 || plan.total <= limit) return {};
  return Error{Errc::kResourceExhausted,
               str("memory plan: expected at most ",
                   human_bytes(limit),
                   " (free memory), found ",
                   human_bytes(plan.total),
                   " (weights ",
                   human_bytes(plan.weights),
                   ", cache of ",
                   context,
                   " tokens ",
                   human_bytes(plan.cache),
                   ", scratch ",
                   human_bytes(plan.scratch),
                   "); a smaller --ctx-size or --cache-type q8 or q6 needs less")};
}

// Weights that alone do not fit are refused before they are packed.
Status check_packing(const PackedPlan& packing) {
  const uint64_t limit = memory_limit();
  if (limit == 0 || packing.bytes <= limit) return {};
  return Error{Errc::kResourceExhausted,
               str("memory plan: expected at most ",
                   human_bytes(limit),
                   " (free memory), found ",
                   human_bytes(packing.bytes),
                   " of packed weights alone")};
}

// The weights in the layout of the integer kernels, where they are quantised or are to be.
Result<std::shared_ptr<const PackedWeights>> pack_weights(const ModelConfig& config,
                                                          const EngineOptions& options,
                                                          const Checkpoint& checkpoint,
                                                          ThreadPool& pool) {
  const PackLayout layout = options.compute == Compute::kF32 ? PackLayout::kDecoded : PackLayout::kPanels;
  LATHE_TRY(PackedPlan packing, plan_packing(config, checkpoint, options.weight_type, layout));
  if (!options.ignore_memory_limit) LATHE_TRY(check_packing(packing));
  return PackedWeights::open(
      std::move(packing),
      checkpoint,
      pool,
      {.cache_folder = options.packed_folder, .smallest_file = kSmallestPackedFile, .on_progress = options.on_packing});
}

}  // namespace

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "length";
}

SamplingParams default_sampling(const GenerationDefaults& defaults) {
  SamplingParams params;
  params.temperature = defaults.do_sample ? defaults.temperature : 0.0;
  params.top_k = defaults.do_sample ? defaults.top_k : 0;
  params.top_p = defaults.do_sample ? defaults.top_p : 1.0;
  params.repetition_penalty = defaults.repetition_penalty;
  return params;
}

uint64_t random_seed() {
  std::random_device random;
  return random() | uint64_t{random()} << 32;
}

struct Engine::State {
  ModelConfig config;
  std::unique_ptr<const ModelWeights> weights;
  std::optional<Tokenizer> tokenizer;
  GenerationDefaults defaults;
  MemoryPlan plan;
  std::vector<std::string> warnings;
  int64_t context = 0;
  int64_t max_batch_tokens = 0;
  CacheLayout cache_layout;
  double load_seconds = 0.0;
  std::vector<bool> usable;  // ids the tokenizer knows; empty without a tokenizer

  std::unique_ptr<ThreadPool> pool;
  std::optional<PagePool> pages;
  std::unique_ptr<CpuBackend> backend;
  std::optional<Decoder> decoder;
  std::optional<Scheduler> scheduler;
  RequestId next_id = 1;
  Batch batch;
  std::vector<float> logits;
  bool stepping = false;             // callbacks may run: the sequences of `batch` must stay
  std::vector<RequestId> cancelled;  // by callbacks of the current step

  bool is_stop_token(const Sequence& sequence, int32_t id) const;
  void take_token(Sequence& sequence, Result<SampledToken> token);
  void finish(Sequence& sequence, FinishReason reason, std::string stop_reason);
  void fail(RequestId id, Error error);

  std::span<float> logit_row(size_t i) {
    const auto v = static_cast<size_t>(config.vocab_size);
    return std::span(logits).subspan(i * v, v);
  }
};

Engine::Engine() : state_(std::make_unique<State>()) {}

Engine::~Engine() = default;

const ModelConfig& Engine::config() const {
  return state_->config;
}

const ModelWeights& Engine::weights() const {
  return *state_->weights;
}

const Tokenizer* Engine::tokenizer() const {
  return state_->tokenizer ? &*state_->tokenizer : nullptr;
}

const GenerationDefaults& Engine::defaults() const {
  return state_->defaults;
}

const MemoryPlan& Engine::plan() const {
  return state_->plan;
}

const std::vector<std::string>& Engine::warnings() const {
  return state_->warnings;
}

int64_t Engine::context_size() const {
  return state_->context;
}

int Engine::threads() const {
  return state_->pool->threads();
}

CacheFormat Engine::cache_type() const {
  return state_->cache_layout.format;
}

EngineStats Engine::stats() const {
  const State& s = *state_;
  return {.running = s.scheduler->running(),
          .waiting = s.scheduler->waiting(),
          .pages = s.pages->pages(),
          .free_pages = s.pages->free_pages()};
}

double Engine::load_seconds() const {
  return state_->load_seconds;
}

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options) {
  const double start = now_seconds();
  std::unique_ptr<Engine> engine(new Engine());
  State& s = *engine->state_;
  LATHE_TRY(const ModelFiles files, ModelFiles::open(options.model));
  LATHE_TRY(ParsedConfig parsed, files.config());
  s.config = std::move(parsed.config);
  s.warnings = std::move(parsed.warnings);
  LATHE_TRY(s.defaults, files.generation_defaults());
  if (files.has_tokenizer()) {
    LATHE_TRY(Tokenizer tokenizer, files.tokenizer());
    if (tokenizer.vocabulary_size() > s.config.vocab_size) {
      return Error{Errc::kInvalidData,
                   str(options.model,
                       ": expected a tokenizer of at most vocab_size ",
                       s.config.vocab_size,
                       " tokens, found ",
                       tokenizer.vocabulary_size())};
    }
    s.usable.resize(static_cast<size_t>(s.config.vocab_size));
    for (size_t id = 0; id < s.usable.size(); ++id) s.usable[id] = tokenizer.contains(static_cast<int32_t>(id));
    s.tokenizer = std::move(tokenizer);
  } else if (files.is_gguf()) {
    s.warnings.push_back(files.missing_tokenizer() + "; only token ids can be read and written");
  }
  LATHE_TRY(Checkpoint checkpoint, files.checkpoint());
  const int threads = options.threads > 0 ? options.threads : default_thread_count();
  LATHE_TRY(s.pool, ThreadPool::create(threads));
  LATHE_TRY(std::shared_ptr<const PackedWeights> packed, pack_weights(s.config, options, checkpoint, *s.pool));
  LATHE_TRY(s.weights,
            ModelWeights::bind(s.config, std::make_shared<const Checkpoint>(std::move(checkpoint)), std::move(packed)));
  s.warnings.insert(s.warnings.end(), s.weights->warnings().begin(), s.weights->warnings().end());
  const std::vector<std::string>& unused = s.weights->unused_tensors();
  if (!unused.empty()) {
    s.warnings.push_back(
        str(unused.size(), " tensors are not part of this model and are ignored, e.g. ", quoted(unused.front())));
  }

  const int64_t model_context = s.config.max_position_embeddings;
  s.context = options.ctx_size > 0 ? options.ctx_size : std::min(model_context, kDefaultContext);
  if (s.context > model_context) {
    return Error{Errc::kInvalidArgument,
                 str("--ctx-size: expected at most max_position_embeddings ", model_context, ", found ", s.context)};
  }
  s.max_batch_tokens = std::clamp<int64_t>(options.max_batch_tokens, 1, std::max<int64_t>(s.context, 1));
  const CacheFormat cache_type =
      options.cache_type.value_or(options.compute == Compute::kF32 ? CacheFormat::kF32 : CacheFormat::kF16);
  s.cache_layout = {
      .format = cache_type, .row_elements = s.config.cache_row_elements(), .layers = s.config.num_hidden_layers};
  LATHE_TRY(s.plan,
            plan_memory(s.config,
                        {.context = s.context,
                         .cache_format = cache_type,
                         .cache_page_tokens = kPageTokens,
                         .max_batch_tokens = s.max_batch_tokens,
                         .threads = threads,
                         .weight_bytes = s.weights->stored_bytes(),
                         .scratch_floats = CpuBackend::total_floats(s.config, s.max_batch_tokens, threads)}));
  if (options.on_plan) options.on_plan(s.plan);
  if (!options.ignore_memory_limit) LATHE_TRY(check_plan(s.plan, s.context));

  LATHE_TRY(PagePool pages, PagePool::create(s.cache_layout, pages_for(s.context)));
  s.pages.emplace(std::move(pages));
  const KernelTable& table = options.kernels != nullptr ? *options.kernels : kernels();
  LATHE_TRY(s.backend, CpuBackend::create(*s.weights, s.cache_layout, *s.pool, table, s.max_batch_tokens));
  LATHE_TRY(Decoder decoder, Decoder::create(s.config, *s.backend));
  s.decoder.emplace(std::move(decoder));
  s.scheduler.emplace(s.max_batch_tokens);
  s.load_seconds = now_seconds() - start;
  return engine;
}

Result<RequestId> Engine::submit(Request request, OnFinished on_finished) {
  State& s = *state_;
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt == 0) return Error{Errc::kInvalidArgument, "prompt: expected at least one token, found none"};
  for (const int32_t id : request.prompt) {
    if (id < 0 || id >= s.config.vocab_size) {
      return Error{Errc::kInvalidArgument,
                   str("prompt: expected token ids from 0 to ", s.config.vocab_size - 1, ", found ", id)};
    }
  }
  if (prompt > s.context) {
    return Error{Errc::kInvalidArgument,
                 str("prompt: expected at most ", s.context, " tokens (the context size), found ", prompt)};
  }
  if (request.max_tokens < -1) {
    return Error{Errc::kInvalidArgument, str("max_tokens: expected -1 (no limit) or more, found ", request.max_tokens)};
  }
  LATHE_TRY(validate(request.sampling, s.config.vocab_size));
  const RequestId id = s.next_id++;
  const int64_t room = s.context - prompt;
  const int64_t new_tokens = request.max_tokens < 0 ? room : std::min(request.max_tokens, room);
  Sampler sampler(request.sampling, request.prompt, s.usable.empty() ? nullptr : &s.usable);
  TextStream text(tokenizer(), request.stop);
  auto sequence = std::make_unique<Sequence>(Sequence{.id = id,
                                                      .request = std::move(request),
                                                      .on_finished = std::move(on_finished),
                                                      .sampler = std::move(sampler),
                                                      .text = std::move(text),
                                                      .cache = SequenceCache(*s.pages),
                                                      .tokens = {},
                                                      .computed = 0,
                                                      .length_limit = prompt + new_tokens,
                                                      .expanded_until = canonical_expanded_until(prompt),
                                                      .completion = {},
                                                      .submitted_at = now_seconds(),
                                                      .first_token_at = 0.0});
  sequence->tokens = sequence->request.prompt;
  sequence->completion.prompt_tokens = prompt;
  s.scheduler->add(std::move(sequence));
  return id;
}

void Engine::cancel(RequestId id) {
  if (state_->stepping) {
    state_->cancelled.push_back(id);
    return;
  }
  std::unique_ptr<Sequence> sequence = state_->scheduler->remove(id);
  if (sequence == nullptr) return;
  sequence->completion.finish_reason = FinishReason::kCancelled;
  if (sequence->on_finished) sequence->on_finished(id, std::move(sequence->completion));
}

bool Engine::State::is_stop_token(const Sequence& sequence, int32_t id) const {
  const auto contains = [id](const auto& list) { return std::ranges::find(list, id) != list.end(); };
  if (contains(sequence.request.stop_token_ids)) return true;
  if (sequence.request.ignore_eos) return false;
  return contains(config.eos_token_ids) || contains(defaults.eos_token_ids) ||
         (tokenizer && tokenizer->eos_id() && *tokenizer->eos_id() == id);
}

void Engine::State::fail(RequestId id, Error error) {
  const std::unique_ptr<Sequence> sequence = scheduler->remove(id);
  if (sequence->on_finished) sequence->on_finished(id, std::move(error));
}

void Engine::State::finish(Sequence& sequence, FinishReason reason, std::string stop_reason) {
  const std::unique_ptr<Sequence> owned = scheduler->remove(sequence.id);
  Completion& completion = owned->completion;
  completion.finish_reason = reason;
  completion.stop_reason = std::move(stop_reason);
  completion.decode_s = owned->first_token_at > 0.0 ? now_seconds() - owned->first_token_at : 0.0;
  if (owned->on_finished) owned->on_finished(owned->id, std::move(completion));
}

// Adds a sampled token to its sequence, tells the listener, and ends the request where a reason to end is met.
void Engine::State::take_token(Sequence& sequence, Result<SampledToken> token) {
  if (!token) return fail(sequence.id, std::move(token).error());
  if (sequence.first_token_at == 0.0) {
    sequence.first_token_at = now_seconds();
    sequence.completion.prefill_s = sequence.first_token_at - sequence.submitted_at;
  }
  const auto emit = [&](const SampledToken& sampled, const std::string& text) {
    sequence.completion.text += text;
    return !sequence.request.on_token || sequence.request.on_token({sampled, text});
  };
  if (is_stop_token(sequence, token->id)) {
    const std::string rest = sequence.text.finish();
    if (!rest.empty()) emit(*token, rest);
    return finish(sequence, FinishReason::kStop, str("token ", token->id));
  }
  sequence.tokens.push_back(token->id);
  sequence.completion.tokens.push_back(*token);
  std::string text = sequence.text.push(token->id);
  const bool at_limit = static_cast<int64_t>(sequence.tokens.size()) >= sequence.length_limit;
  const bool stopped = sequence.text.stopped();
  if (at_limit && !stopped) text += sequence.text.finish();
  const bool go_on = emit(*token, text);
  if (stopped) return finish(sequence, FinishReason::kStop, "stop string");
  if (!go_on) return finish(sequence, FinishReason::kCancelled, {});
  if (at_limit) finish(sequence, FinishReason::kLength, {});
}

namespace {

// True while callbacks may run, also when one of them throws.
class SteppingScope {
 public:
  explicit SteppingScope(bool& stepping) : stepping_(stepping) { stepping_ = true; }

  SteppingScope(const SteppingScope&) = delete;
  SteppingScope& operator=(const SteppingScope&) = delete;

  ~SteppingScope() { stepping_ = false; }

 private:
  bool& stepping_;
};

}  // namespace

bool Engine::step() {
  State& s = *state_;
  s.scheduler->next_batch(s.batch);
  if (s.batch.token_ids.empty()) return !s.scheduler->idle();
  s.logits.resize(s.batch.logit_rows.size() * static_cast<size_t>(s.config.vocab_size));
  s.decoder->forward(s.batch.step(), s.logits.data(), nullptr);
  {
    const SteppingScope scope(s.stepping);
    for (size_t i = 0; i < s.batch.sampled.size(); ++i) {
      Sequence& sequence = *s.batch.sampled[i];
      const auto index = static_cast<int64_t>(sequence.completion.tokens.size());
      if (static_cast<int64_t>(sequence.tokens.size()) >= sequence.length_limit) {
        s.finish(sequence, FinishReason::kLength, {});  // no new tokens wanted, or a prompt that fills the context
        continue;
      }
      s.take_token(sequence, sequence.sampler.sample(s.logit_row(i), index));
    }
  }
  for (const RequestId id : std::exchange(s.cancelled, {})) cancel(id);
  return !s.scheduler->idle();
}

Result<Completion> Engine::generate(Request request) {
  std::optional<Result<Completion>> outcome;
  LATHE_TRY(
      submit(std::move(request), [&](RequestId, Result<Completion> result) { outcome.emplace(std::move(result)); }));
  while (!outcome && step()) {
  }
  LATHE_CHECK(outcome.has_value());
  return *std::move(outcome);
}

Status Engine::score(std::span<const int32_t> ids,
                     const std::function<bool(int64_t, int64_t, const float*)>& visit,
                     ForwardTrace* trace,
                     int64_t chunk_tokens) {
  State& s = *state_;
  const auto total = static_cast<int64_t>(ids.size());
  if (total == 0) return Error{Errc::kInvalidArgument, "token ids: expected at least one, found none"};
  if (total > s.context) {
    return Error{Errc::kInvalidArgument,
                 str("token ids: expected at most ", s.context, " (the context size), found ", total)};
  }
  for (const int32_t id : ids) {
    if (id < 0 || id >= s.config.vocab_size) {
      return Error{Errc::kInvalidArgument,
                   str("token ids: expected values from 0 to ", s.config.vocab_size - 1, ", found ", id)};
    }
  }
  SequenceCache cache(*s.pages);
  if (!cache.reserve(total)) return Error{Errc::kResourceExhausted, "the cache is in use by other requests"};
  const int64_t chunk = chunk_tokens > 0 ? std::min(chunk_tokens, s.max_batch_tokens) : s.max_batch_tokens;
  // Logits of a whole chunk may be large (512 x 129,280 x 4 B): rows are visited in pieces of bounded size.
  const int64_t rows_at_once = std::clamp<int64_t>((int64_t{1} << 26) / s.config.vocab_size, 1, chunk);
  std::vector<int64_t> rows;
  const RequestId sequence = s.next_id++;
  for (int64_t position = 0; position < total;) {
    const int64_t tokens = std::min({chunk, total - position, rows_at_once});
    rows.resize(static_cast<size_t>(tokens));
    for (int64_t i = 0; i < tokens; ++i) rows[static_cast<size_t>(i)] = i;
    const SequenceChunk one{.sequence = sequence,
                            .first_row = 0,
                            .tokens = tokens,
                            .position = position,
                            .expanded_until = canonical_expanded_until(total),
                            .pages = cache.pages()};
    s.logits.resize(static_cast<size_t>(tokens * s.config.vocab_size));
    ForwardTrace part;
    s.decoder->forward({.token_ids = ids.subspan(static_cast<size_t>(position), static_cast<size_t>(tokens)),
                        .chunks = {&one, 1},
                        .logit_rows = rows},
                       s.logits.data(),
                       trace != nullptr ? &part : nullptr);
    if (trace != nullptr) append(*trace, std::move(part));
    if (!visit(position, tokens, s.logits.data())) return {};
    position += tokens;
  }
  return {};
}

}  // namespace lathe
