// Writes a HuggingFace checkpoint folder as a GGUF file in the forms that converters have used, so that reading can be
// checked against the folder. Not the product's own conversion: this one knows the forms that the product never writes.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <deque>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lathe/base/str.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/formats/gguf_writer.h"
#include "lathe/model/config.h"

namespace lathe::testing {

enum class LatentForm { kJoint, kSplit, kSplitFlat, kBoth };

struct GgufForm {
  LatentForm latent = LatentForm::kJoint;
  bool fused_gate_up = false;
  bool mtp = false;                      // the multi-token prediction layer too
  std::vector<std::string> tokens = {};  // a vocabulary; empty: no tokenizer
};

// A file under construction: metadata and tensors that tests may still change.
struct GgufDraft {
  std::vector<std::pair<std::string, GgufValue>> metadata;
  std::vector<GgufTensorInfo> tensors;
  std::deque<std::vector<std::byte>> bytes;  // of the tensors

  void set(const std::string& key, GgufValue value) {
    for (auto& [name, old] : metadata) {
      if (name == key) {
        old = std::move(value);
        return;
      }
    }
    metadata.emplace_back(key, std::move(value));
  }

  void erase(const std::string& key) {
    std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
  }

  void add(std::string name, DType dtype, std::vector<int64_t> shape, std::vector<std::byte> data) {
    tensors.push_back({.name = std::move(name), .dtype = dtype, .shape = std::move(shape)});
    bytes.push_back(std::move(data));
  }

  void write(const std::filesystem::path& path) const { write_part(path, 0, tensors.size(), metadata); }

  // Tensors [first, last) with other metadata: one file of several.
  void write_part(const std::filesystem::path& path,
                  size_t first,
                  size_t last,
                  const std::vector<std::pair<std::string, GgufValue>>& keys) const {
    std::vector<std::span<const std::byte>> spans;
    for (size_t i = first; i < last; ++i) spans.emplace_back(bytes[i]);
    const Status written = write_gguf(path, keys, std::span(tensors).subspan(first, last - first), spans);
    ASSERT_TRUE(written) << written.error().message;
  }
};

class GgufConverter {
 public:
  GgufConverter(const std::filesystem::path& folder, GgufForm form) : form_(std::move(form)) {
    Result<ParsedConfig> parsed = load_config(folder);
    EXPECT_TRUE(parsed.has_value()) << (parsed ? "" : parsed.error().message);
    config_ = parsed->config;
    Result<Checkpoint> opened = Checkpoint::open(folder);
    EXPECT_TRUE(opened.has_value()) << (opened ? "" : opened.error().message);
    checkpoint_.emplace(std::move(*opened));
  }

  GgufDraft draft() {
    add_metadata();
    take("model.embed_tokens.weight", "token_embd.weight");
    take("model.norm.weight", "output_norm.weight");
    if (!config_.tie_word_embeddings) take("lm_head.weight", "output.weight");
    for (int64_t i = 0; i < config_.num_hidden_layers; ++i) add_layer(i);
    if (form_.mtp) add_mtp(config_.num_hidden_layers);
    return std::move(draft_);
  }

 private:
  bool mla() const { return config_.attention == AttentionKind::kMla; }

  bool split() const { return form_.latent != LatentForm::kJoint; }

  static uint32_t u32(int64_t value) { return static_cast<uint32_t>(value); }

  std::string architecture() const {
    if (mla()) return "deepseek2";
    return config_.model_type == ModelType::kLlama ? "llama" : "deepseek";
  }

