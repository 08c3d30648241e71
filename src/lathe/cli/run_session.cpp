#include "lathe/cli/run_session.h"

#include <array>
#include <utility>

#include "lathe/base/str.h"
#include "lathe/cli/common.h"
#include "lathe/cli/prompt_progress.h"
#include "lathe/runtime/prompt.h"

namespace lathe::cli {
namespace {

constexpr std::string_view kHelp =
    "/help              this list\n"
    "/clear             forget the conversation\n"
    "/system TEXT       set the system message and start anew; without TEXT: show it\n"
    "/set NAME VALUE    change a setting; without arguments: show all\n"
    "/stats             speed of the last answer, use of the context\n"
    "/exit              end; so does Ctrl-D\n"
    "A line that ends in \\ continues on the next one; \"\"\" opens and closes a block of several lines.\n"
    "Ctrl-C stops an answer. A message that begins with / needs a space before it.";

constexpr std::string_view kSettings =
    "temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, dry_multiplier, "
    "dry_base, dry_allowed_length, seed or max_tokens";

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// The first word and the rest.
std::pair<std::string_view, std::string_view> split_word(std::string_view text) {
  text = trimmed(text);
  const size_t end = std::min(text.find_first_of(" \t\n"), text.size());
  return {text.substr(0, end), trimmed(text.substr(end))};
}

Json message(std::string_view role, std::string_view content) {
  Json out = Json::object();
  out.set("role", role);
  out.set("content", content);
  return out;
}

// The setting of that name that is a real number, or nullptr.
double* real_setting(SamplingParams& params, std::string_view name) {
  const std::array<std::pair<std::string_view, double*>, 8> settings{{
      {"temperature", &params.temperature},
      {"top_p", &params.top_p},
      {"min_p", &params.min_p},
      {"repetition_penalty", &params.repetition_penalty},
      {"presence_penalty", &params.presence_penalty},
      {"frequency_penalty", &params.frequency_penalty},
      {"dry_multiplier", &params.dry.multiplier},
      {"dry_base", &params.dry.base},
  }};
  for (const auto& [setting, value] : settings) {
    if (setting == name) return value;
  }
  return nullptr;
}

// Whether the answer ended with the model's own end of text.
bool text_ended(const Completion& completion) {
  return completion.finish_reason == FinishReason::kStop && completion.stop_reason != "stop string";
}

}  // namespace

Result<std::unique_ptr<RunSession>> RunSession::create(Engine& engine, const RunOptions& options) {
  std::unique_ptr<RunSession> session(new RunSession(engine, options));
  const Tokenizer* tokenizer = engine.tokenizer();
  if (tokenizer == nullptr) {
    return Error{Errc::kInvalidData,
                 "run: expected a model with tokenizer.json, found none; generate takes --token-ids"};
  }
  if (!options.raw) {
    std::optional<std::filesystem::path> file;
    if (options.chat_template) file = *options.chat_template;
    Result<ChatTemplate> opened = open_chat_template(*tokenizer, file);
    if (opened) {
      session->chat_template_ = *std::move(opened);
    } else if (opened.error().code != Errc::kNotFound || file) {
      return std::move(opened).error();
    }
  }
  if (options.system && !session->is_chat()) {
    return Error{Errc::kInvalidArgument, "--system: expected a model with a chat template, found none"};
  }
  LATHE_TRY(session->sampling_, sampling_params(options.sampling, engine.defaults()));
  LATHE_TRY(validate(session->sampling_, engine.config().vocab_size));
  LATHE_TRY(session->format_, AnswerFormat::open(options.format, engine));
  return session;
}

Result<std::vector<int32_t>> RunSession::prompt_ids(const std::string& text) const {
  const Tokenizer& tokenizer = *engine_.tokenizer();
  std::vector<int32_t> ids;
  if (is_chat()) {
    Json::Array messages;
    if (options_.system) messages.push_back(message("system", *options_.system));
    messages.insert(messages.end(), messages_.begin(), messages_.end());
    messages.push_back(message("user", text));
    LATHE_TRY(const Json variables, template_variables(tokenizer, Json(std::move(messages))));
    LATHE_TRY(ids, encode_chat(tokenizer, *chat_template_, variables));
  } else if (written_.empty()) {
    ids = encode_prompt(tokenizer, text, AddedTokens::kText);
  } else {
    ids = written_;
    const std::vector<int32_t> more = tokenizer.encode(text, AddedTokens::kText);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  const int64_t context = engine_.context_size();
  if (static_cast<int64_t>(ids.size()) >= context) {
    return Error{Errc::kInvalidArgument,
                 str("the context is full: expected fewer than ", context, " tokens (--ctx-size), found ", ids.size())};
  }
  return ids;
}

Result<Completion> RunSession::answer(const std::string& text, const std::function<bool(std::string_view)>& show) {
  LATHE_TRY(std::vector<int32_t> prompt, prompt_ids(text));
  Request request;
  request.prompt = prompt;
  request.sampling = sampling_;
  request.sampling.seed += turn_;
  request.max_tokens = options_.max_tokens.value_or(-1);
  request.min_tokens = options_.min_tokens;
  request.stop = options_.stop;
  request.ignore_eos = options_.ignore_eos;
  LATHE_TRY(request.constraint, format_.begin(prompt, is_chat()));
  request.on_token = [&](const TokenEvent& event) { return show(event.text) && SignalScope::caught() == 0; };
  // A text to continue was written in front of its continuation, on the line that would be redrawn.
  const bool quiet = options_.engine.quiet || !is_chat();
  LATHE_TRY(Completion completion, generate_with_progress(engine_, std::move(request), quiet));
  remember(text, prompt, completion);
  return completion;
}

void RunSession::remember(const std::string& text, const std::vector<int32_t>& prompt, const Completion& completion) {
  ++turn_;
  context_used_ = static_cast<int64_t>(prompt.size() + completion.tokens.size());
  last_speed_ = describe_speed(completion);
  // A turn that was stopped before it began is as if it had not been.
  if (completion.tokens.empty() && completion.finish_reason == FinishReason::kCancelled) return;
  if (is_chat()) {
    messages_.push_back(message("user", text));
    messages_.push_back(message("assistant", completion.text));
    return;
  }
  written_.clear();
  if (text_ended(completion)) return;  // what comes next is another text
  written_ = prompt;
  for (const SampledToken& token : completion.tokens) written_.push_back(token.id);
}

bool RunSession::is_full(const Completion& completion) const {
  const auto made = static_cast<int64_t>(completion.tokens.size());
  return completion.finish_reason == FinishReason::kLength && completion.prompt_tokens + made >= engine_.context_size();
}

Result<std::string> RunSession::command(std::string_view line) {
  const auto [name, arguments] = split_word(line);
  if (name == "/set") return set(arguments);
  if (name == "/system") return set_system(arguments);
  const std::array<std::string_view, 6> plain{"/help", "/?", "/clear", "/stats", "/exit", "/quit"};
  if (std::find(plain.begin(), plain.end(), name) == plain.end()) {
    return Error{Errc::kInvalidArgument,
                 str(quoted(name),
                     ": expected /help, /clear, /exit, /stats, /system or /set; ",
                     "a message that begins with / needs a space before it")};
  }
  if (!arguments.empty()) {
    return Error{Errc::kInvalidArgument, str(name, ": expected nothing after it, found ", quoted(arguments))};
  }
  if (name == "/clear") {
    clear();
    return std::string("The conversation is forgotten.");
  }
  if (name == "/stats") return statistics();
  if (name == "/exit" || name == "/quit") {
    ended_ = true;
    return std::string();
  }
  return std::string(kHelp);
}

void RunSession::clear() {
  messages_.clear();
  written_.clear();
  context_used_ = 0;
}

Result<std::string> RunSession::set(std::string_view arguments) {
  const auto [name, value] = split_word(arguments);
  if (name.empty()) return settings();
  SamplingParams changed = sampling_;
  int64_t whole = 0;
  if (double* real = real_setting(changed, name)) {
    if (!parse_double(value, *real)) {
      return Error{Errc::kInvalidArgument, str("/set ", name, ": expected a number, found ", quoted(value))};
    }
  } else if (name == "top_k" || name == "dry_allowed_length" || name == "seed" || name == "max_tokens") {
    if (!parse_int(value, whole) || whole < 0) {
      return Error{Errc::kInvalidArgument, str("/set ", name, ": expected an integer from 0, found ", quoted(value))};
    }
    if (name == "top_k") changed.top_k = whole;
    if (name == "dry_allowed_length") changed.dry.allowed_length = whole;
    if (name == "seed") changed.seed = static_cast<uint64_t>(whole);
  } else {
    return Error{Errc::kInvalidArgument, str("/set: expected ", kSettings, ", found ", quoted(name))};
  }
  const Status valid = validate(changed, engine_.config().vocab_size);
  if (!valid) return valid.error().at("/set");
  sampling_ = changed;
  if (name == "seed") turn_ = 0;
  if (name == "max_tokens") options_.max_tokens = whole > 0 ? std::optional(whole) : std::nullopt;
  return str(name, " ", value);
}

Result<std::string> RunSession::set_system(std::string_view text) {
  if (!is_chat()) {
    return Error{Errc::kInvalidArgument, "/system: expected a model with a chat template, found none"};
  }
  if (text.empty()) return options_.system ? *options_.system : std::string("There is no system message.");
  options_.system = std::string(text);
  clear();
  return std::string("The system message is set, the conversation forgotten.");
}

std::string RunSession::settings() const {
  return str("temperature ",
             sampling_.temperature,
             ", top_k ",
             sampling_.top_k,
             ", top_p ",
             sampling_.top_p,
             ", min_p ",
             sampling_.min_p,
             ", repetition_penalty ",
             sampling_.repetition_penalty,
             ",\npresence_penalty ",
             sampling_.presence_penalty,
             ", frequency_penalty ",
             sampling_.frequency_penalty,
             ", dry_multiplier ",
             sampling_.dry.multiplier,
             ", dry_base ",
             sampling_.dry.base,
             ", dry_allowed_length ",
             sampling_.dry.allowed_length,
             ",\nseed ",
             sampling_.seed,
             ", max_tokens ",
             options_.max_tokens ? str(*options_.max_tokens) : std::string("0 (no limit)"));
}

std::string RunSession::statistics() const {
  return str("last answer: ",
             last_speed_.value_or("none yet"),
             "\ncontext: ",
             context_used_,
             " of ",
             engine_.context_size(),
             " tokens\nthreads: ",
             engine_.threads());
}

}  // namespace lathe::cli
