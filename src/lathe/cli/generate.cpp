// lathe generate: one prompt, one answer, for scripts.
#include <algorithm>

#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/cli/answer_format.h"
#include "lathe/cli/common.h"
#include "lathe/cli/prompt_progress.h"
#include "lathe/runtime/prompt.h"

namespace lathe::cli {

namespace {

Result<std::vector<int32_t>> prompt_ids(const GenerateOptions& o, const Engine& engine) {
  if (o.token_ids) return parse_token_ids(*o.token_ids);
  if (engine.tokenizer() == nullptr) {
    return Error{Errc::kNotFound,
                 str(engine.weights().checkpoint().folder(),
                     ": expected tokenizer.json for a text prompt, found none (--token-ids needs no tokenizer)")};
  }
  std::string text;
  if (o.prompt_file) {
    LATHE_TRY(text, read_file(*o.prompt_file));
  } else {
    text = *o.prompt;
  }
  return encode_prompt(*engine.tokenizer(), text, AddedTokens::kText);
}

Json logprobs_json(const Engine& engine, const std::vector<SampledToken>& tokens) {
  const auto entry = [&](int32_t id, double logprob) {
    Json out = Json::object();
    out.set("id", int64_t{id});
    if (engine.tokenizer() != nullptr) out.set("token", engine.tokenizer()->token_bytes(id));
    out.set("logprob", logprob);
    return out;
  };
  Json list = Json::array();
  for (const SampledToken& token : tokens) {
    Json one = entry(token.id, token.logprob);
    Json top = Json::array();
    for (const TokenLogprob& alternative : token.top) top.push(entry(alternative.id, alternative.logprob));
    one.set("top_logprobs", std::move(top));
    list.push(std::move(one));
  }
  return list;
}

Json completion_json(const Engine& engine,
                     const GenerateOptions& o,
                     const std::vector<int32_t>& prompt,
                     const Completion& c) {
  std::vector<int64_t> prompt_token_ids(prompt.begin(), prompt.end());
  std::vector<int64_t> token_ids;
  for (const SampledToken& token : c.tokens) token_ids.push_back(token.id);
  Json usage = Json::object();
  usage.set("prompt_tokens", c.prompt_tokens);
  usage.set("completion_tokens", c.completion_tokens);
  usage.set("total_tokens", c.prompt_tokens + c.completion_tokens);
  Json timings = Json::object();
  timings.set("load_s", engine.load_seconds());
  timings.set("prefill_s", c.prefill_s);
  timings.set("prefill_tok_per_s", tokens_per_second(c.prompt_tokens, c.prefill_s));
  timings.set("decode_s", c.decode_s);
  timings.set("decode_tok_per_s", tokens_per_second(std::max<int64_t>(c.completion_tokens - 1, 0), c.decode_s));
  if (c.draft_tokens > 0) {
    timings.set("drafter", name_of(c.drafter));
    timings.set("draft_n", c.draft_tokens);
    timings.set("draft_n_accepted", c.accepted_draft_tokens);
  }
  Json out = Json::object();
  out.set("model", engine.weights().checkpoint().folder().string());
  out.set("prompt_token_ids", Json::list(prompt_token_ids));
  out.set("token_ids", Json::list(token_ids));
  out.set("text", c.text);
  out.set("finish_reason", name_of(c.finish_reason));
  if (o.logprobs) out.set("logprobs", logprobs_json(engine, c.tokens));
  out.set("usage", std::move(usage));
  out.set("timings", std::move(timings));
  return out;
}

Result<int> generate(const GenerateOptions& o) {
  LATHE_TRY(const std::unique_ptr<Engine> engine, open_engine(o.engine));
  LATHE_TRY(const std::vector<int32_t> prompt, prompt_ids(o, *engine));
  LATHE_TRY(SamplingParams sampling, sampling_params(o.sampling, engine->defaults()));
  sampling.logprobs = o.logprobs.value_or(-1);
  LATHE_TRY(const AnswerFormat format, AnswerFormat::open(o.format, *engine));
  const SignalScope signals;
  Status written;
  Request request;
  request.prompt = prompt;
  request.sampling = std::move(sampling);
  request.max_tokens = o.max_tokens.value_or(-1);
  request.min_tokens = o.min_tokens;
  request.stop = o.stop;
  request.ignore_eos = o.ignore_eos;
  LATHE_TRY(request.constraint, format.begin(prompt, /*chat=*/false));
  const bool streams = !o.engine.json && engine->tokenizer() != nullptr;
  request.on_token = [&](const TokenEvent& event) {
    if (streams && written) written = write_stdout(event.text);
    return written.has_value() && SignalScope::caught() == 0;
  };
  LATHE_TRY(const Completion completion, generate_with_progress(*engine, std::move(request), o.engine.quiet));
  LATHE_TRY(written);
  if (o.engine.json) {
    LATHE_TRY(write_json(completion_json(*engine, o, prompt, completion)));
  } else if (streams) {
    LATHE_TRY(write_stdout("\n"));
  } else {
    std::string ids;
    for (const SampledToken& token : completion.tokens) ids += str(ids.empty() ? "" : ",", token.id);
    LATHE_TRY(write_stdout(ids + "\n"));
  }
  if (!o.engine.quiet && completion.prefill_s > 0.0) log_info(describe_speed(completion));
  return SignalScope::caught() != 0 ? SignalScope::exit_code() : kExitOk;
}

}  // namespace

int run_generate(const GenerateOptions& options) {
  const Result<int> code = generate(options);
  return code ? *code : report(code.error());
}

}  // namespace lathe::cli