  void add_metadata() {
    const ModelConfig& c = config_;
    const std::string a = architecture() + ".";
    draft_.set("general.architecture", architecture());
    draft_.set("general.file_type", uint32_t{c.dtype == "float32" ? 0U : 32U});
    draft_.set(a + "block_count", u32(c.num_hidden_layers + (form_.mtp ? 1 : 0)));
    if (form_.mtp) draft_.set(a + "nextn_predict_layers", uint32_t{1});
    draft_.set(a + "context_length", u32(c.max_position_embeddings));
    draft_.set(a + "embedding_length", u32(c.hidden_size));
    draft_.set(a + "feed_forward_length", u32(c.intermediate_size));
    draft_.set(a + "attention.head_count", u32(c.num_attention_heads));
    draft_.set(a + "attention.layer_norm_rms_epsilon", static_cast<float>(c.rms_norm_eps));
    draft_.set(a + "rope.freq_base", static_cast<float>(c.rope_theta));
    draft_.set(a + "vocab_size", u32(c.vocab_size));
    if (mla()) {
      add_latent_keys(a);
    } else {
      draft_.set(a + "attention.head_count_kv", u32(c.num_key_value_heads));
      draft_.set(a + "rope.dimension_count", u32(c.head_dim));
    }
    if (c.n_routed_experts > 0) add_expert_keys(a);
    add_tokenizer();
  }

  void add_latent_keys(const std::string& a) {
    const ModelConfig& c = config_;
    const int64_t latent = c.kv_lora_rank + c.qk_rope_head_dim;
    draft_.set(a + "attention.head_count_kv", u32(split() ? 1 : c.num_attention_heads));
    if (c.q_lora_rank > 0) draft_.set(a + "attention.q_lora_rank", u32(c.q_lora_rank));
    draft_.set(a + "attention.kv_lora_rank", u32(c.kv_lora_rank));
    draft_.set(a + "attention.key_length", u32(split() ? latent : c.qk_head_dim()));
    draft_.set(a + "attention.value_length", u32(split() ? c.kv_lora_rank : c.v_head_dim));
    if (split()) {
      draft_.set(a + "attention.key_length_mla", u32(c.qk_head_dim()));
      draft_.set(a + "attention.value_length_mla", u32(c.v_head_dim));
    }
    draft_.set(a + "rope.dimension_count", u32(c.qk_rope_head_dim));
    if (c.rope_scaling.type == RopeScalingType::kYarn) {
      draft_.set(a + "rope.scaling.type", std::string("yarn"));
      draft_.set(a + "rope.scaling.factor", static_cast<float>(c.rope_scaling.factor));
      draft_.set(a + "rope.scaling.original_context_length",
                 u32(static_cast<int64_t>(c.rope_scaling.original_max_position_embeddings)));
      draft_.set(a + "rope.scaling.yarn_log_multiplier", static_cast<float>(0.1 * c.rope_scaling.mscale_all_dim));
    }
  }

  void add_expert_keys(const std::string& a) {
    const ModelConfig& c = config_;
    draft_.set(a + "leading_dense_block_count", u32(c.first_k_dense_replace));
    draft_.set(a + "expert_count", u32(c.n_routed_experts));
    draft_.set(a + "expert_used_count", u32(c.num_experts_per_tok));
    draft_.set(a + "expert_shared_count", u32(c.n_shared_experts));
    draft_.set(a + "expert_feed_forward_length", u32(c.moe_intermediate_size));
    draft_.set(a + "expert_weights_scale", static_cast<float>(c.routed_scaling_factor));
    if (!mla()) return;
    draft_.set(a + "expert_weights_norm", c.norm_topk_prob);
    if (c.scoring_func == ScoringFunc::kSigmoid) draft_.set(a + "expert_gating_func", uint32_t{2});
    if (c.n_group > 1) {
      draft_.set(a + "expert_group_count", u32(c.n_group));
      draft_.set(a + "expert_group_used_count", u32(c.topk_group));
    }
  }

