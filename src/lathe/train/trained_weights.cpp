#include "lathe/train/trained_weights.h"

#include "lathe/base/check.h"
#include "lathe/base/str.h"
#include "lathe/formats/layer_name.h"

namespace lathe {
namespace {

class Binder {
 public:
  explicit Binder(ParameterSet& parameters) : parameters_(parameters) {}

  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }

  // Empty when the model has no such tensor.
  Trained find(std::string_view name) const {
    const int64_t index = parameters_.find(str(prefix_, name));
    if (index < 0) return {};
    return {parameters_.values(index).data(), parameters_.gradients(index).data()};
  }

  Trained get(std::string_view name) const {
    const Trained found = find(name);
    LATHE_CHECK(!found.empty(), prefix_, name);
    return found;
  }

  SwigluParameters swiglu(std::string_view name) const {
    return {.gate_up = get(str(name, ".gate_proj.weight")), .down = get(str(name, ".down_proj.weight"))};
  }

 private:
  ParameterSet& parameters_;
  std::string prefix_;
};

AttentionParameters bind_attention(const Binder& binder) {
  const auto find = [&](std::string_view name) { return binder.find(str("self_attn.", name)); };
  return {.q_a_proj = find("q_a_proj.weight"),
          .q_a_proj_bias = find("q_a_proj.bias"),
          .q_a_layernorm = find("q_a_layernorm.weight"),
          .q_b_proj = find("q_b_proj.weight"),
          .q_b_proj_bias = find("q_b_proj.bias"),
          .kv_a_proj = find("kv_a_proj_with_mqa.weight"),
          .kv_a_proj_bias = find("kv_a_proj_with_mqa.bias"),
          .kv_a_layernorm = find("kv_a_layernorm.weight"),
          .kv_b_proj = find("kv_b_proj.weight"),
          .q_proj = find("q_proj.weight"),
          .q_proj_bias = find("q_proj.bias"),
          .o_proj = find("o_proj.weight"),
          .o_proj_bias = find("o_proj.bias"),
          .k_proj = find("k_proj.weight"),
          .k_proj_bias = find("k_proj.bias"),
          .v_proj = find("v_proj.weight"),
          .v_proj_bias = find("v_proj.bias")};
}

MoeParameters bind_moe(const Binder& binder, const ModelConfig& c) {
  MoeParameters moe;
  moe.router = binder.get("mlp.gate.weight");
  const Trained bias = binder.find("mlp.gate.e_score_correction_bias");
  if (!bias.empty()) moe.bias = {bias.value, static_cast<size_t>(c.n_routed_experts)};
  for (int64_t e = 0; e < c.n_routed_experts; ++e) {
    const SwigluParameters expert = binder.swiglu(str("mlp.experts.", e));
    moe.gate_up.push_back(expert.gate_up);
    moe.down.push_back(expert.down);
  }
  if (c.n_shared_experts > 0) moe.shared = binder.swiglu("mlp.shared_experts");
  return moe;
}

}  // namespace

TrainedWeights bind_trained_weights(const ModelConfig& config, ParameterSet& parameters) {
  Binder binder(parameters);
  TrainedWeights weights;
  weights.embed_tokens = binder.get("model.embed_tokens.weight");
  weights.norm = binder.get("model.norm.weight");
  weights.lm_head = config.tie_word_embeddings ? weights.embed_tokens : binder.get("lm_head.weight");
  const std::string mtp = layer_prefix(config.num_hidden_layers);
  const bool with_mtp = parameters.find(str(mtp, "eh_proj.weight")) >= 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers + (with_mtp ? 1 : 0); ++layer) {
    binder.set_prefix(layer_prefix(layer));
    TrainedLayer& out = weights.layers.emplace_back();
    out.input_layernorm = binder.get("input_layernorm.weight");
    out.post_attention_layernorm = binder.get("post_attention_layernorm.weight");
    out.attention = bind_attention(binder);
    if (config.is_moe_layer(layer)) {
      out.moe = bind_moe(binder, config);
    } else {
      out.dense = binder.swiglu("mlp");
    }
  }
  if (!with_mtp) return weights;
  binder.set_prefix(mtp);
  weights.mtp = {.enorm = binder.get("enorm.weight"),
                 .hnorm = binder.get("hnorm.weight"),
                 .eh_proj = binder.get("eh_proj.weight"),
                 .norm = binder.get("shared_head.norm.weight")};
  return weights;
}

}  // namespace lathe
