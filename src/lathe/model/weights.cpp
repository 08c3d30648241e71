#include "lathe/model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <unordered_set>

#include "lathe/base/scalar.h"
#include "lathe/formats/layer_name.h"
#include "lathe/model/config_rope.h"

namespace lathe {

namespace {

constexpr std::string_view kScaleSuffix = "_scale_inv";

bool is_matrix_dtype(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF8E4M3;
}

bool is_vector_dtype(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

float element_as_float(const StoredTensor& tensor, size_t i) {
  const std::byte* at = tensor.bytes.data() + i * static_cast<size_t>(dtype_size(tensor.dtype));
  if (tensor.dtype == DType::kF32) {
    float value = 0.0F;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof bits);
  return tensor.dtype == DType::kBF16 ? bf16_to_float(bits) : f16_to_float(bits);
}

}  // namespace

// Takes tensors by name, checks them, and remembers which were used.
class WeightBinder {
 public:
  WeightBinder(ModelWeights& weights, const Checkpoint& checkpoint) : weights_(weights), checkpoint_(checkpoint) {}

  // A matrix [rows, cols]: packed, or stored in a dtype that kernels multiply, with its FP8 scales where it has them.
  Result<WeightMatrix> matrix(const std::string& name, int64_t rows, int64_t cols) {
    if (const std::optional<WeightMatrix> packed = find_packed(name)) {
      LATHE_CHECK(packed->rows == rows && packed->cols == cols, name, " was planned with another shape");
      return *packed;
    }
    return plain_matrix(name, rows, cols, false);
  }

  // A matrix whose rows are only looked up, which may be in rows of a block format too.
  Result<WeightMatrix> table(const std::string& name, int64_t rows, int64_t cols) {
    return plain_matrix(name, rows, cols, true);
  }

  // A packed matrix that has no tensor of its own, or nothing.
  std::optional<WeightMatrix> find_packed(const std::string& name) {
    if (weights_.packed_ == nullptr) return std::nullopt;
    std::optional<WeightMatrix> packed = weights_.packed_->find(name);
    if (packed) {
      used_.insert(name);
      used_.insert(name + std::string(kScaleSuffix));
    }
    return packed;
  }

  // Slice e of a stacked tensor [count, rows, cols].
  Result<WeightMatrix> stacked(const std::string& name,
                               int64_t count,
                               int64_t all_rows,
                               int64_t cols,
                               int64_t e,
                               int64_t first_row,
                               int64_t rows) {
    LATHE_TRY(const StoredTensor* tensor, find(name, {count, all_rows, cols}));
    if (!is_vector_dtype(tensor->dtype)) return wrong_dtype(*tensor, "F32, F16 or BF16");
    const int64_t offset = (e * all_rows + first_row) * cols * dtype_size(tensor->dtype);
    return WeightMatrix{.dtype = tensor->dtype,
                        .rows = rows,
                        .cols = cols,
                        .data = tensor->bytes.data() + offset,
                        .stride = 0,
                        .scales = nullptr};
  }

  // A vector [n], copied to fp32.
  Result<const float*> vector(const std::string& name, int64_t n) {
    LATHE_TRY(const StoredTensor* tensor, find(name, {n}));
    if (!is_vector_dtype(tensor->dtype)) return wrong_dtype(*tensor, "F32, F16 or BF16");
    return copy(*tensor);
  }

  // The same when it exists; null when it does not.
  Result<const float*> optional_vector(const std::string& name, int64_t n) {
    if (checkpoint_.find(name) == nullptr) return static_cast<const float*>(nullptr);
    return vector(name, n);
  }

  bool has(const std::string& name) const { return checkpoint_.find(name) != nullptr; }

  // Counts a tensor as used that nothing needs.
  void ignore(const std::string& name) { used_.insert(name); }

  bool was_used(const std::string& name) const { return used_.contains(name); }

 private:
  Result<WeightMatrix> plain_matrix(const std::string& name, int64_t rows, int64_t cols, bool blocks) {
    LATHE_TRY(const StoredTensor* tensor, find(name, {rows, cols}));
    if (!is_matrix_dtype(tensor->dtype) && !(blocks && is_block_format(tensor->dtype))) {
      return wrong_dtype(*tensor, "F32, F16, BF16 or F8_E4M3");
    }
    WeightMatrix matrix{.dtype = tensor->dtype,
                        .rows = rows,
                        .cols = cols,
                        .data = tensor->bytes.data(),
                        .stride = 0,
                        .scales = nullptr};
    if (tensor->dtype == DType::kF8E4M3) {
      LATHE_TRY(matrix.scales, fp8_scales(name, rows, cols));
    }
    return matrix;
  }

