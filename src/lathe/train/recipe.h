// A training recipe: a TOML file as one typed struct, every value checked before any work is done. Keys, defaults and
// ranges are listed in docs/training.md. An unknown key is an error that names the key and the accepted ones.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"

namespace lathe::train {

// [model]: fields of config.json under their own names, over those of a file or of the model that training starts from.
struct ModelRecipe {
  std::string from = {};  // folder of a model whose weights, configuration and tokenizer are the start; "": new weights
  std::vector<int64_t> expand_after = {};  // layers of `from` that a new one follows (block_expansion.h)
  std::string config = {};                 // a config.json whose fields are the start; "": none
  double initializer_std = 0.006;          // of N(0, s^2) for every matrix [P 3.1.2]
  Json fields = Json::object();            // everything else in the section
};

// [tokenizer]
struct TokenizerRecipe {
  std::string path = {};  // folder with tokenizer.json; "": that of model.from, or train one
  int64_t vocab_size = 4096;
  std::string pattern = "deepseek";  // "gpt2", "deepseek"
  int64_t train_bytes = 0;           // of text to learn from; 0: all
  int64_t min_frequency = 2;         // of a pair
};

// [data]
struct DataRecipe {
  std::vector<std::string> train = {};  // files: plain text, .jsonl, either with .zst
  std::vector<std::string> valid = {};
  std::vector<double> weights = {};  // of the files in train, by tokens; empty: one pass over each
  std::string cache = {};            // folder of token shards; "": OUTPUT/data
  std::string field = "text";        // of JSONL
  std::string separator = "<|endoftext|>";
  bool clean = true;              // line ends, control characters, runs of blank lines
  int64_t min_chars = 0;          // shorter documents are left out
  int64_t max_chars = 0;          // longer ones too; 0: no limit
  double max_symbol_ratio = 1.0;  // share of characters that are neither letters, digits, white space nor usual signs
  double max_repetition = 1.0;    // share of lines that are copies of earlier lines
  double max_digit_ratio = 1.0;   // share of characters that are digits
  double min_word_length = 0.0;   // characters, mean over a document
  double max_word_length = 0.0;   // likewise; 0: no limit
  double max_repeated_phrases = 1.0;  // share of five-word sequences that stood in the document before
  double min_stop_words = 0.0;        // share of words that are frequent English function words
  bool drop_exact_duplicates = true;
  bool drop_near_duplicates = false;   // those that MinHash finds similar to an earlier document
  double duplicate_similarity = 0.8;   // of shingle sets
  bool drop_known_paragraphs = false;  // take out paragraphs that stood in an earlier document
  int64_t boilerplate_documents = 0;   // take out lines that stand in so many documents of train; 0: none
  int64_t max_documents = 0;           // per file; 0: all
};

// [train]
struct TrainRecipe {
  int64_t max_steps = 1000;
  int64_t sequence_length = 256;
  int64_t batch_sequences = 16;       // rows of one step
  int64_t batch_sequences_start = 0;  // rows of the first step; 0: no ramp
  int64_t batch_ramp_tokens = 0;      // tokens over which rows grow linearly
  int64_t micro_batch_sequences = 0;  // rows of one pass forward and backward; 0: all
  bool cross_documents = false;       // true: attention sees the documents before it in its row
  int64_t log_every = 10;
  double mtp_weight = 0.0;         // of the loss on the token after the next [V3 2.2]; needs a layer for it
  std::string recompute = "auto";  // instead of keeping it: "nothing", "latents", "layers"; "auto": by memory
};

enum class OptimizerKind { kAdamW, kMuon };

// [optimizer]
struct OptimizerRecipe {
  OptimizerKind kind = OptimizerKind::kAdamW;  // Muon: of hidden matrices, and AdamW of everything else
  double momentum = 0.95;                      // Muon's
  int64_t newton_schulz_steps = 5;             // Muon's
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;  // of the global gradient norm; 0: none
};

enum class ScheduleKind { kConstant, kCosine, kStep };

// [schedule]: positions are shares of all tokens.
struct ScheduleRecipe {
  ScheduleKind kind = ScheduleKind::kCosine;
  double learning_rate = 1e-3;
  int64_t warmup_steps = 50;
  double final_ratio = 0.1;             // cosine: last rate over the highest
  double decay_start = 0.0;             // cosine: where it begins
  std::vector<double> steps{0.6, 0.9};  // step: where the rate is multiplied
  double step_factor = 0.316;
};

enum class BalanceScope { kSequence, kBatch };

// [balance]: the paper's 2.2.2 to 2.2.4 and V3's 2.1.2. All 0: routing is left alone.
struct BalanceRecipe {
  double expert = 0.001;       // alpha 1
  double device = 0.0;         // alpha 2
  double communication = 0.0;  // alpha 3
  double sequence = 0.0;       // V3's sequence-wise alpha
  double bias_speed = 0.0;     // V3's u
  BalanceScope scope = BalanceScope::kSequence;
  int64_t devices = 0;       // D: groups of experts; 0: n_group of the model
  int64_t device_limit = 0;  // M of the communication loss; 0: the model's topk_group
  bool drop_tokens = false;
  double capacity = 1.0;    // of a device, over its average load
  double keep_share = 0.1;  // sequences that never lose a token
};

enum class GuardAction { kOff, kStop, kSkip, kRollback };

// [guard]: what happens on a step whose loss is not finite or far above its running mean.
struct GuardRecipe {
  GuardAction action = GuardAction::kSkip;
  double margin = 1.0;       // nats above the running mean
  double deviations = 6.0;   // and this many deviations above it
  int64_t after_steps = 50;  // before that only values that are not finite count
  int64_t patience = 10;     // steps in a row, after which training ends with an error
};

// [checkpoint]
struct CheckpointRecipe {
  int64_t every = 200;        // steps
  int64_t keep = 2;           // older ones are removed; 0: all stay
  std::string dtype = "f32";  // of model.safetensors: "f32", "bf16" (full precision is then beside it)
};

// [eval]
struct EvalRecipe {
  int64_t every = 200;     // steps; 0: at the end only
  int64_t tokens = 65536;  // of data.valid; 0: all
};

// [[variant]]: a run of its own with some keys changed, into OUTPUT/NAME; all go into one report.
struct Variant {
  std::string name = {};
  Json set = Json::object();  // dotted keys
};

struct Recipe {
  std::string title = {};      // of the report
  std::string output = "run";  // folder
  uint64_t seed = 1;
  int64_t threads = 0;  // 0: physical cores inside affinity and quota
  ModelRecipe model;
  TokenizerRecipe tokenizer;
  DataRecipe data;
  TrainRecipe train;
  OptimizerRecipe optimizer;
  ScheduleRecipe schedule;
  BalanceRecipe balance;
  GuardRecipe guard;
  CheckpointRecipe checkpoint;
  EvalRecipe eval;
  std::vector<Variant> variants = {};
};

// Puts `value` at a dotted key ("data.train"), making the tables on its way. kInvalidArgument when something on the way
// is no table.
Status set_dotted(Json& document, std::string_view key, Json value);

// "key=value" of a command line. kInvalidArgument without an equals sign or key.
Status apply_override(Json& document, std::string_view assignment);

// Checks types, ranges and relations. kInvalidData; messages begin with the key.
Result<Recipe> parse_recipe(const Json& document);

// Reads a TOML file, applies the overrides in order, and parses. Errors of the file begin with its path. `document`,
// when given, receives the table that was parsed.
Result<Recipe> load_recipe(const std::filesystem::path& path,
                           std::span<const std::string> overrides,
                           Json* document = nullptr);

// Every value in effect, defaults included, as sections like those of the file.
Json recipe_json(const Recipe& recipe);

// Likewise of [data].
Json data_json(const DataRecipe& data);

// The keys of [model] that are read, for messages and the documentation's check.
std::span<const std::string_view> model_keys();

}  // namespace lathe::train