  void add_tokenizer() {
    if (config_.bos_token_id) draft_.set("tokenizer.ggml.bos_token_id", u32(*config_.bos_token_id));
    if (!config_.eos_token_ids.empty()) draft_.set("tokenizer.ggml.eos_token_id", u32(config_.eos_token_ids[0]));
    if (form_.tokens.empty()) return;
    draft_.set("tokenizer.ggml.model", std::string("gpt2"));
    draft_.set("tokenizer.ggml.pre", std::string("deepseek-v3"));
    draft_.set("tokenizer.ggml.tokens", form_.tokens);
    draft_.set("tokenizer.ggml.merges", std::vector<std::string>{});
  }

  const StoredTensor& source(const std::string& name) const {
    const StoredTensor* tensor = checkpoint_->find(name);
    if (tensor == nullptr) throw std::runtime_error("the folder has no " + name);
    return *tensor;
  }

  void take(const std::string& from, std::string to) {
    const StoredTensor& tensor = source(from);
    draft_.add(std::move(to), tensor.dtype, tensor.shape, {tensor.bytes.begin(), tensor.bytes.end()});
  }

  // Rows of every head in the order of adjacent pairs: row 2 i of the result is row i, row 2 i + 1 is row i + d/2.
  void take_paired(const std::string& from, std::string to, int64_t heads) {
    const StoredTensor& tensor = source(from);
    const auto row = tensor.bytes.size() / static_cast<size_t>(tensor.shape[0]);
    const int64_t dim = tensor.shape[0] / heads;
    std::vector<std::byte> out;
    for (int64_t r = 0; r < tensor.shape[0]; ++r) {
      const int64_t in_head = r % dim;
      const int64_t old = r - in_head + in_head / 2 + (in_head % 2) * (dim / 2);
      const auto bytes = tensor.bytes.subspan(static_cast<size_t>(old) * row, row);
      out.insert(out.end(), bytes.begin(), bytes.end());
    }
    draft_.add(std::move(to), tensor.dtype, tensor.shape, std::move(out));
  }

  void add_layer(int64_t i) {
    const std::string hf = str("model.layers.", i, ".");
    const std::string b = str("blk.", i, ".");
    take(hf + "input_layernorm.weight", b + "attn_norm.weight");
    take(hf + "post_attention_layernorm.weight", b + "ffn_norm.weight");
    const std::string from = hf + "self_attn.";
    take(from + "o_proj.weight", b + "attn_output.weight");
    if (mla()) {
      add_latent(from, b);
    } else {
      take_paired(from + "q_proj.weight", b + "attn_q.weight", config_.num_attention_heads);
      take_paired(from + "k_proj.weight", b + "attn_k.weight", config_.num_key_value_heads);
      take(from + "v_proj.weight", b + "attn_v.weight");
    }
    if (config_.is_moe_layer(i)) return add_moe(hf + "mlp.", b);
    for (const char* what : {"gate", "up", "down"}) {
      take(str(hf, "mlp.", what, "_proj.weight"), str(b, "ffn_", what, ".weight"));
    }
  }

  void add_mtp(int64_t i) {
    add_layer(i);
    const std::string hf = str("model.layers.", i, ".");
    const std::string b = str("blk.", i, ".nextn.");
    for (const char* name : {"eh_proj.weight", "enorm.weight", "hnorm.weight", "embed_tokens.weight"}) {
      take(hf + name, b + name);
    }
    take(hf + "shared_head.norm.weight", b + "shared_head_norm.weight");
    take(hf + "shared_head.head.weight", b + "shared_head_head.weight");
  }

  void add_latent(const std::string& from, const std::string& b) {
    if (config_.q_lora_rank > 0) {
      take(from + "q_a_proj.weight", b + "attn_q_a.weight");
      take(from + "q_a_layernorm.weight", b + "attn_q_a_norm.weight");
      take(from + "q_b_proj.weight", b + "attn_q_b.weight");
    } else {
      take(from + "q_proj.weight", b + "attn_q.weight");
    }
    take(from + "kv_a_proj_with_mqa.weight", b + "attn_kv_a_mqa.weight");
    take(from + "kv_a_layernorm.weight", b + "attn_kv_a_norm.weight");
    if (form_.latent == LatentForm::kJoint || form_.latent == LatentForm::kBoth) {
      take(from + "kv_b_proj.weight", b + "attn_kv_b.weight");
    }
    if (split()) add_split(source(from + "kv_b_proj.weight"), b);
  }

