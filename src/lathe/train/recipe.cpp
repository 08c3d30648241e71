#include "lathe/train/recipe.h"

#include <algorithm>
#include <array>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"
#include "lathe/train/recipe_section.h"
#include "lathe/train/toml.h"

namespace lathe::train {
namespace {

constexpr int64_t kMany = int64_t{1} << 40;
constexpr int64_t kMaxRows = int64_t{1} << 20;
constexpr int64_t kMaxLength = int64_t{1} << 22;

// Those of config.json that may be chosen; the others follow from them or from the tokenizer.
constexpr std::string_view kModelKeys[] = {
    "attention_bias",
    "first_k_dense_replace",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "kv_lora_rank",
    "max_position_embeddings",
    "model_type",
    "moe_intermediate_size",
    "moe_layer_freq",
    "n_group",
    "n_routed_experts",
    "n_shared_experts",
    "norm_topk_prob",
    "num_attention_heads",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_nextn_predict_layers",
    "q_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "rms_norm_eps",
    "rope_scaling",
    "rope_theta",
    "routed_scaling_factor",
    "scoring_func",
    "tie_word_embeddings",
    "topk_group",
    "topk_method",
    "v_head_dim",
};

constexpr NamedValue<OptimizerKind> kOptimizerKinds[] = {{"adamw", OptimizerKind::kAdamW},
                                                         {"muon", OptimizerKind::kMuon}};
constexpr NamedValue<ScheduleKind> kScheduleKinds[] = {
    {"constant", ScheduleKind::kConstant}, {"cosine", ScheduleKind::kCosine}, {"step", ScheduleKind::kStep}};
constexpr NamedValue<BalanceScope> kScopes[] = {{"sequence", BalanceScope::kSequence}, {"batch", BalanceScope::kBatch}};
constexpr NamedValue<GuardAction> kActions[] = {{"off", GuardAction::kOff},
                                                {"stop", GuardAction::kStop},
                                                {"skip", GuardAction::kSkip},
                                                {"rollback", GuardAction::kRollback}};
constexpr std::string_view kRecompute[] = {"auto", "nothing", "latents", "layers"};
constexpr std::string_view kPatterns[] = {"gpt2", "deepseek"};
constexpr std::string_view kCheckpointTypes[] = {"f32", "bf16"};

template <class Enum, size_t N>
std::string name_in(const NamedValue<Enum> (&choices)[N], Enum value) {
  for (const NamedValue<Enum>& choice : choices) {
    if (choice.value == value) return std::string(choice.name);
  }
  return "unknown";
}

Status read_model(const Json* json, ModelRecipe& out) {
  Section section(json, "model");
  section.text("from", out.from);
  section.wholes("expand_after", {0, kMaxRows}, out.expand_after);
  section.text("config", out.config);
  section.real("initializer_std", {0.0, 1.0, true}, out.initializer_std);
  for (const std::string_view key : kModelKeys) {
    // A null is worth keeping apart from absence in config.json only, and TOML has none.
    const Json* value = section.raw(key);
    if (value != nullptr) out.fields.set(key, *value);
  }
  if (!out.from.empty() && !out.config.empty()) section.fail("config", "expected it or model.from, found both");
  if (out.from.empty() && !out.expand_after.empty()) {
    section.fail("expand_after", "expected it together with model.from, found it alone");
  }
  return section.finish();
}

Status read_tokenizer(const Json* json, TokenizerRecipe& out) {
  Section section(json, "tokenizer");
  section.text("path", out.path);
  section.whole("vocab_size", {258, int64_t{1} << 20}, out.vocab_size);
  section.choice("pattern", kPatterns, out.pattern);
  section.whole("train_bytes", {0, kMany}, out.train_bytes);
  section.whole("min_frequency", {1, kMany}, out.min_frequency);
  return section.finish();
}

Status read_data(const Json* json, DataRecipe& out) {
  Section section(json, "data");
  section.texts("train", out.train);
  section.texts("valid", out.valid);
  section.reals("weights", {0.0, 1e9, true}, out.weights);
  section.text("cache", out.cache);
  section.text("field", out.field);
  section.text("separator", out.separator);
  section.boolean("clean", out.clean);
  section.whole("min_chars", {0, kMany}, out.min_chars);
  section.whole("max_chars", {0, kMany}, out.max_chars);
  section.real("max_symbol_ratio", {0.0, 1.0}, out.max_symbol_ratio);
  section.real("max_repetition", {0.0, 1.0}, out.max_repetition);
  section.real("max_digit_ratio", {0.0, 1.0}, out.max_digit_ratio);
  section.real("min_word_length", {0.0, 1e6}, out.min_word_length);
  section.real("max_word_length", {0.0, 1e6}, out.max_word_length);
  section.real("max_repeated_phrases", {0.0, 1.0}, out.max_repeated_phrases);
  section.real("min_stop_words", {0.0, 1.0}, out.min_stop_words);
  section.boolean("drop_exact_duplicates", out.drop_exact_duplicates);
  section.boolean("drop_near_duplicates", out.drop_near_duplicates);
  section.real("duplicate_similarity", {0.3, 1.0}, out.duplicate_similarity);
  section.boolean("drop_known_paragraphs", out.drop_known_paragraphs);
  section.whole("boilerplate_documents", {0, kMany}, out.boilerplate_documents);
  section.whole("max_documents", {0, kMany}, out.max_documents);
  if (out.boilerplate_documents == 1) {
    section.fail("boilerplate_documents", "expected 0 or at least 2, found 1, which would take out every line");
  }
  // Files are often given on the command line; that there are none is said where they are read.
  if (!out.weights.empty() && !out.train.empty() && out.weights.size() != out.train.size()) {
    section.fail("weights",
                 str("expected one number for each of the ",
                     out.train.size(),
                     " files in data.train, found ",
                     out.weights.size()));
  }
  return section.finish();
}

Status read_train(const Json* json, TrainRecipe& out) {
  Section section(json, "train");
  section.whole("max_steps", {1, int64_t{1} << 31}, out.max_steps);
  section.whole("sequence_length", {2, kMaxLength}, out.sequence_length);
  section.whole("batch_sequences", {1, kMaxRows}, out.batch_sequences);
  section.whole("batch_sequences_start", {0, kMaxRows}, out.batch_sequences_start);
  section.whole("batch_ramp_tokens", {0, int64_t{1} << 50}, out.batch_ramp_tokens);
  section.whole("micro_batch_sequences", {0, kMaxRows}, out.micro_batch_sequences);
  section.boolean("cross_documents", out.cross_documents);
  section.whole("log_every", {1, kMany}, out.log_every);
  section.real("mtp_weight", {0.0, 10.0}, out.mtp_weight);
  section.choice("recompute", kRecompute, out.recompute);
  if (out.batch_sequences_start > out.batch_sequences) {
    section.fail("batch_sequences_start",
                 str("expected at most batch_sequences ", out.batch_sequences, ", found ", out.batch_sequences_start));
  }
  if ((out.batch_sequences_start > 0) != (out.batch_ramp_tokens > 0)) {
    section.fail("batch_ramp_tokens", "expected it together with batch_sequences_start, found one of them alone");
  }
  return section.finish();
}

Status read_optimizer(const Json* json, OptimizerRecipe& out) {
  Section section(json, "optimizer");
  section.named("kind", kOptimizerKinds, out.kind);
  section.real("momentum", {0.0, 0.9999}, out.momentum);
  section.whole("newton_schulz_steps", {1, 100}, out.newton_schulz_steps);
  section.real("beta1", {0.0, 0.9999}, out.beta1);
  section.real("beta2", {0.0, 0.999999}, out.beta2);
  section.real("epsilon", {0.0, 1.0, true}, out.epsilon);
  section.real("weight_decay", {0.0, 10.0}, out.weight_decay);
  section.real("clip", {0.0, 1e6}, out.clip);
  return section.finish();
}

Status read_schedule(const Json* json, ScheduleRecipe& out) {
  Section section(json, "schedule");
  section.named("kind", kScheduleKinds, out.kind);
  section.real("learning_rate", {0.0, 10.0, true}, out.learning_rate);
  section.whole("warmup_steps", {0, int64_t{1} << 31}, out.warmup_steps);
  section.real("final_ratio", {0.0, 1.0}, out.final_ratio);
  section.real("decay_start", {0.0, 1.0}, out.decay_start);
  section.reals("steps", {0.0, 1.0}, out.steps);
  section.real("step_factor", {0.0, 1.0, true}, out.step_factor);
  if (!std::ranges::is_sorted(out.steps)) section.fail("steps", "expected rising shares, found others");
  return section.finish();
}

Status read_balance(const Json* json, BalanceRecipe& out) {
  Section section(json, "balance");
  section.real("expert", {0.0, 1e3}, out.expert);
  section.real("device", {0.0, 1e3}, out.device);
  section.real("communication", {0.0, 1e3}, out.communication);
  section.real("sequence", {0.0, 1e3}, out.sequence);
  section.real("bias_speed", {0.0, 1.0}, out.bias_speed);
  section.named("scope", kScopes, out.scope);
  section.whole("devices", {0, 4096}, out.devices);
  section.whole("device_limit", {0, 4096}, out.device_limit);
  section.boolean("drop_tokens", out.drop_tokens);
  section.real("capacity", {0.0, 1e3, true}, out.capacity);
  section.real("keep_share", {0.0, 1.0}, out.keep_share);
  if (out.devices > 0 && out.device_limit > out.devices) {
    section.fail("device_limit", str("expected at most devices ", out.devices, ", found ", out.device_limit));
  }
  return section.finish();
}

Status read_guard(const Json* json, GuardRecipe& out) {
  Section section(json, "guard");
  section.named("action", kActions, out.action);
  section.real("margin", {0.0, 1e6}, out.margin);
  section.real("deviations", {0.0, 1e6}, out.deviations);
  section.whole("after_steps", {0, kMany}, out.after_steps);
  section.whole("patience", {1, kMany}, out.patience);
  return section.finish();
}

Status read_rest(const Json& document, Recipe& out) {
  Section checkpoint(document.find("checkpoint"), "checkpoint");
  checkpoint.whole("every", {1, kMany}, out.checkpoint.every);
  checkpoint.whole("keep", {0, 1000000}, out.checkpoint.keep);
  checkpoint.choice("dtype", kCheckpointTypes, out.checkpoint.dtype);
  LATHE_TRY(checkpoint.finish());
  Section eval(document.find("eval"), "eval");
  eval.whole("every", {0, kMany}, out.eval.every);
  eval.whole("tokens", {0, kMany}, out.eval.tokens);
  return eval.finish();
}

Status read_variants(const Json* json, std::vector<Variant>& out) {
  if (json == nullptr) return {};
  if (!json->is_array()) {
    return Error{Errc::kInvalidData, str("variant: expected tables [[variant]], found ", found_text(*json))};
  }
  for (size_t i = 0; i < json->as_array().size(); ++i) {
    Variant variant;
    Section section(&json->as_array()[i], str("variant[", i, "]"));
    section.text("name", variant.name);
    const Json* set = section.raw("set");
    if (set != nullptr && !set->is_object()) {
      section.fail("set", str("expected a table of dotted keys, found ", found_text(*set)));
    } else if (set != nullptr) {
      variant.set = *set;
    }
    LATHE_TRY(section.finish());
    // It names a folder.
    const auto fits = [](char c) { return is_ascii_alnum(c) || c == '-' || c == '_'; };
    if (variant.name.empty() || !std::ranges::all_of(variant.name, fits)) {
      section.fail("name", str("expected letters, digits, - and _, found ", quoted(variant.name)));
    }
    for (const Variant& other : out) {
      if (other.name == variant.name) section.fail("name", str(quoted(variant.name), " comes twice"));
    }
    LATHE_TRY(section.finish());
    out.push_back(std::move(variant));
  }
  return {};
}

Json model_json(const ModelRecipe& model) {
  Json out = Json::object();
  out.set("from", model.from);
  if (!model.expand_after.empty()) out.set("expand_after", Json::list(model.expand_after));
  out.set("config", model.config);
  out.set("initializer_std", model.initializer_std);
  for (const auto& [key, value] : model.fields.as_object()) out.set(key, value);
  return out;
}

Json train_json(const TrainRecipe& train) {
  Json out = Json::object();
  out.set("max_steps", train.max_steps);
  out.set("sequence_length", train.sequence_length);
  out.set("batch_sequences", train.batch_sequences);
  out.set("batch_sequences_start", train.batch_sequences_start);
  out.set("batch_ramp_tokens", train.batch_ramp_tokens);
  out.set("micro_batch_sequences", train.micro_batch_sequences);
  out.set("cross_documents", train.cross_documents);
  out.set("log_every", train.log_every);
  out.set("mtp_weight", train.mtp_weight);
  out.set("recompute", train.recompute);
  return out;
}

Json optimizer_json(const OptimizerRecipe& optimizer) {
  Json out = Json::object();
  out.set("kind", name_in(kOptimizerKinds, optimizer.kind));
  out.set("momentum", optimizer.momentum);
  out.set("newton_schulz_steps", optimizer.newton_schulz_steps);
  out.set("beta1", optimizer.beta1);
  out.set("beta2", optimizer.beta2);
  out.set("epsilon", optimizer.epsilon);
  out.set("weight_decay", optimizer.weight_decay);
  out.set("clip", optimizer.clip);
  return out;
}

Json schedule_json(const ScheduleRecipe& schedule) {
  Json out = Json::object();
  out.set("kind", name_in(kScheduleKinds, schedule.kind));
  out.set("learning_rate", schedule.learning_rate);
  out.set("warmup_steps", schedule.warmup_steps);
  out.set("final_ratio", schedule.final_ratio);
  out.set("decay_start", schedule.decay_start);
  out.set("steps", Json::list(schedule.steps));
  out.set("step_factor", schedule.step_factor);
  return out;
}

Json balance_json(const BalanceRecipe& balance) {
  Json out = Json::object();
  out.set("expert", balance.expert);
  out.set("device", balance.device);
  out.set("communication", balance.communication);
  out.set("sequence", balance.sequence);
  out.set("bias_speed", balance.bias_speed);
  out.set("scope", name_in(kScopes, balance.scope));
  out.set("devices", balance.devices);
  out.set("device_limit", balance.device_limit);
  out.set("drop_tokens", balance.drop_tokens);
  out.set("capacity", balance.capacity);
  out.set("keep_share", balance.keep_share);
  return out;
}

}  // namespace

Json data_json(const DataRecipe& data) {
  Json out = Json::object();
  out.set("train", Json::list(data.train));
  out.set("valid", Json::list(data.valid));
  out.set("weights", Json::list(data.weights));
  out.set("cache", data.cache);
  out.set("field", data.field);
  out.set("separator", data.separator);
  out.set("clean", data.clean);
  out.set("min_chars", data.min_chars);
  out.set("max_chars", data.max_chars);
  out.set("max_symbol_ratio", data.max_symbol_ratio);
  out.set("max_repetition", data.max_repetition);
  out.set("max_digit_ratio", data.max_digit_ratio);
  out.set("min_word_length", data.min_word_length);
  out.set("max_word_length", data.max_word_length);
  out.set("max_repeated_phrases", data.max_repeated_phrases);
  out.set("min_stop_words", data.min_stop_words);
  out.set("drop_exact_duplicates", data.drop_exact_duplicates);
  out.set("drop_near_duplicates", data.drop_near_duplicates);
  out.set("duplicate_similarity", data.duplicate_similarity);
  out.set("drop_known_paragraphs", data.drop_known_paragraphs);
  out.set("boilerplate_documents", data.boilerplate_documents);
  out.set("max_documents", data.max_documents);
  return out;
}

std::span<const std::string_view> model_keys() {
  return kModelKeys;
}

Status set_dotted(Json& document, std::string_view key, Json value) {
  Json* table = &document;
  std::string_view rest = key;
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view name = rest.substr(0, dot);
    if (name.empty()) {
      return Error{Errc::kInvalidArgument, str("key: expected names between dots, found ", quoted(key))};
    }
    if (!table->is_object()) {
      return Error{Errc::kInvalidArgument,
                   str(key, ": expected a table before ", name, ", found ", table->kind_name())};
    }
    if (dot == std::string_view::npos) {
      table->set(name, std::move(value));
      return {};
    }
    if (table->find(name) == nullptr) table->set(name, Json::object());
    const auto member = std::ranges::find(table->as_object(), name, &Json::Member::first);
    table = &member->second;
    rest = rest.substr(dot + 1);
  }
}

