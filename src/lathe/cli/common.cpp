#include "lathe/cli/common.h"

#include <unistd.h>

#include <algorithm>

#include "lathe/base/env.h"
#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/formats/hub.h"

namespace lathe::cli {

int exit_code(const Error& error) {
  switch (error.code) {
    case Errc::kInvalidArgument:
      return kExitUsage;
    case Errc::kResourceExhausted:
      return error.message.starts_with("memory plan:") ? kExitNoRoom : kExitFailure;
    default:
      return kExitFailure;
  }
}

int report(const Error& error) {
  log_error(error.message);
  return exit_code(error);
}

Status write_stdout(std::string_view text) {
  return write_all(STDOUT_FILENO, text, "stdout");
}

Status write_json(const Json& json) {
  return write_stdout(json.dump(2) + "\n");
}

Result<std::filesystem::path> model_folder(const std::string& model) {
  if (!model.empty()) {
    LATHE_TRY(const HubSettings settings, hub_settings_from_environment());
    LATHE_TRY(std::filesystem::path path, resolve_model(model, settings));
    return path;
  }
  // Beside the program: in the build tree, or installed.
  const std::filesystem::path here = executable_directory();
  for (const char* place : {"../models/storyteller", "../share/lathe/models/storyteller"}) {
    const std::filesystem::path folder = here / place;
    std::error_code ignored;
    if (std::filesystem::exists(folder / "config.json", ignored)) return folder.lexically_normal();
  }
  return Error{
      Errc::kNotFound,
      str("default model: expected share/lathe/models/storyteller beside the program, found none near ", here)};
}

Result<std::optional<CacheFormat>> parse_cache_type(const std::string& text) {
  if (text.empty()) return std::optional<CacheFormat>();
  const std::optional<CacheFormat> format = cache_format_from_name(text);
  if (format) return format;
  return Error{Errc::kInvalidArgument, str("--cache-type: expected f16, bf16, f32, q8 or q6, found ", quoted(text))};
}

void log_plan(const MemoryPlan& plan) {
  log_info("memory plan: weights ",
           human_bytes(plan.weights),
           ", cache ",
           human_bytes(plan.cache),
           ", scratch ",
           human_bytes(plan.scratch),
           ", total ",
           human_bytes(plan.total));
}

Result<std::unique_ptr<Engine>> open_engine(const EngineFlags& flags,
                                            const std::function<void(EngineOptions&)>& adjust) {
  LATHE_TRY(const std::filesystem::path folder, model_folder(flags.model));
  LATHE_TRY(const std::optional<CacheFormat> cache_type, parse_cache_type(flags.cache_type));
  EngineOptions options;
  options.model = folder;
  options.threads = static_cast<int>(flags.threads);
  options.ctx_size = flags.ctx_size;
  options.cache_type = cache_type;
  options.compute = flags.compute == "f32" ? Compute::kF32 : Compute::kAuto;
  options.draft_tokens = flags.draft_tokens;
  // The layer is loaded only for guesses that will be made.
  if (flags.draft_tokens > 0 && flags.drafter != "text") {
    options.drafter = flags.drafter == "mtp" ? std::optional(DrafterKind::kMtp) : std::nullopt;
  }
  if (!flags.type.empty()) options.weight_type = quant_type_from_name(flags.type);
  options.packed_folder = lathe_cache_directory();
  options.on_packing = [&, percent = -1](uint64_t done, uint64_t total) mutable {
    const auto now = static_cast<int>(done * 10 / total * 10);
    if (flags.quiet || total < kSmallestPackedFile || now == percent) return;
    percent = now;
    log_info("packing weights: ", human_bytes(done), " of ", human_bytes(total), ", ", percent, " %");
  };
  options.on_plan = [&](const MemoryPlan& plan) {
    if (!flags.quiet) log_plan(plan);
  };
  if (adjust) adjust(options);
  LATHE_TRY(std::unique_ptr<Engine> engine, Engine::open(options));
  for (const std::string& warning : engine->warnings()) log_warning(warning);
  return engine;
}

Result<SamplingParams> sampling_params(const SamplingFlags& flags, const GenerationDefaults& defaults) {
  SamplingParams params = default_sampling(defaults, flags.temperature);
  params.top_k = flags.top_k.value_or(params.top_k);
  params.top_p = flags.top_p.value_or(params.top_p);
  params.min_p = flags.min_p;
  params.repetition_penalty = flags.repetition_penalty.value_or(params.repetition_penalty);
  params.presence_penalty = flags.presence_penalty;
  params.frequency_penalty = flags.frequency_penalty;
  params.dry.multiplier = flags.dry_multiplier.value_or(params.dry.multiplier);
  params.dry.base = flags.dry_base.value_or(params.dry.base);
  params.dry.allowed_length = flags.dry_allowed_length.value_or(params.dry.allowed_length);
  params.dry.last_n = flags.dry_penalty_last_n;
  if (!flags.dry_sequence_breakers.empty()) {
    params.dry.breakers = flags.dry_sequence_breakers;
    std::erase(params.dry.breakers, "none");
  }
  params.seed = flags.seed ? *flags.seed : random_seed();
  for (const std::string& entry : flags.logit_bias) {
    const size_t equals = entry.find('=');
    int64_t id = 0;
    double bias = 0.0;
    if (equals == std::string::npos || !parse_int(std::string_view(entry).substr(0, equals), id) ||
        !parse_double(std::string_view(entry).substr(equals + 1), bias) || id < 0 || id > INT32_MAX) {
      return Error{Errc::kInvalidArgument, str("--logit-bias: expected ID=BIAS, found ", quoted(entry))};
    }
    params.logit_bias.emplace_back(static_cast<int32_t>(id), bias);
  }
  return params;
}

Result<std::vector<int32_t>> parse_token_ids(const std::string& text) {
  std::vector<int32_t> ids;
  const auto add = [&ids](int64_t id) -> Status {
    if (id < 0 || id > INT32_MAX) {
      return Error{Errc::kInvalidArgument, str("--token-ids: expected ids from 0 to ", INT32_MAX, ", found ", id)};
    }
    ids.push_back(static_cast<int32_t>(id));
    return {};
  };
  if (text.starts_with("@")) {
    LATHE_TRY(const Json json, read_json(text.substr(1)));
    if (!json.is_array()) {
      return Error{Errc::kInvalidArgument,
                   str(text.substr(1), ": expected an array of token ids, found ", json.kind_name())};
    }
    for (const Json& item : json.as_array()) {
      if (!item.is_int()) {
        return Error{Errc::kInvalidArgument, str(text.substr(1), ": expected integers, found ", quoted(item.dump()))};
      }
      LATHE_TRY(add(item.as_int()));
    }
  } else {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      std::string_view item = std::string_view(text).substr(begin, end - begin);
      while (item.starts_with(' ')) item.remove_prefix(1);
      while (item.ends_with(' ')) item.remove_suffix(1);
      int64_t id = 0;
      if (!parse_int(item, id)) {
        return Error{Errc::kInvalidArgument,
                     str("--token-ids: expected integers separated by commas, found ", quoted(item))};
      }
      LATHE_TRY(add(id));
      begin = end + 1;
    }
  }
  if (ids.empty()) return Error{Errc::kInvalidArgument, "--token-ids: expected at least one id, found none"};
  return ids;
}

