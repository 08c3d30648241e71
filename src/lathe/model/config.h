// ModelConfig: config.json, parsed into numbers and enums with ranges. Field names are the checkpoint's, so that one
// search finds JSON, code and docs; paper symbols are in the comments (docs/mla.md, docs/moe.md). Both the 4.x form of
// transformers (rope_theta, rope_scaling, torch_dtype) and the 5.x form (rope_parameters, dtype) are read (trap T10).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/moe/gate.h"

namespace lathe {

enum class ModelType { kDeepseekV2, kDeepseekV3, kKimiK2, kDeepseek, kLlama };
enum class AttentionKind { kMla, kGqa };  // kGqa covers MHA (n_kv = H), GQA and MQA (n_kv = 1)
enum class RopeLayout { kInterleaved, kHalfSplit };
enum class RopeScalingType { kNone, kYarn, kLinear };

// rope_scaling; spec section 2.4. Meaningful only when type != kNone.
struct RopeScaling {
  RopeScalingType type = RopeScalingType::kNone;
  double factor = 1.0;                            // s
  double original_max_position_embeddings = 0.0;  // L0
  double beta_fast = 32.0;                        // paper beta
  double beta_slow = 1.0;                         // paper alpha
  double mscale = 1.0;
  double mscale_all_dim = 0.0;

  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

struct ModelConfig {
  ModelType model_type = ModelType::kDeepseekV2;
  std::string architecture;  // architectures[0]
  AttentionKind attention = AttentionKind::kMla;

  int64_t vocab_size = 0;                // V
  int64_t hidden_size = 0;               // d
  int64_t intermediate_size = 0;         // d_f
  int64_t num_hidden_layers = 0;         // l
  int64_t num_nextn_predict_layers = 0;  // MTP layers stored after the main ones; skipped (trap T17)
  int64_t num_attention_heads = 0;       // n_h, H
  int64_t num_key_value_heads = 0;       // = H for MLA
  int64_t head_dim = 0;                  // kGqa only: d_h (trap T13: never derived from for MLA)

  int64_t q_lora_rank = 0;       // d'_c; 0: no query compression
  int64_t kv_lora_rank = 0;      // d_c
  int64_t qk_nope_head_dim = 0;  // d_h
  int64_t qk_rope_head_dim = 0;  // d_h^R
  int64_t v_head_dim = 0;
  bool qk_latent_layernorm = true;  // false: no q_a_layernorm / kv_a_layernorm (converted models)

  int64_t n_routed_experts = 0;       // N_r; 0: dense model
  int64_t n_shared_experts = 0;       // N_s
  int64_t num_experts_per_tok = 0;    // K_r
  int64_t moe_intermediate_size = 0;  // d_e
  int64_t first_k_dense_replace = 0;
  int64_t moe_layer_freq = 1;
  int64_t n_group = 1;     // D; 1 unless topk_method looks at groups
  int64_t topk_group = 1;  // M; likewise
  TopkMethod topk_method = TopkMethod::kGreedy;
  ScoringFunc scoring_func = ScoringFunc::kSoftmax;
  bool norm_topk_prob = false;
  double routed_scaling_factor = 1.0;
  double aux_loss_alpha = 0.001;  // training only
  bool seq_aux = true;            // training only

  double rms_norm_eps = 1e-6;  // block and final norms only (trap T3)
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  RopeLayout rope_layout = RopeLayout::kInterleaved;
  int64_t max_position_embeddings = 0;
  bool attention_bias = false;
  bool tie_word_embeddings = false;
  std::string dtype;  // torch_dtype / dtype, as written; informative
  bool fp8 = false;   // quantization_config.quant_method == "fp8"

  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;  // eos may be a list

  bool is_moe_layer(
      int64_t layer) const;  // n_routed_experts > 0 && i >= first_k_dense_replace && i % moe_layer_freq == 0

  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }

  // Cached values per token and layer: MLA d_c + d_h^R, else 2 n_kv d_h.
  int64_t cache_row_elements() const;

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

struct ParsedConfig {
  ModelConfig config;
  std::vector<std::string> warnings;  // one line per unknown field or doubtful value
};

// Every field checked for type and range, then cross-checked, before any tensor is looked at. Unknown values of known
// fields are errors that name the accepted set; unknown fields are warnings. Errors: kInvalidData for what is missing,
// of the wrong type, out of range or contradictory; kUnsupported for what is understood but not implemented. A config
// that passed describes at most kMaxParameters parameters and kMaxRoutedExpertsInAll routed experts, so no size derived
// from it overflows int64_t.
inline constexpr int64_t kMaxParameters = int64_t{1} << 50;
inline constexpr int64_t kMaxRoutedExpertsInAll = int64_t{1} << 18;
Result<ParsedConfig> parse_config(const Json& json);
// path: a folder with config.json, or the file itself.
Result<ParsedConfig> load_config(const std::filesystem::path& path);

// The spelling of config.json, e.g. "deepseek_v2".
std::string_view name_of(ModelType value);
// The spelling of config.json, e.g. "noaux_tc".
std::string_view name_of(TopkMethod value);
// The spelling of config.json, e.g. "sigmoid".
std::string_view name_of(ScoringFunc value);
// The spelling of config.json, e.g. "yarn"; "none" without scaling.
std::string_view name_of(RopeScalingType value);

}  // namespace lathe