  // The tensor of that name, which must exist with that shape and is used as it is stored.
  Result<const StoredTensor*> find(const std::string& name, const std::vector<int64_t>& shape) {
    const StoredTensor* tensor = checkpoint_.find(name);
    if (tensor == nullptr) {
      return Error{Errc::kInvalidData,
                   str(checkpoint_.folder(), ": ", name, ": expected ", shape, ", found no such tensor")};
    }
    if (tensor->shape != shape) {
      return Error{Errc::kInvalidData,
                   str(checkpoint_.file_of(*tensor), ": ", name, ": expected ", shape, ", found ", tensor->shape)};
    }
    if (used_.insert(name).second) weights_.stored_bytes_ += tensor->bytes.size();
    return tensor;
  }

  Error wrong_dtype(const StoredTensor& tensor, std::string_view expected) const {
    return Error{Errc::kInvalidData,
                 str(checkpoint_.file_of(tensor),
                     ": ",
                     tensor.name,
                     ": expected dtype ",
                     expected,
                     ", found ",
                     dtype_name(tensor.dtype))};
  }

  Result<const float*> copy(const StoredTensor& tensor) {
    const auto n = static_cast<size_t>(tensor.elements());
    std::unique_ptr<float[]> values(new (std::nothrow) float[std::max<size_t>(n, 1)]);
    if (values == nullptr) return Error{Errc::kResourceExhausted, str("no memory for ", tensor.name)};
    for (size_t i = 0; i < n; ++i) values[i] = element_as_float(tensor, i);
    weights_.owned_.push_back(std::move(values));
    return static_cast<const float*>(weights_.owned_.back().get());
  }

  // weight_scale_inv [ceil(rows/128), ceil(cols/128)], finite and positive; it multiplies (trap T15). Without one: 1.
  Result<const float*> fp8_scales(const std::string& name, int64_t rows, int64_t cols) {
    const int64_t block_rows = (rows + kFp8Block - 1) / kFp8Block;
    const int64_t block_cols = (cols + kFp8Block - 1) / kFp8Block;
    const std::string scale_name = name + std::string(kScaleSuffix);
    if (!has(scale_name)) {
      weights_.warnings_.push_back(str(name, ": F8_E4M3 without ", scale_name, ", taken with scale 1"));
      const auto n = static_cast<size_t>(block_rows * block_cols);
      std::unique_ptr<float[]> ones(new (std::nothrow) float[n]);
      if (ones == nullptr) return Error{Errc::kResourceExhausted, str("no memory for the scales of ", name)};
      std::fill_n(ones.get(), n, 1.0F);
      weights_.owned_.push_back(std::move(ones));
      return static_cast<const float*>(weights_.owned_.back().get());
    }
    LATHE_TRY(const StoredTensor* tensor, find(scale_name, {block_rows, block_cols}));
    if (!is_vector_dtype(tensor->dtype)) return wrong_dtype(*tensor, "F32, F16 or BF16");
    LATHE_TRY(const float* scales, copy(*tensor));
    for (int64_t i = 0; i < block_rows * block_cols; ++i) {
      // 0 is what a block of zeros may get.
      if (!std::isfinite(scales[i]) || scales[i] < 0.0F) {
        return Error{Errc::kInvalidData,
                     str(checkpoint_.file_of(*tensor),
                         ": ",
                         scale_name,
                         ": expected finite scales, not negative, found ",
                         scales[i],
                         " at block ",
                         i)};
      }
    }
    return scales;
  }

