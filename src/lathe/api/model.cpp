// The C++ interface over Engine. Internal names are written with lathe:: here, the public ones are those of lathe::v1.
#include <algorithm>
#include <atomic>
#include <exception>
#include <filesystem>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>

#include "lathe/base/utf8.h"
#include "lathe/formats/hub.h"
#include "lathe/lathe.h"
#include "lathe/model/shapes.h"
#include "lathe/runtime/engine.h"
#include "lathe/runtime/prompt.h"

namespace lathe::v1 {

namespace {

ErrorCode public_code(lathe::Errc code) {
  switch (code) {
    case lathe::Errc::kInvalidArgument:
      return ErrorCode::kInvalidArgument;
    case lathe::Errc::kInvalidData:
      return ErrorCode::kInvalidData;
    case lathe::Errc::kNotFound:
      return ErrorCode::kNotFound;
    case lathe::Errc::kIo:
      return ErrorCode::kIo;
    case lathe::Errc::kResourceExhausted:
      return ErrorCode::kOutOfMemory;
    case lathe::Errc::kUnsupported:
      return ErrorCode::kUnsupported;
    case lathe::Errc::kNetwork:
      return ErrorCode::kNetwork;
    case lathe::Errc::kCancelled:
      return ErrorCode::kCancelled;
    case lathe::Errc::kInternal:
      return ErrorCode::kInternal;
  }
  return ErrorCode::kInternal;
}

// Runs `work`, which gives a Result<T>, and turns its error and what the standard library throws into an Error.
template <class T, class Work>
Expected<T> guarded(Work&& work) {
  try {
    lathe::Result<T> result = work();
    if (result) return *std::move(result);
    lathe::Error error = std::move(result).error();
    return Error{public_code(error.code), std::move(error.message)};
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, "out of memory"};  // short enough to need none
  } catch (const std::length_error&) {
    return Error{ErrorCode::kOutOfMemory, "out of memory"};
  } catch (const std::exception& failure) {
    return Error{ErrorCode::kInternal, failure.what()};
  }
}

lathe::Error invalid(std::string message) {
  return {lathe::Errc::kInvalidArgument, std::move(message)};
}

lathe::Result<lathe::EngineOptions> engine_options(std::string_view model, const OpenOptions& options) {
  lathe::EngineOptions out;
  if (options.threads < 0) return invalid(str("threads: expected 0 (automatic) or more, found ", options.threads));
  if (options.context_size < 0) {
    return invalid(str("context_size: expected 0 (automatic) or more, found ", options.context_size));
  }
  out.threads = options.threads;
  out.ctx_size = options.context_size;
  out.prefix_cache = true;  // a conversation is computed from its last turn on
  switch (options.cache_type) {
    case CacheType::kAuto:
      break;
    case CacheType::kF32:
      out.cache_type = lathe::CacheFormat::kF32;
      break;
    case CacheType::kF16:
      out.cache_type = lathe::CacheFormat::kF16;
      break;
    case CacheType::kBF16:
      out.cache_type = lathe::CacheFormat::kBF16;
      break;
    case CacheType::kQ8:
      out.cache_type = lathe::CacheFormat::kQ8;
      break;
    case CacheType::kQ6:
      out.cache_type = lathe::CacheFormat::kQ6;
      break;
    default:
      return invalid(str("cache_type: expected a value from 0 to 5, found ", static_cast<int>(options.cache_type)));
  }
  switch (options.compute) {
    case Compute::kAuto:
      break;
    case Compute::kF32:
      out.compute = lathe::Compute::kF32;
      break;
    default:
      return invalid(str("compute: expected a value from 0 to 1, found ", static_cast<int>(options.compute)));
  }
  // A path needs no settings, so a wrong variable of the hub cannot get in its way.
  std::error_code ignored;
  const bool is_path = model.find('\0') == std::string_view::npos && std::filesystem::exists(model, ignored);
  lathe::HubSettings settings;
  if (!is_path) {
    LATHE_TRY(settings, lathe::hub_settings_from_environment());
  }
  LATHE_TRY(out.model, lathe::resolve_model(model, settings));
  if (!options.weight_type.empty()) {
    out.weight_type = lathe::quant_type_from_name(options.weight_type);
    if (!out.weight_type) {
      return invalid(str("weight_type: expected a name such as q8_0, found ", lathe::quoted(options.weight_type)));
    }
  }
  out.packed_folder = options.packed_folder;
  return out;
}

// The request's own values over the model's generation_config.json.
lathe::SamplingParams sampling_params(const GenerateOptions& options, const lathe::GenerationDefaults& defaults) {
  lathe::SamplingParams params = lathe::default_sampling(defaults, options.temperature);
  params.top_k = options.top_k.value_or(params.top_k);
  params.top_p = options.top_p.value_or(params.top_p);
  params.min_p = options.min_p;
  params.repetition_penalty = options.repetition_penalty.value_or(params.repetition_penalty);
  params.presence_penalty = options.presence_penalty;
  params.frequency_penalty = options.frequency_penalty;
  params.dry.multiplier = options.dry_multiplier.value_or(params.dry.multiplier);
  params.dry.base = options.dry_base.value_or(params.dry.base);
  params.dry.allowed_length = options.dry_allowed_length.value_or(params.dry.allowed_length);
  params.dry.last_n = options.dry_penalty_last_n;
  if (options.dry_sequence_breakers) params.dry.breakers = *options.dry_sequence_breakers;
  params.seed = options.seed ? *options.seed : lathe::random_seed();
  return params;
}

// Errors of opening name the command line's options; here they are fields.
lathe::Error in_field_names(lathe::Error error) {
  constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"--ctx-size", "context_size"}, {"--cache-type", "cache_type"}, {"--threads", "threads"}};
  for (const auto& [option, field] : kNames) {
    const size_t at = error.message.find(option);
    if (at != std::string::npos) error.message.replace(at, option.size(), field);
  }
  return error;
}

