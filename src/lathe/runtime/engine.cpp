#include "lathe/runtime/engine.h"

#include <algorithm>
#include <random>
#include <utility>

#include "lathe/base/clock.h"
#include "lathe/base/cpu.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/model/model_files.h"
#include "lathe/runtime/engine_state.h"
#include "lathe/runtime/mtp_drafter.h"

namespace lathe {

namespace {

// Logits of a step beyond those that answers need (log-probabilities of prompts, drafts), in floats and least rows.
constexpr int64_t kExtraLogits = int64_t{1} << 22;
constexpr int64_t kLeastExtraLogits = 16;

Status check_plan(const MemoryPlan& plan, int64_t context) {
  const uint64_t limit = usable_memory(machine_limits());
  if (plan.total <= limit) return {};
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
  const uint64_t limit = usable_memory(machine_limits());
  if (packing.bytes <= limit) return {};
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
                                                          MtpLayer mtp,
                                                          ThreadPool& pool) {
  const PackLayout layout = options.compute == Compute::kF32 ? PackLayout::kDecoded : PackLayout::kPanels;
  LATHE_TRY(PackedPlan packing, plan_packing(config, checkpoint, options.weight_type, layout, mtp));
  if (!options.ignore_memory_limit) LATHE_TRY(check_packing(packing));
  return PackedWeights::open(
      std::move(packing),
      checkpoint,
      pool,
      {.cache_folder = options.packed_folder, .smallest_file = kSmallestPackedFile, .on_progress = options.on_packing});
}

// Whether the multi-token prediction layer is to be loaded, for drafts.
Result<MtpLayer> choose_mtp(const ModelConfig& config, const EngineOptions& options, const Checkpoint& checkpoint) {
  if (options.drafter == DrafterKind::kText) return MtpLayer::kSkip;
  const bool has_layer = has_mtp_layer(config, checkpoint);
  const bool works = has_layer && config.attention == AttentionKind::kMla;
  if (!options.drafter || works) return works ? MtpLayer::kUse : MtpLayer::kSkip;
  return Error{Errc::kInvalidArgument,
               str("drafter mtp: expected a model with a multi-token prediction layer",
                   has_layer ? " and MLA" : "",
                   ", found ",
                   has_layer ? "another attention" : "none",
                   " in ",
                   options.model)};
}

}  // namespace

uint64_t random_seed() {
  std::random_device random;
  return random() | uint64_t{random()} << 32;
}

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
  EngineStats stats = s.totals;
  stats.running = s.scheduler->running();
  stats.waiting = s.scheduler->waiting();
  stats.pages = s.pages->pages();
  stats.free_pages = s.pages->free_pages();
  stats.cached_pages = s.pages->kept_pages();
  stats.preemptions = s.scheduler->preemptions();
  stats.drafter = s.drafter->kind();
  return stats;
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
  LATHE_TRY(const MtpLayer mtp, choose_mtp(s.config, options, checkpoint));
  LATHE_TRY(std::shared_ptr<const PackedWeights> packed, pack_weights(s.config, options, checkpoint, mtp, *s.pool));
  LATHE_TRY(
      s.weights,
      ModelWeights::bind(s.config, std::make_shared<const Checkpoint>(std::move(checkpoint)), std::move(packed), mtp));
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
  if (options.cache_tokens < 0) {
    return Error{Errc::kInvalidArgument,
                 str("cache tokens: expected 0 (the context size) or more, found ", options.cache_tokens)};
  }
  const int64_t cache_tokens = options.cache_tokens > 0 ? options.cache_tokens : s.context;
  s.max_batch_tokens = std::clamp<int64_t>(options.max_batch_tokens, 1, std::max<int64_t>(s.context, 1));
  const CacheFormat cache_type =
      options.cache_type.value_or(options.compute == Compute::kF32 ? CacheFormat::kF32 : CacheFormat::kF16);
  s.cache_layout = {
      .format = cache_type, .row_elements = s.config.cache_row_elements(), .layers = s.config.num_hidden_layers};
  if (mtp == MtpLayer::kUse) s.cache_layout = with_mtp_layer(s.cache_layout, s.config);
  LATHE_TRY(s.plan,
            plan_memory(s.config,
                        {.context = cache_tokens,
                         .cache_format = cache_type,
                         .cache_page_tokens = kPageTokens,
                         .mtp = mtp,
                         .max_batch_tokens = s.max_batch_tokens,
                         .threads = threads,
                         .weight_bytes = s.weights->stored_bytes(),
                         .scratch_floats = CpuBackend::total_floats(s.config, s.max_batch_tokens, threads, mtp)}));
  if (options.on_plan) options.on_plan(s.plan);
  if (!options.ignore_memory_limit) LATHE_TRY(check_plan(s.plan, cache_tokens));

  LATHE_TRY(PagePool pages, PagePool::create(s.cache_layout, pages_for(cache_tokens)));
  s.pages.emplace(std::move(pages));
  const KernelTable& table = options.kernels != nullptr ? *options.kernels : kernels();
  LATHE_TRY(s.backend, CpuBackend::create(*s.weights, s.cache_layout, *s.pool, table, s.max_batch_tokens));
  LATHE_TRY(Decoder decoder, Decoder::create(s.config, *s.backend));
  s.decoder.emplace(std::move(decoder));
  if (options.prefix_cache) s.prefixes.emplace(*s.pages, random_seed());
  if (mtp == MtpLayer::kUse) {
    s.drafter = std::make_unique<MtpDrafter>(s.config, s.cache_layout, *s.backend, *s.decoder);
  } else {
    s.drafter = std::make_unique<TextDrafter>();
  }
  s.draft_tokens = std::clamp<int64_t>(options.draft_tokens, 0, kMostDraftTokens);
  s.scheduler.emplace(
      SchedulerLimits{
          .batch_tokens = s.max_batch_tokens,
          .running = std::clamp<int64_t>(options.max_running, 1, s.max_batch_tokens),
          .extra_logits = std::clamp<int64_t>(
              kExtraLogits / s.config.vocab_size, std::min(kLeastExtraLogits, s.max_batch_tokens), s.max_batch_tokens)},
      *s.pages,
      s.prefixes ? &*s.prefixes : nullptr,
      *s.drafter);
  s.load_seconds = now_seconds() - start;
  return engine;
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
