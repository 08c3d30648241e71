#include "lathe/model/shapes.h"

#include "lathe/base/str.h"
#include "lathe/formats/layer_name.h"
#include "lathe/model/mtp.h"

namespace lathe {
namespace {

// Collects the tensors of one layer under its name prefix.
class TensorList {
 public:
  explicit TensorList(std::vector<ExpectedTensor>& out) : out_(out) {}

  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }

  void vector(std::string_view name, int64_t size) { out_.push_back({.name = str(prefix_, name), .shape = {size}}); }

  void matrix(std::string_view name, int64_t rows, int64_t columns, bool quantisable) {
    out_.push_back({.name = str(prefix_, name), .shape = {rows, columns}, .quantisable = quantisable});
  }

  // A projection: `name`.weight, stored with block scales in FP8 checkpoints.
  void linear(std::string_view name, int64_t rows, int64_t columns) {
    matrix(str(name, ".weight"), rows, columns, true);
  }

  enum class Bias { kNone, kRequired, kOptional };

  void linear(std::string_view name, int64_t rows, int64_t columns, Bias bias) {
    linear(name, rows, columns);
    if (bias == Bias::kNone) return;
    vector(str(name, ".bias"), rows);
    out_.back().optional = bias == Bias::kOptional;
  }

  // gate, up and down of one SwiGLU of the given width.
  void swiglu(std::string_view name, int64_t hidden, int64_t width) {
    linear(str(name, ".gate_proj"), width, hidden);
    linear(str(name, ".up_proj"), width, hidden);
    linear(str(name, ".down_proj"), hidden, width);
  }

 private:
  std::vector<ExpectedTensor>& out_;
  std::string prefix_;
};

using Bias = TensorList::Bias;

void add_mla(const ModelConfig& c, TensorList& list) {
  const int64_t H = c.num_attention_heads;
  const Bias bias = c.attention_bias ? Bias::kRequired : Bias::kNone;
  const Bias query_bias = c.attention_bias ? Bias::kOptional : Bias::kNone;
  if (c.q_lora_rank > 0) {
    list.linear("self_attn.q_a_proj", c.q_lora_rank, c.hidden_size, bias);
    if (c.qk_latent_layernorm) list.vector("self_attn.q_a_layernorm.weight", c.q_lora_rank);
    list.linear("self_attn.q_b_proj", H * c.qk_head_dim(), c.q_lora_rank, query_bias);
  } else {
    list.linear("self_attn.q_proj", H * c.qk_head_dim(), c.hidden_size, query_bias);
  }
  list.linear("self_attn.kv_a_proj_with_mqa", c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size, bias);
  if (c.qk_latent_layernorm) list.vector("self_attn.kv_a_layernorm.weight", c.kv_lora_rank);
  list.linear("self_attn.kv_b_proj", H * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank);
  list.linear("self_attn.o_proj", c.hidden_size, H * c.v_head_dim, bias);
}

void add_gqa(const ModelConfig& c, TensorList& list) {
  const Bias bias = c.attention_bias ? Bias::kRequired : Bias::kNone;
  const int64_t q_rows = c.num_attention_heads * c.head_dim;
  const int64_t kv_rows = c.num_key_value_heads * c.head_dim;
  list.linear("self_attn.q_proj", q_rows, c.hidden_size, bias);
  list.linear("self_attn.k_proj", kv_rows, c.hidden_size, bias);
  list.linear("self_attn.v_proj", kv_rows, c.hidden_size, bias);
  list.linear("self_attn.o_proj", c.hidden_size, q_rows, bias);
}

void add_moe(const ModelConfig& c, TensorList& list) {
  list.matrix("mlp.gate.weight", c.n_routed_experts, c.hidden_size, false);
  if (c.topk_method == TopkMethod::kNoauxTc) list.vector("mlp.gate.e_score_correction_bias", c.n_routed_experts);
  for (int64_t expert = 0; expert < c.n_routed_experts; ++expert) {
    list.swiglu(str("mlp.experts.", expert), c.hidden_size, c.moe_intermediate_size);
  }
  if (c.n_shared_experts > 0) {
    list.swiglu("mlp.shared_experts", c.hidden_size, c.n_shared_experts * c.moe_intermediate_size);
  }
}

void add_layer(const ModelConfig& config, int64_t layer, TensorList& list) {
  list.set_prefix(layer_prefix(layer));
  list.vector("input_layernorm.weight", config.hidden_size);
  if (config.attention == AttentionKind::kMla) {
    add_mla(config, list);
  } else {
    add_gqa(config, list);
  }
  list.vector("post_attention_layernorm.weight", config.hidden_size);
  if (config.is_moe_layer(layer)) {
    add_moe(config, list);
  } else {
    list.swiglu("mlp", config.hidden_size, config.intermediate_size);
  }
}

}  // namespace

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  std::vector<ExpectedTensor> out;
  TensorList list(out);
  list.matrix("model.embed_tokens.weight", config.vocab_size, config.hidden_size, false);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) add_layer(config, layer, list);
  list.set_prefix("");
  list.vector("model.norm.weight", config.hidden_size);
  if (!config.tie_word_embeddings) list.matrix("lm_head.weight", config.vocab_size, config.hidden_size, false);
  return out;
}

std::vector<ExpectedTensor> expected_mtp_tensors(const ModelConfig& config) {
  std::vector<ExpectedTensor> out;
  if (config.num_nextn_predict_layers == 0) return out;
  TensorList list(out);
  add_layer(config, config.num_hidden_layers, list);
  list.vector("enorm.weight", config.hidden_size);
  list.vector("hnorm.weight", config.hidden_size);
  list.matrix("eh_proj.weight", config.hidden_size, 2 * config.hidden_size, false);
  list.vector("shared_head.norm.weight", config.hidden_size);
  return out;
}

CacheComparison compare_caches(const ModelConfig& config) {
  const int64_t head_dim = config.attention == AttentionKind::kMla ? config.qk_nope_head_dim : config.head_dim;
  const int64_t mqa = 2 * head_dim * config.num_hidden_layers;
  CacheComparison out;
  out.elements_per_token = config.cache_row_elements() * config.num_hidden_layers;
  out.mha_elements_per_token = mqa * config.num_attention_heads;
  out.gqa8_elements_per_token = mqa * 8;
  out.mqa_elements_per_token = mqa;
  out.equivalent_gqa_groups = static_cast<double>(out.elements_per_token) / static_cast<double>(mqa);
  return out;
}

}  // namespace lathe