lathe::Status check_ids(std::span<const int32_t> ids, int64_t vocab_size) {
  const auto bad = std::ranges::find_if(ids, [&](int32_t id) { return id < 0 || id >= vocab_size; });
  if (bad == ids.end()) return {};
  return invalid(str("ids[", bad - ids.begin(), "]: expected token ids from 0 to ", vocab_size - 1, ", found ", *bad));
}

lathe::Result<Json> messages_json(const std::vector<Message>& messages) {
  if (messages.empty()) return invalid("messages: expected at least one, found none");
  Json list = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto& [role, content] = messages[i];
    if (!lathe::is_valid_utf8(role)) return invalid(str("messages[", i, "].role: expected UTF-8, found other bytes"));
    if (!lathe::is_valid_utf8(content)) {
      return invalid(str("messages[", i, "].content: expected UTF-8, found other bytes"));
    }
    Json one = Json::object();
    one.set("role", role);
    one.set("content", content);
    list.push(std::move(one));
  }
  return list;
}

FinishReason public_reason(lathe::FinishReason reason) {
  switch (reason) {
    case lathe::FinishReason::kStop:
      return FinishReason::kStop;
    case lathe::FinishReason::kLength:
      return FinishReason::kLength;
    case lathe::FinishReason::kCancelled:
      return FinishReason::kCancelled;
  }
  return FinishReason::kLength;
}