Status apply_override(Json& document, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return Error{Errc::kInvalidArgument, str("--set: expected key=value, found ", quoted(assignment))};
  }
  const Status status =
      set_dotted(document, assignment.substr(0, equals), parse_toml_value(assignment.substr(equals + 1)));
  return status ? status : Status(status.error().at("--set"));
}

Result<Recipe> parse_recipe(const Json& document) {
  Recipe out;
  Section top(&document, "");
  int64_t seed = 1;
  top.text("title", out.title);
  top.text("output", out.output);
  top.whole("seed", {0, int64_t{1} << 53}, seed);
  top.whole("threads", {0, 1024}, out.threads);
  const Json* model = top.raw("model");
  const Json* tokenizer = top.raw("tokenizer");
  const Json* data = top.raw("data");
  const Json* train = top.raw("train");
  const Json* optimizer = top.raw("optimizer");
  const Json* schedule = top.raw("schedule");
  const Json* balance = top.raw("balance");
  const Json* guard = top.raw("guard");
  (void)top.raw("checkpoint");
  (void)top.raw("eval");
  const Json* variants = top.raw("variant");
  if (out.output.empty()) top.fail("output", "expected a folder, found none");
  LATHE_TRY(top.finish());
  out.seed = static_cast<uint64_t>(seed);
  LATHE_TRY(read_model(model, out.model));
  LATHE_TRY(read_tokenizer(tokenizer, out.tokenizer));
  LATHE_TRY(read_data(data, out.data));
  LATHE_TRY(read_train(train, out.train));
  LATHE_TRY(read_optimizer(optimizer, out.optimizer));
  LATHE_TRY(read_schedule(schedule, out.schedule));
  LATHE_TRY(read_balance(balance, out.balance));
  LATHE_TRY(read_guard(guard, out.guard));
  LATHE_TRY(read_rest(document, out));
  LATHE_TRY(read_variants(variants, out.variants));
  return out;
}

