#include "lathe/train/model_setup.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

#include "lathe/base/str.h"

namespace lathe::train {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 24;

// From the most memory to the least.
constexpr std::pair<std::string_view, Recompute> kRecomputeNames[] = {
    {"nothing", Recompute::kNothing}, {"latents", Recompute::kLatents}, {"layers", Recompute::kLayers}};

std::string_view architecture_of(std::string_view model_type) {
  if (model_type == "deepseek_v3") return "DeepseekV3ForCausalLM";
  if (model_type == "deepseek") return "DeepseekForCausalLM";
  if (model_type == "llama") return "LlamaForCausalLM";
  return "DeepseekV2ForCausalLM";
}

// Sets a field that nobody has chosen.
void set_default(Json& config, std::string_view key, Json value) {
  if (config.find(key) == nullptr) config.set(key, std::move(value));
}

int64_t whole_or(const Json& config, std::string_view key, int64_t fallback) {
  const Json* value = config.find(key);
  return value != nullptr && value->is_int() ? value->as_int() : fallback;
}

// Fields of other architectures: a recipe whose variants differ in kind states the sizes of all.
void drop_foreign(Json& config, std::string_view model_type) {
  constexpr std::string_view kLatent[] = {
      "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"};
  constexpr std::string_view kGroups[] = {
      "n_group", "topk_group", "topk_method", "scoring_func", "routed_scaling_factor"};
  constexpr std::string_view kExperts[] = {"first_k_dense_replace",
                                           "moe_intermediate_size",
                                           "moe_layer_freq",
                                           "n_routed_experts",
                                           "n_shared_experts",
                                           "norm_topk_prob",
                                           "num_experts_per_tok",
                                           "num_nextn_predict_layers"};
  const auto drop = [&config](std::span<const std::string_view> keys) {
    std::erase_if(config.as_object(),
                  [&](const Json::Member& member) { return std::ranges::find(keys, member.first) != keys.end(); });
  };
  const bool plain = model_type == "llama" || model_type == "deepseek";
  if (plain) {
    drop(kLatent);
    drop(kGroups);
  }
  if (model_type == "llama") drop(kExperts);
}

// What the architecture needs beside the sizes a recipe states; everything is written out, since absent fields mean
// different things to different programs.
void set_defaults(Json& config, const Recipe& recipe) {
  set_default(config, "model_type", "deepseek_v2");
  const Json* type = config.find("model_type");
  const std::string model_type = type->is_string() ? type->as_string() : "";
  config.set("architectures", Json(Json::Array{Json(architecture_of(model_type))}));
  drop_foreign(config, model_type);
  set_default(config, "hidden_act", "silu");
  set_default(config, "rms_norm_eps", 1e-6);
  set_default(config, "rope_theta", 10000.0);
  set_default(config, "rope_scaling", nullptr);
  set_default(config, "attention_bias", false);
  set_default(config, "attention_dropout", 0.0);
  set_default(config, "tie_word_embeddings", false);
  set_default(config, "use_cache", true);
  set_default(config, "max_position_embeddings", recipe.train.sequence_length);
  set_default(config, "num_key_value_heads", whole_or(config, "num_attention_heads", 1));
  config.set("initializer_range", recipe.model.initializer_std);
  if (model_type == "deepseek_v2" || model_type == "deepseek_v3") set_default(config, "q_lora_rank", nullptr);
  if (model_type == "llama") return;
  const int64_t experts = whole_or(config, "n_routed_experts", 0);
  if (experts == 0) {
    config.set("n_routed_experts", 0);
    // Layers below it are dense, for programs that know no model without experts.
    config.set("first_k_dense_replace", whole_or(config, "num_hidden_layers", 0));
    return;
  }
  set_default(config, "intermediate_size", whole_or(config, "moe_intermediate_size", 1));
  set_default(config, "n_shared_experts", 0);
  set_default(config, "first_k_dense_replace", 0);
  set_default(config, "moe_layer_freq", 1);
  set_default(config, "norm_topk_prob", false);
  set_default(config, "scoring_func", model_type == "deepseek_v3" ? "sigmoid" : "softmax");
  config.set("aux_loss_alpha", recipe.balance.expert);
  config.set("seq_aux", recipe.balance.scope == BalanceScope::kSequence);
  if (model_type == "deepseek") return;
  set_default(config, "n_group", 1);
  set_default(config, "topk_group", 1);
  set_default(config, "routed_scaling_factor", 1.0);
  if (model_type == "deepseek_v3") {
    // A layer that is not trained is not written either.
    if (recipe.train.mtp_weight == 0.0) config.set("num_nextn_predict_layers", 0);
    set_default(config, "num_nextn_predict_layers", 1);
    return set_default(config, "topk_method", "noaux_tc");
  }
  set_default(config, "topk_method", whole_or(config, "n_group", 1) > 1 ? "group_limited_greedy" : "greedy");
}

// Counts the new layers of model.expand_after in. A new layer is of the kind of the one it follows.
Result<BlockExpansion> expand(Json& config, const std::vector<int64_t>& after) {
  if (after.empty()) return BlockExpansion();
  const int64_t layers = whole_or(config, "num_hidden_layers", 0);
  if (whole_or(config, "moe_layer_freq", 1) != 1) {
    return Error{Errc::kUnsupported, "model.expand_after: expected a model with moe_layer_freq 1, found another"};
  }
  Result<BlockExpansion> expansion = BlockExpansion::create(after, layers);
  if (!expansion) return expansion.error().at("model.expand_after");
  config.set("num_hidden_layers", layers + expansion->added_to(layers));
  const int64_t dense = whole_or(config, "first_k_dense_replace", 0);
  if (dense > 0) config.set("first_k_dense_replace", dense + expansion->added_to(dense));
  return expansion;
}

}  // namespace

