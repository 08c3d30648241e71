#include "lathe/model/shapes_counts.h"

#include "lathe/base/check.h"

namespace lathe {

CheckedSum& CheckedSum::add(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (const int64_t factor : factors) overflow_ = __builtin_mul_overflow(product, factor, &product) || overflow_;
  overflow_ = __builtin_add_overflow(sum_, product, &sum_) || overflow_;
  return *this;
}

CheckedSum& CheckedSum::add(const CheckedSum& other, int64_t times) {
  overflow_ = overflow_ || other.overflow_;
  return add({other.sum_, times});
}

namespace {

// Weights and latent norms of one attention block, with the biases that every attention_bias checkpoint has.
CheckedSum attention_parameters(const ModelConfig& c) {
  const int64_t H = c.num_attention_heads;
  const int64_t d = c.hidden_size;
  CheckedSum sum;
  if (c.attention == AttentionKind::kGqa) {
    sum.add({2, d, H, c.head_dim}).add({2, d, c.num_key_value_heads, c.head_dim});  // q and o; k and v
    if (c.attention_bias) sum.add({H, c.head_dim}).add({2, c.num_key_value_heads, c.head_dim}).add({d});
    return sum;
  }
  const int64_t norm = c.qk_latent_layernorm ? 1 : 0;
  if (c.q_lora_rank > 0) {
    sum.add({d, c.q_lora_rank}).add({norm, c.q_lora_rank}).add({c.q_lora_rank, H, c.qk_head_dim()});
  } else {
    sum.add({d, H, c.qk_head_dim()});
  }
  sum.add({d, c.kv_lora_rank + c.qk_rope_head_dim}).add({norm, c.kv_lora_rank});
  sum.add({c.kv_lora_rank, H, c.qk_nope_head_dim + c.v_head_dim});
  sum.add({H, c.v_head_dim, d});
  if (c.attention_bias) {
    sum.add({c.q_lora_rank}).add({c.kv_lora_rank + c.qk_rope_head_dim}).add({d});
  }
  return sum;
}

// Router, correction bias, `experts` routed experts and the shared ones.
CheckedSum moe_parameters(const ModelConfig& c, int64_t experts) {
  CheckedSum sum;
  sum.add({c.n_routed_experts, c.hidden_size});
  if (c.topk_method == TopkMethod::kNoauxTc) sum.add({c.n_routed_experts});
  sum.add({3, c.hidden_size, c.moe_intermediate_size, experts + c.n_shared_experts});
  return sum;
}

}  // namespace

std::optional<ParameterCounts> checked_parameter_counts(const ModelConfig& config) {
  const CheckedSum attention = attention_parameters(config);
  CheckedSum dense;
  dense.add({3, config.hidden_size, config.intermediate_size});
  const CheckedSum moe_stored = moe_parameters(config, config.n_routed_experts);
  const CheckedSum moe_active = moe_parameters(config, config.num_experts_per_tok);

  CheckedSum stored;  // layers and final norm
  CheckedSum active;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const bool moe = config.is_moe_layer(layer);
    stored.add(attention).add({2, config.hidden_size}).add(moe ? moe_stored : dense);
    active.add(attention).add({2, config.hidden_size}).add(moe ? moe_active : dense);
  }
  stored.add({config.hidden_size});
  active.add({config.hidden_size});

  CheckedSum matrix;  // embedding or head
  matrix.add({config.vocab_size, config.hidden_size});
  const int64_t copies = config.tie_word_embeddings ? 1 : 2;
  const CheckedSum total = CheckedSum(stored).add(matrix, copies);
  const CheckedSum with_head = CheckedSum(active).add(matrix);
  const CheckedSum with_both = CheckedSum(active).add(matrix, copies);
  // Everything else is at most the total, except that K experts may be as many as all of them.
  if (!total.value() || !with_head.value() || !with_both.value() || !attention.value()) return std::nullopt;
  return ParameterCounts{.total = *total.value(),
                         .active = *with_head.value(),
                         .active_with_embedding = *with_both.value(),
                         .active_without_head = *active.value(),
                         .attention_per_layer = *attention.value()};
}

ParameterCounts count_parameters(const ModelConfig& config) {
  const std::optional<ParameterCounts> counts = checked_parameter_counts(config);
  LATHE_CHECK(counts.has_value(), "a config that parse_config would have refused");
  return *counts;
}

}  // namespace lathe