Result<Recipe> load_recipe(const std::filesystem::path& path, std::span<const std::string> overrides, Json* document) {
  LATHE_TRY(Json json, read_toml(path));
  for (const std::string& assignment : overrides) LATHE_TRY(apply_override(json, assignment));
  Result<Recipe> recipe = parse_recipe(json);
  if (!recipe) return recipe.error().at(path.string());
  if (document != nullptr) *document = std::move(json);
  return recipe;
}

Json recipe_json(const Recipe& recipe) {
  Json out = Json::object();
  out.set("title", recipe.title);
  out.set("output", recipe.output);
  out.set("seed", recipe.seed);
  out.set("threads", recipe.threads);
  out.set("model", model_json(recipe.model));
  Json tokenizer = Json::object();
  tokenizer.set("path", recipe.tokenizer.path);
  tokenizer.set("vocab_size", recipe.tokenizer.vocab_size);
  tokenizer.set("pattern", recipe.tokenizer.pattern);
  tokenizer.set("train_bytes", recipe.tokenizer.train_bytes);
  tokenizer.set("min_frequency", recipe.tokenizer.min_frequency);
  out.set("tokenizer", std::move(tokenizer));
  out.set("data", data_json(recipe.data));
  out.set("train", train_json(recipe.train));
  out.set("optimizer", optimizer_json(recipe.optimizer));
  out.set("schedule", schedule_json(recipe.schedule));
  out.set("balance", balance_json(recipe.balance));
  Json guard = Json::object();
  guard.set("action", name_in(kActions, recipe.guard.action));
  guard.set("margin", recipe.guard.margin);
  guard.set("deviations", recipe.guard.deviations);
  guard.set("after_steps", recipe.guard.after_steps);
  guard.set("patience", recipe.guard.patience);
  out.set("guard", std::move(guard));
  Json checkpoint = Json::object();
  checkpoint.set("every", recipe.checkpoint.every);
  checkpoint.set("keep", recipe.checkpoint.keep);
  checkpoint.set("dtype", recipe.checkpoint.dtype);
  out.set("checkpoint", std::move(checkpoint));
  Json eval = Json::object();
  eval.set("every", recipe.eval.every);
  eval.set("tokens", recipe.eval.tokens);
  out.set("eval", std::move(eval));
  return out;
}

}  // namespace lathe::train
