// CLI11 appears in this file only.
#include "lathe/cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>

#include "lathe/base/env.h"
#include "lathe/base/str.h"
#include "lathe/formats/quant/recipe.h"
#include "lathe/kernels/kernel_table.h"

namespace lathe::cli {

namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 31;

// All options of one invocation; the chosen subcommand's struct becomes the Command.
struct Parsed {
  RunOptions run;
  GenerateOptions generate;
  ServeOptions serve;
  InspectOptions inspect;
  VerifyOptions verify;
  TokenizeOptions tokenize;
  TemplateOptions chat_template;
  EvalLogitsOptions eval_logits;
  EvalPerplexityOptions eval_perplexity;
  TrainCommandOptions train;
  EvalNeedleOptions eval_needle;
  PullOptions pull;
  ListOptions list;
  RmOptions rm;
  DoctorOptions doctor;
  QuantizeOptions quantize;
  ConvertOptions convert;
  BenchOptions bench;
};

// --max-tokens -> LATHE_MAX_TOKENS: every option also as a variable; the command line wins.
template <class Option>
Option* with_variable(Option* option) {
  std::string name = "LATHE_";
  for (const char c : option->get_lnames().front()) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return option->envname(name);
}

template <class T>
CLI::Option* option(CLI::App& app, const std::string& names, T& target, const std::string& help) {
  return with_variable(app.add_option(names, target, help));
}

CLI::Option* flag(CLI::App& app, const std::string& names, bool& target, const std::string& help) {
  return with_variable(app.add_flag(names, target, help));
}

// A whole number inside [low, high], digits only.
CLI::Validator whole(int64_t low, int64_t high) {
  return CLI::Validator(
      [low, high](std::string& text) {
        int64_t value = 0;
        if (parse_int(text, value) && value >= low && value <= high) return std::string();
        return str("expected a whole number from ", low, " to ", high, ", found ", quoted(text));
      },
      "INT");
}

CLI::Validator real(double low, double high) {
  return CLI::Validator(
      [low, high](std::string& text) {
        double value = 0.0;
        if (parse_double(text, value) && value >= low && value <= high) return std::string();
        return str("expected a number from ", low, " to ", high, ", found ", quoted(text));
      },
      "NUMBER");
}

CLI::Validator one_of(const std::vector<std::string>& values) {
  return CLI::Validator(
      [values](std::string& text) {
        if (std::ranges::find(values, text) != values.end()) return std::string();
        std::string list;
        for (const std::string& value : values) list += (list.empty() ? "" : ", ") + value;
        return str("expected one of ", list, ", found ", quoted(text));
      },
      "");
}

void add_json(CLI::App& app, bool& target) {
  flag(app, "--json", target, "One JSON document on stdout");
}

void add_quiet(CLI::App& app, bool& target) {
  flag(app, "-q,--quiet", target, "Warnings and errors only on stderr");
}

void add_engine_flags(CLI::App& app, EngineFlags& f, bool model_required, bool has_json = true) {
  CLI::Option* model = option(
      app, "-m,--model", f.model, "Folder in HuggingFace layout, .gguf file, or ORG/NAME[@REV] in the hub cache");
  if (model_required) model->required();
  option(app, "-t,--threads", f.threads, "Threads; default: physical cores inside affinity and cgroup quota")
      ->check(whole(1, 1024));
  option(app, "-c,--ctx-size", f.ctx_size, "Positions of the cache; default: the model's, at most 32768")
      ->check(whole(1, kMaxTokens));
  option(app, "--type", f.type, "Quantise the weights on load: q8_0, q4_0, q4_k_m, q5_k_m or q6_k")
      ->check(one_of({"q8_0", "q4_0", "q4_k_m", "q5_k_m", "q6_k"}));
  option(app, "--cache-type", f.cache_type, "f16 (default), bf16, f32 (default with --compute f32), q8 or q6")
      ->check(one_of({"f16", "bf16", "f32", "q8", "q6"}));
  option(app, "--compute", f.compute, "auto, or f32: reference-grade arithmetic, for parity")
      ->check(one_of({"auto", "f32"}));
  option(app, "--backend", f.backend, "auto or cpu")->check(one_of({"auto", "cpu"}));
  if (has_json) add_json(app, f.json);
  add_quiet(app, f.quiet);
}

void add_sampling_flags(CLI::App& app, SamplingFlags& f) {
  option(app, "--temperature,--temp", f.temperature, "0 is greedy; default: the model's")->check(real(0, 100));
  option(app, "--top-k", f.top_k, "Keep the K most likely tokens; 0: all")->check(whole(0, kMaxTokens));
  option(app, "--top-p", f.top_p, "Keep the most likely tokens up to this share of probability")->check(real(0, 1));
  option(app, "--min-p", f.min_p, "Drop tokens less likely than this share of the most likely one")->check(real(0, 1));
  option(app, "--repetition-penalty", f.repetition_penalty, "Above 1 makes repetition less likely")
      ->check(real(0.01, 100));
  option(app, "--presence-penalty", f.presence_penalty, "Taken off tokens that have appeared in the answer")
      ->check(real(-2, 2));
  option(app, "--frequency-penalty", f.frequency_penalty, "The same, per appearance")->check(real(-2, 2));
  option(app, "--dry-multiplier", f.dry_multiplier, "DRY: above 0 keeps sequences of tokens from coming again; try 0.8")
      ->check(real(0, 100));
  option(app, "--dry-base", f.dry_base, "DRY: factor per token beyond the allowed length (default 1.75)")
      ->check(real(1, 100));
  option(app, "--dry-allowed-length", f.dry_allowed_length, "DRY: tokens that may come again freely (default 2)")
      ->check(whole(1, int64_t{1} << 20));
  option(app, "--dry-penalty-last-n", f.dry_penalty_last_n, "DRY: looks at the last N tokens (default -1: all)")
      ->check(whole(-1, kMaxTokens));
  option(app,
         "--dry-sequence-breaker",
         f.dry_sequence_breakers,
         "DRY: no sequence reaches over a token with this text; may be repeated; none: no text");
  option(app, "--seed", f.seed, "Same seed, same output; default: random")->check(whole(0, INT64_MAX));
  option(app, "--logit-bias", f.logit_bias, "ID=BIAS, added to the logit of a token; may be repeated");
}

void add_draft_flags(CLI::App& app, EngineFlags& f) {
  option(app, "--draft-tokens", f.draft_tokens, "Tokens guessed per step and checked together (default 0: off)")
      ->check(whole(0, 64));
  option(app,
         "--drafter",
         f.drafter,
         "Who guesses: text (default), mtp (the model's own layer), auto (mtp if there is one)")
      ->check(one_of({"text", "mtp", "auto"}));
}

template <class Options>
void add_answer_flags(CLI::App& app, Options& o) {
  option(app, "-n,--max-tokens", o.max_tokens, "New tokens; default: until the model stops or the context is full")
      ->check(whole(0, kMaxTokens));
  option(app, "--min-tokens", o.min_tokens, "Tokens before which no end-of-sequence token or --stop ends the answer")
      ->check(whole(0, kMaxTokens));
  option(app, "--stop", o.stop, "Text that ends the answer; may be repeated")->allow_extra_args(false);
  flag(app, "--ignore-eos", o.ignore_eos, "Go on after the end-of-sequence token");
  option(app, "--json-schema", o.format.json_schema, "Schema, or its file: the answer is JSON that satisfies it");
  flag(app, "--json-object", o.format.json_object, "The answer is a JSON object");
  add_draft_flags(app, o.engine);
}

CLI::App& command(CLI::App& app, const std::string& name, const std::string& help, const std::string& footer = "") {
  CLI::App* sub = app.add_subcommand(name, help);
  sub->footer(footer);
  return *sub;
}

void add_run(CLI::App& app, RunOptions& o) {
  CLI::App& sub = command(app,
                          "run",
                          "Chat with a model, or continue text, in the terminal",
                          "Without MODEL: the embedded default model. In the prompt, /help lists the commands;\n"
                          "Ctrl-C stops an answer, Ctrl-D ends.");
  sub.add_option(
      "MODEL", o.engine.model, "Folder in HuggingFace layout, .gguf file, or ORG/NAME[@REV] in the hub cache");
  option(sub, "-p,--prompt", o.prompt, "Answer this and end");
  option(sub, "--system", o.system, "System message of a chat");
  option(sub, "--chat-template", o.chat_template, "Jinja file instead of the model's own template");
  flag(sub, "--raw", o.raw, "Continue text even where the model has a chat template");
  add_answer_flags(sub, o);
  add_sampling_flags(sub, o.sampling);
  add_engine_flags(sub, o.engine, false, false);
}

void add_generate(CLI::App& app, GenerateOptions& o) {
  CLI::App& sub = command(app, "generate", "Continue a prompt and end: text, ids and timings for scripts");
  option(sub, "-p,--prompt", o.prompt, "Text to continue (special tokens in it stay text)");
  option(sub, "--prompt-file", o.prompt_file, "File with the text to continue");
  option(sub, "--token-ids", o.token_ids, "1,2,3 or @FILE.json: ids to continue, as they are");
  option(sub, "--logprobs", o.logprobs, "With --json: log-probabilities of each token and of the N most likely")
      ->check(whole(0, 1 << 20));
  add_answer_flags(sub, o);
  add_sampling_flags(sub, o.sampling);
  add_engine_flags(sub, o.engine, true);
}

void add_eval_needle(CLI::App& eval, EvalNeedleOptions& o) {
  CLI::App& sub = command(eval, "needle", "Passkey retrieval over context lengths and depths");
  option(sub, "--lengths", o.lengths, "Tokens of prompt and answer, e.g. 1024,4096; default: 12 up to the context size")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(whole(1, kMaxTokens));
  option(sub, "--depths", o.depths, "Where the key stands, in percent, e.g. 0,50,100; default: 12 from 0 to 100")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(whole(0, 100));
  option(sub, "--samples", o.samples, "Prompts of each length and depth (default 1)")->check(whole(1, 10000));
  option(sub, "--seed", o.seed, "Of keys and text; same seed, same prompts (default 0)")->check(whole(0, INT64_MAX));
  option(sub, "-f,--file", o.file, "UTF-8 text to hide the key in; default: sentences built in");
  option(sub, "--out", o.out, ".svg or .html file with heat maps");
  flag(sub, "--plain", o.plain, "Continue text even where the model has a chat template");
  add_engine_flags(sub, o.engine, true);
}

void add_serve(CLI::App& app, ServeOptions& o) {
  CLI::App& sub = command(app,
                          "serve",
                          "Serve a model over HTTP: OpenAI's API, metrics and a chat page",
                          "Without -m: the embedded default model. Ctrl-C or SIGTERM ends it when running answers are\n"
                          "done, a second one at once.");
  option(sub, "--host", o.host, "Address to listen on (default 127.0.0.1)");
  option(sub, "--port", o.port, "Port (default 8080); 0: any free one")->check(whole(0, 65535));
  option(sub, "--alias", o.alias, "Name of the model for clients; default: that of -m");
  option(sub, "--chat-template", o.chat_template, "Jinja file instead of the model's own template");
  option(sub, "--api-key-file", o.api_key_file, "File with the keys that clients may use, one a line");
  flag(sub, "--allow-unauthenticated", o.allow_unauthenticated, "Listen on other addresses than loopback without keys");
  option(sub, "--cors-origin", o.cors_origins, "Web origin whose pages may call; * for all; may be repeated")
      ->allow_extra_args(false);
  option(sub, "--allow-host", o.allow_hosts, "Host name that requests may use on loopback; may be repeated")
      ->allow_extra_args(false);
  option(sub, "--cache-tokens", o.cache_tokens, "Positions of the cache, all answers together; default: 32768 or -c")
      ->check(whole(1, kMaxTokens));
  option(sub, "--parallel", o.parallel, "Answers computed at a time (default 64)")->check(whole(1, 512));
  option(sub, "--batch-tokens", o.batch_tokens, "Tokens of one step, answers and prompts together (default 512)")
      ->check(whole(1, 8192));
  flag(sub, "--no-prefix-cache", o.no_prefix_cache, "Compute every prompt anew");
  add_draft_flags(sub, o.engine);
  option(sub, "--max-queue", o.max_queue, "Answers that may wait for their first token (default 256)")
      ->check(whole(1, 1 << 20));
  option(sub, "--max-connections", o.max_connections, "Open connections (default 4096)")->check(whole(1, 1 << 20));
  option(sub, "--max-body", o.max_body_mib, "Largest request body in MiB (default 8)")->check(whole(1, 1024));
  option(sub, "--drain", o.drain_s, "Seconds that running answers have at the end (default 30)")
      ->check(whole(0, 86400));
  option(sub, "--log-format", o.log_format, "text or json")->check(one_of({"text", "json"}));
  option(sub, "--metrics-prefix", o.metrics_prefix, "What metric names begin with: lathe or vllm")
      ->check(one_of({"lathe", "vllm"}));
  add_engine_flags(sub, o.engine, false, false);
}

void add_eval(CLI::App& app, Parsed& p) {
  CLI::App& eval = command(app, "eval", "Logits, perplexity and passkey retrieval of a model");
  eval.require_subcommand(1);
  CLI::App& logits = command(eval, "logits", "Write the logits of every position to a safetensors file");
  option(logits, "--token-ids", p.eval_logits.token_ids, "1,2,3 or @FILE.json")->required();
  option(logits, "--out", p.eval_logits.out, "File to write: logits F32 [T, vocab]")->required();
  flag(logits, "--trace", p.eval_logits.trace, "Also hidden states, final norm and routing");
  add_engine_flags(logits, p.eval_logits.engine, true);
  CLI::App& perplexity = command(eval, "perplexity", "Perplexity of a text");
  option(perplexity, "-f,--file", p.eval_perplexity.file, "UTF-8 text")->required();
  option(perplexity, "--ctx", p.eval_perplexity.window, "Tokens per window; default: the context size")
      ->check(whole(2, kMaxTokens));
  option(perplexity,
         "--by-position",
         p.eval_perplexity.by_position,
         "Also perplexity in that many bins of the position in the window")
      ->check(whole(1, 4096));
  option(perplexity, "--out", p.eval_perplexity.out, "With --by-position: .svg or .html file with a chart of the bins");
  add_engine_flags(perplexity, p.eval_perplexity.engine, true);
  add_eval_needle(eval, p.eval_needle);
}

void add_train(CLI::App& app, TrainCommandOptions& o) {
  CLI::App& sub = command(app,
                          "train",
                          "Train a model: a recipe and text to a checkpoint",
                          "docs/training.md lists the keys of a recipe. Ctrl-C ends with a checkpoint after the step.");
  sub.add_option("RECIPE", o.recipe, "TOML file")->required();
  option(sub, "--set", o.set, "KEY=VALUE over what the recipe says, e.g. train.max_steps=500; may be repeated")
      ->allow_extra_args(false);
  CLI::Option* resume = flag(sub, "--resume", o.resume, "Go on from the last checkpoint of the output folder");
  CLI::Option* prepare =
      flag(sub, "--prepare", o.prepare, "Prepare the data, print what is in them, and train nothing");
  flag(sub, "--report", o.report, "Write report.html anew from metrics.jsonl, and train nothing")
      ->excludes(resume)
      ->excludes(prepare);
  prepare->excludes(resume);
  option(sub, "-t,--threads", o.threads, "Threads; default: the recipe's, or physical cores")->check(whole(1, 1024));
  add_json(sub, o.json);
  add_quiet(sub, o.quiet);
}

void add_looking(CLI::App& app, Parsed& p) {
  CLI::App& inspect = command(app,
                              "inspect",
                              "Architecture, parameters, cache per token, memory plan",
                              "MODEL may be a folder with nothing but config.json, or that file itself.");
  inspect.add_option("MODEL", p.inspect.model, "Folder, config.json, .gguf file, or ORG/NAME[@REV] in the hub cache");
  flag(inspect, "--cpu", p.inspect.cpu, "Show the processor, its kernel tables and limits instead");
  option(
      inspect, "-c,--ctx-size", p.inspect.ctx_size, "Context of the memory plan; default: the model's, at most 32768")
      ->check(whole(1, kMaxTokens));
  option(inspect, "--cache-type", p.inspect.cache_type, "f16, bf16, f32, q8 or q6")
      ->check(one_of({"f16", "bf16", "f32", "q8", "q6"}));
  add_json(inspect, p.inspect.json);

  CLI::App& verify =
      command(app, "verify", "Prove that nothing about a checkpoint is silently wrong: one line per check");
  verify
      .add_option("MODEL",
                  p.verify.engine.model,
                  "Folder in HuggingFace layout, .gguf file, or ORG/NAME[@REV] in the hub cache")
      ->required();
  option(verify, "-t,--threads", p.verify.engine.threads, "Threads")->check(whole(1, 1024));
  add_json(verify, p.verify.engine.json);
  add_quiet(verify, p.verify.engine.quiet);

  CLI::App& doctor = command(app, "doctor", "What this machine can do, and what is wrong with its settings");
  add_json(doctor, p.doctor.json);
}

void add_text(CLI::App& app, Parsed& p) {
  CLI::App& tokenize =
      command(app,
              "tokenize",
              "Text to token ids, or ids to text",
              "Reads stdin unless -p is given. --jsonl: one JSON string per line in, one array of ids per line\n"
              "out; with --decode the other way round.");
  option(tokenize, "-m,--model", p.tokenize.model, "Folder with tokenizer.json, .gguf file, or ORG/NAME[@REV]")
      ->required();
  option(tokenize, "-p,--prompt", p.tokenize.prompt, "Text (or ids with --decode) instead of stdin");
  flag(tokenize, "--decode", p.tokenize.decode, "Ids to text");
  flag(tokenize, "--bos", p.tokenize.bos, "Put the BOS id first");
  flag(tokenize, "--plain", p.tokenize.plain, "Recognise no special token: for untrusted text");
  flag(tokenize, "--jsonl", p.tokenize.jsonl, "One JSON value per line");
  add_json(tokenize, p.tokenize.json);

  CLI::App& chat = command(app, "template", "The chat prompt that a model's template renders");
  option(chat, "-m,--model", p.chat_template.model, "Folder with the tokenizer files, .gguf file, or ORG/NAME[@REV]")
      ->required();
  option(chat, "--messages", p.chat_template.messages, "JSON file: {\"messages\": [...], ...} or an array; - for stdin")
      ->required();
  option(chat, "--chat-template", p.chat_template.chat_template, "Jinja file instead of the model's own template");
  flag(chat, "--ids", p.chat_template.ids, "Token ids of the text (as JSON) instead of it");
  flag(chat,
       "--untrusted",
       p.chat_template.untrusted,
       "With --ids: message text makes no special tokens, as in `lathe run`");
  add_json(chat, p.chat_template.json);
}

void add_bench(CLI::App& app, BenchOptions& o) {
  CLI::App& sub = command(app,
                          "bench",
                          "Speed of a model's forward pass, as shares of what this machine reaches",
                          "Depths are reached by filling the cache with random rows, token ids are random.");
  option(sub, "--prompt", o.prompt, "Prompt tokens, e.g. 128,512; 0: none (default 512)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(whole(0, kMaxTokens));
  option(sub, "--gen", o.gen, "Tokens generated one by one; 0: none (default 64)")->check(whole(0, kMaxTokens));
  option(sub, "--depth", o.depth, "Cached positions before them, e.g. 0,4096 (default 0)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(whole(0, kMaxTokens));
  option(sub, "--repeat", o.repeat, "Measurements of each, of which the median counts (default 5)")
      ->check(whole(1, 10000));
  option(sub, "--batch", o.batch, "Prompt tokens of one forward pass (default 512)")->check(whole(1, 2048));
  option(sub, "--synthetic", o.synthetic, "config.json of a model whose weights are made up in memory");
  flag(sub, "--signature", o.signature, "Only print the hash of a fixed run: equal where the same is computed");
  add_engine_flags(sub, o.engine, false);
}

void add_conversion(CLI::App& app, Parsed& p) {
  const std::string source = "Folder in HuggingFace layout, .gguf file, or ORG/NAME[@REV] in the hub cache";
  CLI::App& quantize =
      command(app,
              "quantize",
              "Write a model in a smaller type to a GGUF file",
              "The report names what every tensor lost: the root of the mean squared error over that of\n"
              "the values, and the largest error.");
  quantize.add_option("SRC", p.quantize.source, source)->required();
  quantize.add_option("DST", p.quantize.destination, "GGUF file to write; replaced when it exists")->required();
  option(quantize, "--type", p.quantize.type, "q8_0, q4_0, q4_k_m, q5_k_m, q6_k, q4_1, q5_0, q5_1, f16, bf16 or f32")
      ->required()
      ->check(one_of(quant_type_names()));
  option(quantize, "-t,--threads", p.quantize.threads, "Threads")->check(whole(1, 1024));
  flag(quantize, "--allow-requantize", p.quantize.allow_requantize, "Quantise again what is quantised already");
  add_json(quantize, p.quantize.json);
  add_quiet(quantize, p.quantize.quiet);

  CLI::App& convert = command(app, "convert", "Write a model in another format, without quantising it");
  convert.add_option("SRC", p.convert.source, source)->required();
  convert.add_option("DST", p.convert.destination, "GGUF file, or folder that is new or empty")->required();
  option(convert, "--to", p.convert.to, "gguf, or hf: a folder in HuggingFace layout")
      ->required()
      ->check(one_of({"gguf", "hf"}));
  option(convert, "--dtype", p.convert.dtype, "auto (default: the source's where it is plain), f32, f16 or bf16")
      ->check(one_of({"auto", "f32", "f16", "bf16"}));
  option(convert, "-t,--threads", p.convert.threads, "Threads")->check(whole(1, 1024));
  add_json(convert, p.convert.json);
  add_quiet(convert, p.convert.quiet);
}

void add_hub(CLI::App& app, Parsed& p) {
  CLI::App& pull = command(
      app,
      "pull",
      "Download a model into the HuggingFace hub cache",
      "HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured. Interrupted downloads resume.");
  pull.add_option("NAME", p.pull.name, "ORG/NAME[@REV]")->required();
  add_json(pull, p.pull.json);
  add_quiet(pull, p.pull.quiet);
  CLI::App& list = command(app, "list", "Models in the hub cache");
  add_json(list, p.list.json);
  CLI::App& rm =
      command(app, "rm", "Remove a model from the hub cache", "With @REV that revision only, else all of them.");
  rm.add_option("NAME", p.rm.name, "ORG/NAME[@REV]")->required();
  add_json(rm, p.rm.json);
}

std::unique_ptr<CLI::App> make_app(Parsed& p) {
  auto app = std::make_unique<CLI::App>("Lathe runs DeepSeek-V2-family models: MLA and DeepSeekMoE, from file to text.",
                                        "lathe");
  app->footer(
      "lathe COMMAND --help tells more. Every option is also an environment variable, e.g. LATHE_THREADS for\n"
      "--threads. Exit codes: 0 done, 1 failure, 2 usage, 3 the memory plan does not fit, 130/143 interrupted.");
  app->get_formatter()->column_width(34);
  app->require_subcommand(1);
  app->set_version_flag(
      "--version", [] { return str("lathe ", LATHE_VERSION, " (", __VERSION__, ", kernels ", kernels().isa, ")"); });
  add_run(*app, p.run);
  add_generate(*app, p.generate);
  add_serve(*app, p.serve);
  add_looking(*app, p);
  add_text(*app, p);
  add_eval(*app, p);
  add_train(*app, p.train);
  add_hub(*app, p);
  add_conversion(*app, p);
  add_bench(*app, p.bench);
  return app;
}

Error usage(const CLI::App& app, std::string message) {
  // CLI11's messages may span lines; ours are one.
  std::ranges::replace(message, '\n', ' ');
  while (message.ends_with(' ') || message.ends_with('.')) message.pop_back();
  std::string where;
  for (const CLI::App* sub = &app; sub != nullptr;) {
    const std::vector<CLI::App*> chosen = sub->get_subcommands();
    sub = chosen.empty() ? nullptr : chosen.front();
    if (sub != nullptr) where += (where.empty() ? "" : " ") + sub->get_name();
  }
  if (where.empty())
    return {Errc::kInvalidArgument, str("command line: ", message, " (lathe --help lists the commands)")};
  return {Errc::kInvalidArgument, str(where, ": ", message, " (see lathe ", where, " --help)")};
}

// What CLI11's declarative checks do not express.
Status cross_check(const FormatFlags& format, const char* name) {
  if (!format.json_schema || !format.json_object) return {};
  return Error{Errc::kInvalidArgument, str(name, ": expected --json-schema or --json-object, found both")};
}

Status cross_check(const GenerateOptions& o) {
  LATHE_TRY(cross_check(o.format, "generate"));
  const int sources = o.prompt.has_value() + o.prompt_file.has_value() + o.token_ids.has_value();
  if (sources == 1) return {};
  return Error{Errc::kInvalidArgument,
               str("generate: expected exactly one of --prompt, --prompt-file and --token-ids, found ", sources)};
}

Status cross_check(const TokenizeOptions& o) {
  if (o.jsonl && o.prompt) return Error{Errc::kInvalidArgument, "tokenize: expected --jsonl or --prompt, found both"};
  if (o.jsonl && o.json) return Error{Errc::kInvalidArgument, "tokenize: expected --jsonl or --json, found both"};
  return {};
}

Status cross_check(const BenchOptions& o) {
  if (o.engine.model.empty() == o.synthetic.empty()) {
    return Error{Errc::kInvalidArgument,
                 str("bench: expected one of --model and --synthetic, found ", o.synthetic.empty() ? "none" : "both")};
  }
  return {};
}

Status cross_check(const EvalPerplexityOptions& o) {
  if (!o.out.empty() && o.by_position == 0) {
    return Error{Errc::kInvalidArgument, "eval perplexity: expected --by-position with --out, found none"};
  }
  return {};
}

Result<Command> chosen_command(const CLI::App& app, Parsed& p) {
  const std::string name = app.get_subcommands().front()->get_name();
  if (name == "run") {
    LATHE_TRY(cross_check(p.run.format, "run"));
    return Command(p.run);
  }
  if (name == "generate") {
    LATHE_TRY(cross_check(p.generate));
    return Command(p.generate);
  }
  if (name == "serve") return Command(p.serve);
  if (name == "inspect") {
    if (p.inspect.model.empty() && !p.inspect.cpu) {
      return Error{Errc::kInvalidArgument, "inspect: expected a MODEL or --cpu, found neither"};
    }
    return Command(p.inspect);
  }
  if (name == "verify") return Command(p.verify);
  if (name == "doctor") return Command(p.doctor);
  if (name == "quantize") return Command(p.quantize);
  if (name == "convert") return Command(p.convert);
  if (name == "bench") {
    LATHE_TRY(cross_check(p.bench));
    return Command(p.bench);
  }
  if (name == "tokenize") {
    LATHE_TRY(cross_check(p.tokenize));
    return Command(p.tokenize);
  }
  if (name == "template") return Command(p.chat_template);
  if (name == "pull") return Command(p.pull);
  if (name == "list") return Command(p.list);
  if (name == "rm") return Command(p.rm);
  if (name == "train") return Command(p.train);
  const std::string evaluation = app.get_subcommands().front()->get_subcommands().front()->get_name();
  if (evaluation == "logits") return Command(p.eval_logits);
  if (evaluation == "needle") return Command(p.eval_needle);
  LATHE_TRY(cross_check(p.eval_perplexity));
  return Command(p.eval_perplexity);
}

}  // namespace

Result<Command> parse_command_line(int argc, const char* const* argv) {
  Parsed parsed;
  const std::unique_ptr<CLI::App> app = make_app(parsed);
  if (argc < 2)
    return Error{Errc::kInvalidArgument, "command line: expected a command, found none (lathe --help lists them)"};
  try {
    app->parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return Command(Answered{app->help()});
  } catch (const CLI::CallForVersion& version) {
    return Command(Answered{std::string(version.what()) + "\n"});
  } catch (const CLI::ParseError& error) {
    return usage(*app, error.what());
  }
  return chosen_command(*app, parsed);
}

std::vector<std::string> all_options() {
  Parsed parsed;
  const std::unique_ptr<CLI::App> app = make_app(parsed);
  std::vector<std::string> out;
  const auto visit = [&out](const auto& self, const CLI::App* sub, const std::string& path) -> void {
    for (const CLI::Option* o : sub->get_options()) {
      if (o->get_name() != "--help") out.push_back(path + " " + o->get_name(o->get_positional()));
    }
    for (const CLI::App* child : sub->get_subcommands([](const CLI::App*) { return true; })) {
      self(self, child, path + (path.empty() ? "" : " ") + child->get_name());
    }
  };
  visit(visit, app.get(), "");
  std::ranges::sort(out);
  return out;
}

}  // namespace lathe::cli