  ModelWeights& weights_;
  const Checkpoint& checkpoint_;
  std::unordered_set<std::string> used_;
};

namespace {

// Eq. 10-11: one matrix, or the two of newer GGUF files.
Status bind_kv_b(WeightBinder& binder, const ModelConfig& c, const std::string& p, MlaWeights& w) {
  const int64_t heads = c.num_attention_heads;
  if (binder.has(p + "kv_b_proj.weight") || !binder.has(p + "k_b_proj.weight")) {
    LATHE_TRY(w.kv_b_proj,
              binder.matrix(p + "kv_b_proj.weight", heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank));
    binder.ignore(p + "k_b_proj.weight");  // files that hold both forms say the same twice
    binder.ignore(p + "v_b_proj.weight");
  } else {
    LATHE_TRY(w.k_b_proj, binder.matrix(p + "k_b_proj.weight", heads * c.kv_lora_rank, c.qk_nope_head_dim));
    LATHE_TRY(w.v_b_proj, binder.matrix(p + "v_b_proj.weight", heads * c.v_head_dim, c.kv_lora_rank));
  }
  w.uk_rows = binder.find_packed(p + "kv_b_proj.uk").value_or(WeightMatrix{});
  return {};
}

Status bind_mla(WeightBinder& binder, const ModelConfig& c, const std::string& prefix, MlaWeights& w) {
  const std::string p = prefix + "self_attn.";
  const int64_t heads = c.num_attention_heads;
  const int64_t d = c.hidden_size;
  if (c.q_lora_rank > 0) {
    LATHE_TRY(w.q_a_proj, binder.matrix(p + "q_a_proj.weight", c.q_lora_rank, d));
    LATHE_TRY(w.q_b_proj, binder.matrix(p + "q_b_proj.weight", heads * c.qk_head_dim(), c.q_lora_rank));
    if (c.qk_latent_layernorm) {
      LATHE_TRY(w.q_a_layernorm, binder.vector(p + "q_a_layernorm.weight", c.q_lora_rank));
    }
  } else {
    LATHE_TRY(w.q_proj, binder.matrix(p + "q_proj.weight", heads * c.qk_head_dim(), d));
  }
  LATHE_TRY(w.kv_a_proj_with_mqa,
            binder.matrix(p + "kv_a_proj_with_mqa.weight", c.kv_lora_rank + c.qk_rope_head_dim, d));
  if (c.qk_latent_layernorm) {
    LATHE_TRY(w.kv_a_layernorm, binder.vector(p + "kv_a_layernorm.weight", c.kv_lora_rank));
  }
  LATHE_TRY(bind_kv_b(binder, c, p, w));
  LATHE_TRY(w.o_proj, binder.matrix(p + "o_proj.weight", d, heads * c.v_head_dim));
  if (!c.attention_bias) return {};
  // Demanded on q_a, kv_a and o; converted models may carry one on q or q_b too.
  if (c.q_lora_rank > 0) {
    LATHE_TRY(w.q_a_proj_bias, binder.vector(p + "q_a_proj.bias", c.q_lora_rank));
    LATHE_TRY(w.q_b_proj_bias, binder.optional_vector(p + "q_b_proj.bias", heads * c.qk_head_dim()));
  } else {
    LATHE_TRY(w.q_proj_bias, binder.optional_vector(p + "q_proj.bias", heads * c.qk_head_dim()));
  }
  LATHE_TRY(w.kv_a_proj_bias, binder.vector(p + "kv_a_proj_with_mqa.bias", c.kv_lora_rank + c.qk_rope_head_dim));
  LATHE_TRY(w.o_proj_bias, binder.vector(p + "o_proj.bias", d));
  return {};
}

Status bind_gqa(WeightBinder& binder, const ModelConfig& c, const std::string& prefix, GqaWeights& w) {
  const std::string p = prefix + "self_attn.";
  const int64_t q_rows = c.num_attention_heads * c.head_dim;
  const int64_t kv_rows = c.num_key_value_heads * c.head_dim;
  LATHE_TRY(w.q_proj, binder.matrix(p + "q_proj.weight", q_rows, c.hidden_size));
  LATHE_TRY(w.k_proj, binder.matrix(p + "k_proj.weight", kv_rows, c.hidden_size));
  LATHE_TRY(w.v_proj, binder.matrix(p + "v_proj.weight", kv_rows, c.hidden_size));
  LATHE_TRY(w.o_proj, binder.matrix(p + "o_proj.weight", c.hidden_size, q_rows));
  if (!c.attention_bias) return {};
  LATHE_TRY(w.q_proj_bias, binder.vector(p + "q_proj.bias", q_rows));
  LATHE_TRY(w.k_proj_bias, binder.vector(p + "k_proj.bias", kv_rows));
  LATHE_TRY(w.v_proj_bias, binder.vector(p + "v_proj.bias", kv_rows));
  LATHE_TRY(w.o_proj_bias, binder.vector(p + "o_proj.bias", c.hidden_size));
  return {};
}

Status bind_swiglu(WeightBinder& binder, const std::string& prefix, int64_t d, int64_t width, SwigluWeights& w) {
  LATHE_TRY(w.gate_proj, binder.matrix(prefix + "gate_proj.weight", width, d));
  LATHE_TRY(w.up_proj, binder.matrix(prefix + "up_proj.weight", width, d));
  LATHE_TRY(w.down_proj, binder.matrix(prefix + "down_proj.weight", d, width));
  return {};
}

// Experts stored one by one, or stacked as transformers 5.x keeps them in memory (gate rows first).
Status bind_experts(WeightBinder& binder,
                    const ModelConfig& c,
                    const std::string& p,
                    std::vector<SwigluWeights>& experts) {
  const int64_t n = c.n_routed_experts;
  const int64_t f = c.moe_intermediate_size;
  const int64_t d = c.hidden_size;
  const std::string fused = p + "experts.gate_up_proj";
  if (!binder.has(fused)) {
    // Growing with what is found, so that an absurd count fails at the first missing expert and not on memory.
    for (int64_t e = 0; e < n; ++e) {
      SwigluWeights expert;
      LATHE_TRY(bind_swiglu(binder, str(p, "experts.", e, "."), d, f, expert));
      experts.push_back(expert);
    }
    return {};
  }
  for (int64_t e = 0; e < n; ++e) {
    SwigluWeights expert;
    LATHE_TRY(expert.gate_proj, binder.stacked(fused, n, 2 * f, d, e, 0, f));
    LATHE_TRY(expert.up_proj, binder.stacked(fused, n, 2 * f, d, e, f, f));
    LATHE_TRY(expert.down_proj, binder.stacked(p + "experts.down_proj", n, d, f, e, 0, d));
    experts.push_back(expert);
  }
  return {};
}

Status bind_moe(WeightBinder& binder, const ModelConfig& c, const std::string& prefix, LayerWeights& layer) {
  const std::string p = prefix + "mlp.";
  LATHE_TRY(layer.moe.gate, binder.matrix(p + "gate.weight", c.n_routed_experts, c.hidden_size));
  if (c.topk_method == TopkMethod::kNoauxTc) {
    LATHE_TRY(const float* bias, binder.vector(p + "gate.e_score_correction_bias", c.n_routed_experts));
    layer.moe.e_score_correction_bias = {bias, static_cast<size_t>(c.n_routed_experts)};
    for (size_t e = 0; e < layer.moe.e_score_correction_bias.size(); ++e) {
      if (!std::isfinite(bias[e])) {
        return Error{Errc::kInvalidData,
                     str(p, "gate.e_score_correction_bias: expected finite values, found ", bias[e], " at expert ", e)};
      }
    }
  }
  LATHE_TRY(bind_experts(binder, c, p, layer.expert_storage));
  layer.moe.experts = layer.expert_storage;
  if (c.n_shared_experts > 0) {
    LATHE_TRY(bind_swiglu(
        binder, p + "shared_experts.", c.hidden_size, c.n_shared_experts * c.moe_intermediate_size, layer.moe.shared));
  }
  return {};
}

Status bind_layer(WeightBinder& binder, const ModelConfig& c, int64_t i, LayerWeights& layer) {
  const std::string prefix = layer_prefix(i);
  LATHE_TRY(layer.input_layernorm, binder.vector(prefix + "input_layernorm.weight", c.hidden_size));
  LATHE_TRY(layer.post_attention_layernorm, binder.vector(prefix + "post_attention_layernorm.weight", c.hidden_size));
  if (c.attention == AttentionKind::kMla) {
    LATHE_TRY(bind_mla(binder, c, prefix, layer.mla));
  } else {
    LATHE_TRY(bind_gqa(binder, c, prefix, layer.gqa));
  }
  layer.is_moe = c.is_moe_layer(i);
  if (layer.is_moe) return bind_moe(binder, c, prefix, layer);
  return bind_swiglu(binder, prefix + "mlp.", c.hidden_size, c.intermediate_size, layer.dense);
}

Status bind_mtp(WeightBinder& binder, const ModelConfig& c, MtpWeights& mtp) {
  const std::string prefix = layer_prefix(c.num_hidden_layers);
  LATHE_TRY(mtp.enorm, binder.vector(prefix + "enorm.weight", c.hidden_size));
  LATHE_TRY(mtp.hnorm, binder.vector(prefix + "hnorm.weight", c.hidden_size));
  LATHE_TRY(mtp.eh_proj, binder.matrix(prefix + "eh_proj.weight", c.hidden_size, 2 * c.hidden_size));
  LATHE_TRY(mtp.norm, binder.vector(prefix + "shared_head.norm.weight", c.hidden_size));
  return {};
}

}  // namespace

Result<std::unique_ptr<const ModelWeights>> ModelWeights::bind(const ModelConfig& config,
                                                               const std::shared_ptr<const Checkpoint>& checkpoint,
                                                               std::shared_ptr<const PackedWeights> packed,
                                                               MtpLayer mtp) {
  std::unique_ptr<ModelWeights> weights(new ModelWeights());
  weights->config_ = config;
  weights->checkpoint_ = checkpoint;
  weights->packed_ = std::move(packed);
  if (weights->packed_ != nullptr) weights->stored_bytes_ = weights->packed_->bytes();
  WeightBinder binder(*weights, *checkpoint);
  const ModelConfig& c = weights->config_;
  LATHE_TRY(weights->embed_tokens_, binder.table("model.embed_tokens.weight", c.vocab_size, c.hidden_size));
  LATHE_TRY(weights->norm_, binder.vector("model.norm.weight", c.hidden_size));
  if (c.tie_word_embeddings) {
    weights->lm_head_ = binder.find_packed("lm_head.weight").value_or(weights->embed_tokens_);
  } else {
    LATHE_TRY(weights->lm_head_, binder.matrix("lm_head.weight", c.vocab_size, c.hidden_size));
  }
  const bool with_mtp = mtp == MtpLayer::kUse;
  if (with_mtp) LATHE_TRY(bind_mtp(binder, c, weights->mtp_.emplace()));
  for (int64_t i = 0; i < c.num_hidden_layers + (with_mtp ? 1 : 0); ++i) {
    LayerWeights layer;
    LATHE_TRY(bind_layer(binder, c, i, layer));
    weights->layers_.push_back(std::move(layer));  // moving keeps the expert vector's storage
  }
  for (const StoredTensor* tensor : checkpoint->tensors()) {
    if (binder.was_used(tensor->name) || tensor->name.ends_with(".inv_freq")) continue;
    const int64_t layer = split_layer_name(tensor->name).layer;
    if (layer >= c.num_hidden_layers &&
        layer < c.num_hidden_layers + std::max<int64_t>(c.num_nextn_predict_layers, 1)) {
      ++weights->mtp_tensors_;
    } else if (!(c.tie_word_embeddings && tensor->name == "lm_head.weight")) {
      weights->unused_.push_back(tensor->name);
    }
  }
  return std::unique_ptr<const ModelWeights>(std::move(weights));
}

MlaShape mla_shape(const ModelConfig& c) {
  return {.hidden_size = c.hidden_size,
          .num_heads = c.num_attention_heads,
          .qk_nope_head_dim = c.qk_nope_head_dim,
          .qk_rope_head_dim = c.qk_rope_head_dim,
          .v_head_dim = c.v_head_dim,
          .kv_lora_rank = c.kv_lora_rank,
          .q_lora_rank = c.q_lora_rank,
          .softmax_scale = static_cast<float>(attention_scale(c)),
          .rope_interleaved = c.rope_layout == RopeLayout::kInterleaved};
}

GqaShape gqa_shape(const ModelConfig& c) {
  return {.hidden_size = c.hidden_size,
          .num_heads = c.num_attention_heads,
          .num_key_value_heads = c.num_key_value_heads,
          .head_dim = c.head_dim,
          .softmax_scale = static_cast<float>(attention_scale(c)),
          .rope_interleaved = c.rope_layout == RopeLayout::kInterleaved};
}

MoeShape moe_shape(const ModelConfig& c) {
  return {.hidden_size = c.hidden_size,
          .moe_intermediate_size = c.moe_intermediate_size,
          .shared_intermediate_size = c.n_shared_experts * c.moe_intermediate_size,
          .gate = {.n_routed_experts = c.n_routed_experts,
                   .num_experts_per_tok = c.num_experts_per_tok,
                   .n_group = c.n_group,
                   .topk_group = c.topk_group,
                   .topk_method = c.topk_method,
                   .scoring_func = c.scoring_func,
                   .norm_topk_prob = c.norm_topk_prob,
                   .scale_normalised = c.model_type == ModelType::kDeepseekV3 || c.model_type == ModelType::kKimiK2,
                   .routed_scaling_factor = static_cast<float>(c.routed_scaling_factor)}};
}

}  // namespace lathe