Result<std::string> read_stdin() {
  constexpr size_t kMost = size_t{1} << 30;
  std::string text;
  std::vector<char> buffer(1 << 16);
  while (true) {
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got == 0) return text;
    if (got < 0) {
      if (errno == EINTR && SignalScope::caught() == 0) continue;
      return Error{Errc::kIo, "stdin: read failed"};
    }
    text.append(buffer.data(), static_cast<size_t>(got));
    if (text.size() > kMost)
      return Error{Errc::kInvalidData, str("stdin: expected at most ", kMost, " bytes, found more")};
  }
}

double tokens_per_second(int64_t tokens, double seconds) {
  return seconds > 0.0 ? static_cast<double>(tokens) / seconds : 0.0;
}

std::string describe_speed(const Completion& c) {
  std::string drafts;
  if (c.draft_tokens > 0) {
    drafts = str(", ", c.accepted_draft_tokens, " of ", c.draft_tokens, " guesses (", name_of(c.drafter), ") right");
  }
  // The first token comes out of the prompt's pass; the others are decoded one by one.
  const int64_t made = c.completion_tokens;
  return str(c.prompt_tokens,
             " prompt tokens, ",
             fixed(tokens_per_second(c.prompt_tokens, c.prefill_s), 1),
             " tok/s; ",
             made,
             " tokens, ",
             fixed(tokens_per_second(std::max<int64_t>(made - 1, 0), c.decode_s), 1),
             " tok/s",
             drafts);
}

}  // namespace lathe::cli