  void add_split(const StoredTensor& joint, const std::string& b) {
    const int64_t heads = config_.num_attention_heads;
    const int64_t nope = config_.qk_nope_head_dim;
    const int64_t value = config_.v_head_dim;
    const int64_t rank = config_.kv_lora_rank;
    const auto size = static_cast<size_t>(dtype_size(joint.dtype));
    std::vector<std::byte> k;
    std::vector<std::byte> v;
    const auto append = [&](std::vector<std::byte>& out, int64_t row, int64_t column) {
      const auto element = joint.bytes.subspan(static_cast<size_t>(row * rank + column) * size, size);
      out.insert(out.end(), element.begin(), element.end());
    };
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t first = h * (nope + value);
      for (int64_t c = 0; c < rank; ++c) {
        for (int64_t n = 0; n < nope; ++n) append(k, first + n, c);
      }
      for (int64_t n = 0; n < value; ++n) {
        for (int64_t c = 0; c < rank; ++c) append(v, first + nope + n, c);
      }
    }
    const bool flat = form_.latent == LatentForm::kSplitFlat;
    using Shape = std::vector<int64_t>;
    draft_.add(b + "attn_k_b.weight", joint.dtype, flat ? Shape{heads * rank, nope} : Shape{heads, rank, nope}, k);
    draft_.add(b + "attn_v_b.weight", joint.dtype, flat ? Shape{heads * value, rank} : Shape{heads, value, rank}, v);
  }

  void add_moe(const std::string& from, const std::string& b) {
    take(from + "gate.weight", b + "ffn_gate_inp.weight");
    if (config_.topk_method == TopkMethod::kNoauxTc) {
      take(from + "gate.e_score_correction_bias", b + "exp_probs_b.bias");
    }
    const int64_t d = config_.hidden_size;
    const int64_t f = config_.moe_intermediate_size;
    if (form_.fused_gate_up) {
      stack(from, {"gate", "up"}, b + "ffn_gate_up_exps.weight", {2 * f, d});
    } else {
      stack(from, {"gate"}, b + "ffn_gate_exps.weight", {f, d});
      stack(from, {"up"}, b + "ffn_up_exps.weight", {f, d});
    }
    stack(from, {"down"}, b + "ffn_down_exps.weight", {d, f});
    for (const char* what : {"gate", "up", "down"}) {
      take(str(from, "shared_experts.", what, "_proj.weight"), str(b, "ffn_", what, "_shexp.weight"));
    }
  }

  void stack(const std::string& from,
             const std::vector<std::string>& parts,
             std::string to,
             std::array<int64_t, 2> shape) {
    std::vector<std::byte> out;
    DType dtype = DType::kF32;
    for (int64_t e = 0; e < config_.n_routed_experts; ++e) {
      for (const std::string& part : parts) {
        const StoredTensor& tensor = source(str(from, "experts.", e, ".", part, "_proj.weight"));
        dtype = tensor.dtype;
        out.insert(out.end(), tensor.bytes.begin(), tensor.bytes.end());
      }
    }
    draft_.add(std::move(to), dtype, {config_.n_routed_experts, shape[0], shape[1]}, std::move(out));
  }

  GgufForm form_;
  ModelConfig config_;
  std::optional<Checkpoint> checkpoint_;
  GgufDraft draft_;
};

// The checkpoint folder as a GGUF file in one of the forms.
inline GgufDraft gguf_of(const std::filesystem::path& folder, GgufForm form = {}) {
  return GgufConverter(folder, std::move(form)).draft();
}

}  // namespace lathe::testing