Result<ModelSetup> set_up_model(const Recipe& recipe, const Tokenizer* tokenizer) {
  Json config = Json::object();
  const std::string base = recipe.model.from.empty()
                               ? recipe.model.config
                               : (std::filesystem::path(recipe.model.from) / "config.json").string();
  if (!base.empty()) {
    LATHE_TRY(config, read_json(base, {.max_bytes = kMaxConfigBytes}));
    if (!config.is_object()) return Error{Errc::kInvalidData, str(base, ": expected an object")};
  }
  for (const auto& [key, value] : recipe.model.fields.as_object()) config.set(key, value);
  LATHE_TRY(BlockExpansion expansion, expand(config, recipe.model.expand_after));
  set_defaults(config, recipe);
  const int64_t vocab = tokenizer != nullptr ? tokenizer->vocabulary_size() : recipe.tokenizer.vocab_size;
  // The embedding of a model that goes on may have rows beyond its tokenizer.
  if (recipe.model.from.empty() || whole_or(config, "vocab_size", 0) < vocab) config.set("vocab_size", vocab);
  if (tokenizer != nullptr) {
    config.set("bos_token_id", tokenizer->bos_id() ? Json(int64_t{*tokenizer->bos_id()}) : Json());
    config.set("eos_token_id", tokenizer->eos_id() ? Json(int64_t{*tokenizer->eos_id()}) : Json());
  }
  config.set("torch_dtype", recipe.checkpoint.dtype == "bf16" ? "bfloat16" : "float32");
  if (config.find("dtype") != nullptr) config.set("dtype", *config.find("torch_dtype"));
  Result<ParsedConfig> parsed = parse_config(config);
  if (!parsed) return parsed.error().at("model");
  if (recipe.train.mtp_weight > 0.0 && parsed->config.num_nextn_predict_layers != 1) {
    return Error{Errc::kInvalidArgument,
                 str("train.mtp_weight: expected a deepseek_v3 model with num_nextn_predict_layers 1, found ",
                     config.find("model_type")->as_string(),
                     " with ",
                     parsed->config.num_nextn_predict_layers)};
  }
  if (parsed->config.max_position_embeddings < recipe.train.sequence_length) {
    return Error{Errc::kInvalidArgument,
                 str("train.sequence_length: expected at most model.max_position_embeddings ",
                     parsed->config.max_position_embeddings,
                     ", found ",
                     recipe.train.sequence_length)};
  }
  return ModelSetup{.json = std::move(config), .config = std::move(parsed->config), .expansion = std::move(expansion)};
}

int64_t micro_batch_rows(const TrainRecipe& recipe) {
  return recipe.micro_batch_sequences > 0 ? std::min(recipe.micro_batch_sequences, recipe.batch_sequences)
                                          : recipe.batch_sequences;
}

std::string_view name_of(Recompute level) {
  for (const auto& [name, value] : kRecomputeNames) {
    if (value == level) return name;
  }
  return "unknown";
}

Result<TrainOptions> train_options(const Recipe& recipe, const ModelConfig& config, int threads, uint64_t room) {
  const BalanceRecipe& balance = recipe.balance;
  TrainOptions out{.max_tokens = micro_batch_rows(recipe.train) * recipe.train.sequence_length,
                   .expert_balance_alpha = balance.expert,
                   .device_balance_alpha = balance.device,
                   .communication_balance_alpha = balance.communication,
                   .sequence_balance_alpha = balance.sequence,
                   .device_groups = balance.devices,
                   .device_limit = balance.device_limit,
                   .drop_tokens = balance.drop_tokens,
                   .capacity_factor = balance.capacity,
                   .protected_fraction = balance.keep_share,
                   .bias_update_speed = balance.bias_speed,
                   .mtp_lambda = recipe.train.mtp_weight,
                   .init_std = recipe.model.initializer_std,
                   .recompute = Recompute::kNothing};
  for (const auto& [name, level] : kRecomputeNames) {
    out.recompute = level;
    if (recipe.train.recompute == name) break;
    if (recipe.train.recompute != "auto") continue;
    LATHE_TRY(const TrainMemory plan, plan_train_memory(config, out, threads));
    if (static_cast<uint64_t>(plan.total_with_moments()) <= room / 2) break;
  }
  return out;
}

}  // namespace lathe::train