ModelInfo describe(const lathe::Engine& engine) {
  const lathe::ModelConfig& config = engine.config();
  const lathe::ParameterCounts parameters = lathe::count_parameters(config);
  ModelInfo info;
  info.architecture = config.architecture;
  info.vocab_size = config.vocab_size;
  info.context_size = engine.context_size();
  info.max_context_size = config.max_position_embeddings;
  info.layers = config.num_hidden_layers;
  info.hidden_size = config.hidden_size;
  info.attention_heads = config.num_attention_heads;
  info.routed_experts = config.n_routed_experts;
  info.experts_per_token = config.n_routed_experts > 0 ? config.num_experts_per_tok : 0;
  info.parameters = parameters.total;
  info.active_parameters = parameters.active;
  info.cache_bytes_per_token =
      config.num_hidden_layers * lathe::cache_row_bytes(engine.cache_type(), config.cache_row_elements());
  info.weight_bytes = engine.plan().weights;
  info.cache_bytes = engine.plan().cache;
  info.scratch_bytes = engine.plan().scratch;
  info.threads = engine.threads();
  info.load_seconds = engine.load_seconds();
  const auto as_id = [](int64_t id) { return static_cast<int32_t>(id); };
  if (config.bos_token_id) info.bos_id = as_id(*config.bos_token_id);
  if (!config.eos_token_ids.empty()) info.eos_id = as_id(config.eos_token_ids.front());
  if (const lathe::Tokenizer* tokenizer = engine.tokenizer(); tokenizer != nullptr) {
    info.has_tokenizer = true;
    if (tokenizer->bos_id()) info.bos_id = tokenizer->bos_id();
    if (tokenizer->eos_id()) info.eos_id = tokenizer->eos_id();
  }
  return info;
}

// An engine's request while it runs. An exception of the library (no memory) may leave run() with the request still in
// the engine; what the engine then calls lives on in State and ends the request.
class RunningRequest {
 public:
  explicit RunningRequest(lathe::Engine& engine) : engine_(engine) {}

  RunningRequest(const RunningRequest&) = delete;
  RunningRequest& operator=(const RunningRequest&) = delete;

  ~RunningRequest() {
    state_->abandoned = true;
    if (id_ && !state_->outcome) engine_.cancel(*id_);
  }

  // An exception of the callback must not unwind through the engine: it is kept in `thrown` and ends the answer. Both
  // are used during this call only.
  lathe::Result<lathe::Completion> run(lathe::Request request, const OnPiece& on_piece, std::exception_ptr& thrown) {
    request.on_token = [state = state_, &on_piece, &thrown](const lathe::TokenEvent& event) {
      if (state->abandoned) return false;
      if (!on_piece) return true;
      try {
        return on_piece(Piece{event.token.id, event.text});
      } catch (...) {
        thrown = std::current_exception();
        return false;
      }
    };
    LATHE_TRY(
        id_,
        engine_.submit(std::move(request), [state = state_](lathe::RequestId, lathe::Result<lathe::Completion> result) {
          state->outcome.emplace(std::move(result));
        }));
    while (!state_->outcome && engine_.step()) {
    }
    if (!state_->outcome)
      return lathe::Error{lathe::Errc::kInternal, "generate: the engine went idle without an answer"};
    return *std::move(state_->outcome);
  }

 private:
  struct State {
    bool abandoned = false;
    std::optional<lathe::Result<lathe::Completion>> outcome;
  };

  lathe::Engine& engine_;
  std::optional<lathe::RequestId> id_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace

struct Model::Impl {
  std::unique_ptr<lathe::Engine> engine;
  ModelInfo info;
  std::optional<lathe::Result<lathe::ChatTemplate>> chat_template;  // none without a tokenizer; its error is chat()'s
  std::mutex mutex;                                                 // held while the engine computes
  std::atomic<std::thread::id> computing{};                         // the thread that holds it

  // One computation at a time. A call from inside a callback would wait for itself, and is refused.
  template <class Work>
  auto exclusively(Work&& work) -> decltype(work()) {
    const std::thread::id self = std::this_thread::get_id();
    if (computing.load() == self) return invalid("model: expected no call from inside its own callback, found one");
    const std::scoped_lock lock(mutex);
    computing.store(self);

    struct Reset {
      std::atomic<std::thread::id>& computing;

      ~Reset() { computing.store({}); }
    } reset{computing};

    return work();
  }

  lathe::Result<const lathe::Tokenizer*> tokenizer() const {
    if (engine->tokenizer() != nullptr) return engine->tokenizer();
    return lathe::Error{lathe::Errc::kNotFound,
                        str(engine->weights().checkpoint().folder(), ": expected tokenizer.json for text, found none")};
  }

