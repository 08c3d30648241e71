// The command line: argv and LATHE_* variables -> one typed struct per subcommand. What an option means is said here
// once; a test lists all of them, so that adding one is a visible decision.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lathe/base/result.h"

namespace lathe::cli {

// -m, -t, -c, --cache-type, --compute, --backend of every command that opens weights.
struct EngineFlags {
  std::string model;             // folder, or ORG/NAME[@REV] in the hub cache; empty: the embedded default model
  int64_t threads = 0;           // 0: physical cores inside affinity and quota
  int64_t ctx_size = 0;          // 0: the model's, at most 32768
  std::string type;              // quantise the weights on load: a name of quant_type_names(); empty: as stored
  std::string cache_type;        // "f16", "bf16", "f32"; empty: by `compute`
  std::string compute = "auto";  // "auto", "f32"
  std::string backend = "auto";  // "auto", "cpu"
  int64_t draft_tokens = 0;      // of commands that answer: guessed per step
  std::string drafter = "text";  // "text", "mtp", "auto"; by whom
  bool json = false;             // one JSON document on stdout
  bool quiet = false;            // warnings and errors only
};

// Unset values come from the model's generation_config.json.
struct SamplingFlags {
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  double min_p = 0.0;
  std::optional<double> repetition_penalty;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  std::optional<double> dry_multiplier;
  std::optional<double> dry_base;
  std::optional<int64_t> dry_allowed_length;
  int64_t dry_penalty_last_n = -1;
  std::vector<std::string> dry_sequence_breakers;  // none: those of DryParams; "none": no breakers
  std::optional<uint64_t> seed;                    // unset: a random one
  std::vector<std::string> logit_bias;             // ID=BIAS each
};

// What the text of answers has to be; at most one is given.
struct FormatFlags {
  std::optional<std::string> json_schema;  // the schema, or the name of its file
  bool json_object = false;                // any JSON object
};

// lathe run.
struct RunOptions {
  EngineFlags engine;
  SamplingFlags sampling;
  FormatFlags format;
  std::optional<std::string> prompt;         // -p: answer this and end
  std::optional<std::string> system;         // system message of a chat
  std::optional<std::string> chat_template;  // file that overrides the model's template
  bool raw = false;                          // continue text even where the model has a chat template
  std::optional<int64_t> max_tokens;
  int64_t min_tokens = 0;
  std::vector<std::string> stop;
  bool ignore_eos = false;
};

// lathe generate: exactly one of prompt, prompt_file and token_ids is set.
struct GenerateOptions {
  EngineFlags engine;
  SamplingFlags sampling;
  FormatFlags format;
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_file;
  std::optional<std::string> token_ids;  // "1,2,3" or "@FILE.json"
  std::optional<int64_t> max_tokens;
  int64_t min_tokens = 0;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  std::optional<int64_t> logprobs;
};

// lathe serve.
struct ServeOptions {
  EngineFlags engine;
  std::string host = "127.0.0.1";
  int64_t port = 8080;               // 0: any free one
  std::optional<std::string> alias;  // what clients call the model
  std::optional<std::string> chat_template;
  std::optional<std::string> api_key_file;
  bool allow_unauthenticated = false;  // listen beyond this machine without keys
  std::vector<std::string> cors_origins;
  std::vector<std::string> allow_hosts;
  int64_t cache_tokens = 0;  // 0: the context size, at least 32768
  int64_t parallel = 64;     // answers computed at a time, at most batch_tokens
  int64_t batch_tokens = 512;
  bool no_prefix_cache = false;
  int64_t max_queue = 256;
  int64_t max_connections = 4096;
  int64_t max_body_mib = 8;
  int64_t drain_s = 30;
  std::string log_format = "text";  // "text", "json"
  std::string metrics_prefix = "lathe";
};

struct InspectOptions {
  std::string model;  // folder, config.json, or name; empty with cpu
  bool json = false;
  bool cpu = false;  // processor, kernel tables and limits instead of a model
  int64_t ctx_size = 0;
  std::string cache_type = "f16";
};

// lathe verify.
struct VerifyOptions {
  EngineFlags engine;
};

struct TokenizeOptions {
  std::string model;
  std::optional<std::string> prompt;  // else stdin
  bool decode = false;
  bool bos = false;
  bool plain = false;  // no added token recognised
  bool json = false;
  bool jsonl = false;
};

struct TemplateOptions {
  std::string model;
  std::string messages;  // file, or "-" for stdin
  std::optional<std::string> chat_template;
  bool ids = false;
  bool untrusted = false;  // with ids: no special tokens out of message text
  bool json = false;
};

// lathe eval logits.
struct EvalLogitsOptions {
  EngineFlags engine;
  std::string token_ids;
  std::string out;
  bool trace = false;
};

// lathe eval perplexity.
struct EvalPerplexityOptions {
  EngineFlags engine;
  std::string file;
  int64_t window = 0;       // --ctx; 0: the context size
  int64_t by_position = 0;  // bins of the window; 0: none
  std::string out;          // .svg or .html with the bins; empty: none
};

// lathe eval needle.
struct EvalNeedleOptions {
  EngineFlags engine;
  std::vector<int64_t> lengths;  // tokens; empty: the paper's, scaled to the context
  std::vector<int64_t> depths;   // percent; empty: the paper's
  int64_t samples = 1;           // prompts of each length and depth
  uint64_t seed = 0;
  std::string file;    // text to hide the key in; empty: built in
  std::string out;     // .svg or .html with heat maps; empty: none
  bool plain = false;  // no chat template
};

// lathe train.
struct TrainCommandOptions {
  std::string recipe;
  std::vector<std::string> set;  // key=value each
  int64_t threads = 0;           // 0: the recipe's
  bool resume = false;
  bool prepare = false;  // the data only
  bool report = false;   // the report only
  bool json = false;
  bool quiet = false;
};

// lathe pull.
struct PullOptions {
  std::string name;
  bool json = false;
  bool quiet = false;
};

// lathe list.
struct ListOptions {
  bool json = false;
};

// lathe rm.
struct RmOptions {
  std::string name;
  bool json = false;
};

// lathe bench: exactly one of engine.model and synthetic is set, unless --help.
struct BenchOptions {
  EngineFlags engine;
  std::string synthetic;                // config.json of a model to make up
  std::vector<int64_t> prompt = {512};  // prompt lengths; 0: none
  int64_t gen = 64;                     // generated tokens; 0: none
  std::vector<int64_t> depth = {0};     // cached positions before them
  int64_t repeat = 5;
  int64_t batch = 512;  // prompt tokens of one forward pass
  bool signature = false;
};

// lathe doctor.
struct DoctorOptions {
  bool json = false;
};

// lathe quantize.
struct QuantizeOptions {
  std::string source;       // folder, .gguf file, or name in the hub cache
  std::string destination;  // .gguf file
  std::string type;         // a name that quant_type_from_name() knows
  int64_t threads = 0;      // 0: physical cores inside affinity and quota
  bool allow_requantize = false;
  bool json = false;
  bool quiet = false;
};

// lathe convert.
struct ConvertOptions {
  std::string source;          // folder, .gguf file, or name in the hub cache
  std::string destination;     // .gguf file or new folder
  std::string to;              // "gguf", "hf"
  std::string dtype = "auto";  // "auto", "f32", "f16", "bf16"
  int64_t threads = 0;
  bool json = false;
  bool quiet = false;
};

// What was already answered while parsing: help or version text for stdout.
struct Answered {
  std::string text;
};

using Command = std::variant<Answered,
                             RunOptions,
                             GenerateOptions,
                             ServeOptions,
                             InspectOptions,
                             VerifyOptions,
                             TokenizeOptions,
                             TemplateOptions,
                             EvalLogitsOptions,
                             EvalPerplexityOptions,
                             EvalNeedleOptions,
                             PullOptions,
                             ListOptions,
                             RmOptions,
                             DoctorOptions,
                             BenchOptions,
                             QuantizeOptions,
                             ConvertOptions,
                             TrainCommandOptions>;

// kInvalidArgument with a one-line message for anything that does not parse: exit code 2.
Result<Command> parse_command_line(int argc, const char* const* argv);

// Every option of every subcommand as "command --option", sorted; what the options test lists.
std::vector<std::string> all_options();

// One function per subcommand, each in its own file. They return the exit code; errors have been printed.
int run_run(const RunOptions& options);
int run_generate(const GenerateOptions& options);
int run_serve(const ServeOptions& options);
int run_inspect(const InspectOptions& options);
int run_verify(const VerifyOptions& options);
int run_tokenize(const TokenizeOptions& options);
int run_template(const TemplateOptions& options);
int run_eval_logits(const EvalLogitsOptions& options);
int run_eval_perplexity(const EvalPerplexityOptions& options);
int run_train(const TrainCommandOptions& options);
int run_eval_needle(const EvalNeedleOptions& options);
int run_pull(const PullOptions& options);
int run_list(const ListOptions& options);
int run_rm(const RmOptions& options);
int run_doctor(const DoctorOptions& options);
int run_quantize(const QuantizeOptions& options);
int run_convert(const ConvertOptions& options);
int run_bench(const BenchOptions& options);

}  // namespace lathe::cli