  lathe::Result<std::vector<int32_t>> prompt_ids(std::string_view text) const {
    LATHE_TRY(const lathe::Tokenizer* tokenizer, this->tokenizer());
    return lathe::encode_prompt(*tokenizer, text, lathe::AddedTokens::kText);
  }

  lathe::Result<std::vector<int32_t>> chat_ids(const std::vector<Message>& messages) const {
    LATHE_TRY(const lathe::Tokenizer* tokenizer, this->tokenizer());
    if (!*chat_template) return chat_template->error();
    LATHE_TRY(const Json list, messages_json(messages));
    LATHE_TRY(const Json variables, lathe::template_variables(*tokenizer, list));
    return lathe::encode_chat(*tokenizer, **chat_template, variables);
  }

  lathe::Result<Completion> generate(std::vector<int32_t> prompt,
                                     const GenerateOptions& options,
                                     const OnPiece& on_piece,
                                     std::exception_ptr& thrown);
  lathe::Result<Logits> logits(std::span<const int32_t> ids, LogitRows rows);
};

lathe::Result<Completion> Model::Impl::generate(std::vector<int32_t> prompt,
                                                const GenerateOptions& options,
                                                const OnPiece& on_piece,
                                                std::exception_ptr& thrown) {
  if (std::ranges::any_of(options.stop, [](const std::string& text) { return text.empty(); })) {
    return invalid("stop: expected texts that are not empty, found an empty one");
  }
  if (!options.stop.empty() && engine->tokenizer() == nullptr) {
    return invalid("stop: expected none for a model without tokenizer.json, found some");
  }
  lathe::Request request;
  request.prompt = std::move(prompt);
  request.sampling = sampling_params(options, engine->defaults());
  request.max_tokens = options.max_tokens;
  request.stop = options.stop;
  request.ignore_eos = options.ignore_eos;
  LATHE_TRY(lathe::Completion completion, RunningRequest(*engine).run(std::move(request), on_piece, thrown));
  Completion out;
  out.text = std::move(completion.text);
  out.token_ids.reserve(completion.tokens.size());
  for (const lathe::SampledToken& token : completion.tokens) out.token_ids.push_back(token.id);
  out.finish_reason = public_reason(completion.finish_reason);
  out.prompt_tokens = completion.prompt_tokens;
  out.timings = {.prefill_s = completion.prefill_s, .decode_s = completion.decode_s};
  return out;
}

lathe::Result<Logits> Model::Impl::logits(std::span<const int32_t> ids, LogitRows rows) {
  if (rows != LogitRows::kAll && rows != LogitRows::kLast) {
    return invalid(str("rows: expected a value from 0 to 1, found ", static_cast<int>(rows)));
  }
  LATHE_TRY(check_ids(ids, info.vocab_size));
  const auto total = static_cast<int64_t>(ids.size());
  if (total == 0 || total > info.context_size) {
    return invalid(str("ids: expected 1 to ", info.context_size, " (the context size), found ", total));
  }
  Logits out;
  out.vocab_size = info.vocab_size;
  out.rows = rows == LogitRows::kLast ? 1 : total;
  int64_t elements = 0;  // both factors come from a file and an option
  if (__builtin_mul_overflow(out.rows, out.vocab_size, &elements)) {
    return lathe::Error{lathe::Errc::kResourceExhausted, str("logits: ", out.rows, " rows do not fit memory")};
  }
  out.values.resize(static_cast<size_t>(elements));
  const int64_t skipped = total - out.rows;  // positions before the first row wanted
  LATHE_TRY(engine->score(ids, [&](int64_t position, int64_t count, const float* values) {
    const int64_t first = std::max(position, skipped);
    if (first < position + count) {
      std::copy(values + (first - position) * out.vocab_size,
                values + count * out.vocab_size,
                out.values.begin() + (first - skipped) * out.vocab_size);
    }
    return true;
  }));
  return out;
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

const ModelInfo& Model::info() const {
  return impl_->info;
}

const std::vector<std::string>& Model::warnings() const {
  return impl_->engine->warnings();
}

Expected<Model> Model::open(std::string_view model, const OpenOptions& options) {
  return guarded<Model>([&]() -> lathe::Result<Model> {
    LATHE_TRY(const lathe::EngineOptions engine_opts, engine_options(model, options));
    auto impl = std::make_unique<Impl>();
    lathe::Result<std::unique_ptr<lathe::Engine>> engine = lathe::Engine::open(engine_opts);
    if (!engine) return in_field_names(std::move(engine).error());
    impl->engine = *std::move(engine);
    impl->info = describe(*impl->engine);
    if (const lathe::Tokenizer* tokenizer = impl->engine->tokenizer(); tokenizer != nullptr) {
      impl->chat_template.emplace(lathe::open_chat_template(*tokenizer, std::nullopt));
    }
    return Model(std::move(impl));
  });
}

namespace {

lathe::Error moved_from() {
  return invalid("model: expected an open model, found a moved-from one");
}

}  // namespace

Expected<std::vector<int32_t>> Model::chat_ids(const std::vector<Message>& messages) const {
  return guarded<std::vector<int32_t>>([&]() -> lathe::Result<std::vector<int32_t>> {
    if (impl_ == nullptr) return moved_from();
    return impl_->chat_ids(messages);
  });
}

Expected<std::vector<int32_t>> Model::tokenize(std::string_view text, const TokenizeOptions& options) const {
  return guarded<std::vector<int32_t>>([&]() -> lathe::Result<std::vector<int32_t>> {
    if (impl_ == nullptr) return moved_from();
    LATHE_TRY(const lathe::Tokenizer* tokenizer, impl_->tokenizer());
    const auto added = options.recognise_special ? lathe::AddedTokens::kRecognise : lathe::AddedTokens::kText;
    if (options.add_bos) return lathe::encode_prompt(*tokenizer, text, added);
    return tokenizer->encode(text, added);
  });
}

Expected<std::string> Model::detokenize(std::span<const int32_t> ids, const DetokenizeOptions& options) const {
  return guarded<std::string>([&]() -> lathe::Result<std::string> {
    if (impl_ == nullptr) return moved_from();
    LATHE_TRY(const lathe::Tokenizer* tokenizer, impl_->tokenizer());
    LATHE_TRY(check_ids(ids, impl_->info.vocab_size));
    return tokenizer->decode(ids, options.skip_special);
  });
}

Expected<Completion> Model::generate(std::string_view prompt, const GenerateOptions& options, const OnPiece& on_piece) {
  Expected<std::vector<int32_t>> ids = guarded<std::vector<int32_t>>([&]() -> lathe::Result<std::vector<int32_t>> {
    if (impl_ == nullptr) return moved_from();
    return impl_->prompt_ids(prompt);
  });
  if (!ids) return std::move(ids).error();
  return generate(*ids, options, on_piece);
}

Expected<Completion> Model::chat(const std::vector<Message>& messages,
                                 const GenerateOptions& options,
                                 const OnPiece& on_piece) {
  Expected<std::vector<int32_t>> ids = chat_ids(messages);
  if (!ids) return std::move(ids).error();
  return generate(*ids, options, on_piece);
}

Expected<Completion> Model::generate(std::span<const int32_t> prompt_ids,
                                     const GenerateOptions& options,
                                     const OnPiece& on_piece) {
  std::exception_ptr thrown;
  Expected<Completion> completion = guarded<Completion>([&]() -> lathe::Result<Completion> {
    if (impl_ == nullptr) return moved_from();
    return impl_->exclusively([&]() -> lathe::Result<Completion> {
      return impl_->generate({prompt_ids.begin(), prompt_ids.end()}, options, on_piece, thrown);
    });
  });
  if (thrown) std::rethrow_exception(thrown);  // the caller's own
  return completion;
}

Expected<Logits> Model::logits(std::span<const int32_t> ids, LogitRows rows) {
  return guarded<Logits>([&]() -> lathe::Result<Logits> {
    if (impl_ == nullptr) return moved_from();
    return impl_->exclusively([&]() -> lathe::Result<Logits> { return impl_->logits(ids, rows); });
  });
}

}  // namespace lathe::v1
