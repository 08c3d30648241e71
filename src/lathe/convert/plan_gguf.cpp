// Which tensors a GGUF file gets. Names on the right are HuggingFace's; docs/formats.md has the table.
#include <array>

#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/convert/plan.h"
#include "lathe/convert/tensor_finder.h"
#include "lathe/formats/layer_name.h"

namespace lathe::convert {

namespace {

// Rows of one head of q or k from HuggingFace's order (first halves, then second halves of the rotated pairs) to
// adjacent pairs: the first `plain` rows stay, the `rotated` ones after them change.
void append_pairs(std::vector<int64_t>& order, int64_t plain, int64_t rotated) {
  const auto start = static_cast<int64_t>(order.size());
  for (int64_t i = 0; i < plain; ++i) order.push_back(start + i);
  for (int64_t i = 0; i < rotated / 2; ++i) {
    order.push_back(start + plain + i);
    order.push_back(start + plain + rotated / 2 + i);
  }
}

class GgufPlanner {
 public:
  GgufPlanner(const Checkpoint& checkpoint, const ModelConfig& config, std::optional<QuantType> type)
      : finder_(checkpoint, config), c_(config), type_(type) {}

  Result<std::vector<OutputTensor>> plan() {
    LATHE_TRY(check_supported());
    LATHE_TRY(matrix("token_embd.weight", "model.embed_tokens.weight", c_.vocab_size, c_.hidden_size));
    for (int64_t i = 0; i < c_.num_hidden_layers; ++i) {
      to_ = str("blk.", i, ".");
      from_ = layer_prefix(i);
      LATHE_TRY(vector("attn_norm.weight", "input_layernorm.weight", c_.hidden_size));
      LATHE_TRY(c_.attention == AttentionKind::kMla ? latent_attention(i) : plain_attention());
      LATHE_TRY(vector("ffn_norm.weight", "post_attention_layernorm.weight", c_.hidden_size));
      LATHE_TRY(c_.is_moe_layer(i) ? mixture(i) : dense("", "mlp.", c_.intermediate_size));
    }
    to_.clear();
    from_.clear();
    LATHE_TRY(vector("output_norm.weight", "model.norm.weight", c_.hidden_size));
    if (!c_.tie_word_embeddings) {
      LATHE_TRY(matrix("output.weight", "lm_head.weight", c_.vocab_size, c_.hidden_size));
    }
    return std::move(out_);
  }

 private:
  Status check_supported() const {
    const auto refuse = [](std::string_view what) {
      return Error{Errc::kUnsupported, str(what, " cannot be written to a GGUF file")};
    };
    if (c_.attention_bias) return refuse("config.json: attention_bias true");
    if (c_.attention == AttentionKind::kMla && !c_.qk_latent_layernorm) {
      return refuse("config.json: qk_latent_layernorm false");
    }
    if (c_.n_routed_experts > 0 && c_.moe_layer_freq != 1)
      return refuse(str("config.json: moe_layer_freq ", c_.moe_layer_freq));
    return {};
  }

  void push(std::string_view to, const std::string& from, std::vector<int64_t> shape, RowsPtr rows) {
    const bool is_vector = shape.size() == 1;
    const RecipeTensor tensor{.name = from,
                              .rows = is_vector ? 0 : rows->rows(),
                              .cols = rows->cols(),
                              .layers = c_.num_hidden_layers,
                              .experts = c_.n_routed_experts,
                              .tied_head = c_.tie_word_embeddings};
    // F32 under every type means that the recipe keeps the tensor exact.
    DType dtype = format_of(type_.value_or(QuantType::kBF16), tensor);
    if (!type_ && dtype != DType::kF32) dtype = rows->stored().value_or(DType::kBF16);
    out_.push_back({str(to_, to), dtype, std::move(shape), std::move(rows)});
  }

  Status vector(std::string_view to, std::string_view from, int64_t size) {
    const std::string name = str(from_, from);
    LATHE_TRY(RowsPtr rows, finder_.find(name, 0, size));
    push(to, name, {size}, std::move(rows));
    return {};
  }

  Status matrix(std::string_view to, std::string_view from, int64_t rows, int64_t cols) {
    const std::string name = str(from_, from);
    LATHE_TRY(RowsPtr found, finder_.find(name, rows, cols));
    push(to, name, {rows, cols}, std::move(found));
    return {};
  }

  // A projection whose rows the rotation pairs up: `heads` times `plain` and then `rotated` of them.
  Status rotated_matrix(
      std::string_view to, std::string_view from, int64_t heads, int64_t plain, int64_t rotated, int64_t cols) {
    const std::string name = str(from_, from);
    const int64_t rows = heads * (plain + rotated);
    LATHE_TRY(RowsPtr found, finder_.find(name, rows, cols));
    if (c_.rope_layout == RopeLayout::kHalfSplit) {
      std::vector<int64_t> order;
      order.reserve(static_cast<size_t>(rows));
      for (int64_t h = 0; h < heads; ++h) append_pairs(order, plain, rotated);
      found = reordered_rows(std::move(found), std::move(order));
    }
    push(to, name, {rows, cols}, std::move(found));
    return {};
  }

  Status latent_attention(int64_t layer) {
    const int64_t heads = c_.num_attention_heads;
    const int64_t d = c_.hidden_size;
    if (c_.q_lora_rank > 0) {
      LATHE_TRY(matrix("attn_q_a.weight", "self_attn.q_a_proj.weight", c_.q_lora_rank, d));
      LATHE_TRY(vector("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", c_.q_lora_rank));
      LATHE_TRY(rotated_matrix("attn_q_b.weight",
                               "self_attn.q_b_proj.weight",
                               heads,
                               c_.qk_nope_head_dim,
                               c_.qk_rope_head_dim,
                               c_.q_lora_rank));
    } else {
      LATHE_TRY(rotated_matrix(
          "attn_q.weight", "self_attn.q_proj.weight", heads, c_.qk_nope_head_dim, c_.qk_rope_head_dim, d));
    }
    LATHE_TRY(rotated_matrix(
        "attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight", 1, c_.kv_lora_rank, c_.qk_rope_head_dim, d));
    LATHE_TRY(vector("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", c_.kv_lora_rank));
    LATHE_TRY(RowsPtr keys, finder_.key_half(layer));
    push("attn_k_b.weight",
         from_ + "self_attn.k_b_proj.weight",
         {heads, c_.kv_lora_rank, c_.qk_nope_head_dim},
         std::move(keys));
    LATHE_TRY(RowsPtr values, finder_.value_half(layer));
    push("attn_v_b.weight",
         from_ + "self_attn.v_b_proj.weight",
         {heads, c_.v_head_dim, c_.kv_lora_rank},
         std::move(values));
    return matrix("attn_output.weight", "self_attn.o_proj.weight", d, heads * c_.v_head_dim);
  }

  Status plain_attention() {
    const int64_t d = c_.hidden_size;
    const int64_t kv_rows = c_.num_key_value_heads * c_.head_dim;
    LATHE_TRY(rotated_matrix("attn_q.weight", "self_attn.q_proj.weight", c_.num_attention_heads, 0, c_.head_dim, d));
    LATHE_TRY(rotated_matrix("attn_k.weight", "self_attn.k_proj.weight", c_.num_key_value_heads, 0, c_.head_dim, d));
    LATHE_TRY(matrix("attn_v.weight", "self_attn.v_proj.weight", kv_rows, d));
    return matrix("attn_output.weight", "self_attn.o_proj.weight", d, c_.num_attention_heads * c_.head_dim);
  }

  // Three projections; `suffix` is "" or "_shexp".
  Status dense(std::string_view suffix, const std::string& from, int64_t width) {
    const int64_t d = c_.hidden_size;
    LATHE_TRY(matrix(str("ffn_gate", suffix, ".weight"), from + "gate_proj.weight", width, d));
    LATHE_TRY(matrix(str("ffn_up", suffix, ".weight"), from + "up_proj.weight", width, d));
    return matrix(str("ffn_down", suffix, ".weight"), from + "down_proj.weight", d, width);
  }

  Status mixture(int64_t layer) {
    const int64_t d = c_.hidden_size;
    const int64_t width = c_.moe_intermediate_size;
    LATHE_TRY(matrix("ffn_gate_inp.weight", "mlp.gate.weight", c_.n_routed_experts, d));
    if (c_.topk_method == TopkMethod::kNoauxTc) {
      LATHE_TRY(vector("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", c_.n_routed_experts));
    }
    for (const std::string_view kind : {"gate", "up", "down"}) {
      const bool down = kind == "down";
      const int64_t rows = down ? d : width;
      const int64_t cols = down ? width : d;
      const std::string projection = str(kind, "_proj");
      LATHE_TRY(RowsPtr all, finder_.experts(layer, projection, rows, cols));
      push(str("ffn_", kind, "_exps.weight"),
           str(from_, "mlp.experts.", projection),
           {c_.n_routed_experts, rows, cols},
           std::move(all));
    }
    if (c_.n_shared_experts == 0) return {};
    return dense("_shexp", "mlp.shared_experts.", c_.n_shared_experts * width);
  }

  TensorFinder finder_;
  const ModelConfig& c_;
  std::optional<QuantType> type_;
  std::string to_;    // prefix of the layer in the file
  std::string from_;  // and in the checkpoint
  std::vector<OutputTensor> out_;
};

// What a recipe has to know about a name of GGUF.
std::string recipe_name(std::string_view name) {
  struct Rule {
    std::string_view part;
    std::string_view name;
  };

  // The first that fits; the rest are plain matrices.
  constexpr std::array<Rule, 10> kRules{{{"_norm.", "input_layernorm.weight"},
                                         {".ffn_gate_inp.", "mlp.gate.weight"},
                                         {".exp_probs_b", "mlp.gate.e_score_correction_bias"},
                                         {".ffn_down", "mlp.down_proj.weight"},
                                         {".attn_v.", "self_attn.v_proj.weight"},
                                         {".attn_v_b.", "self_attn.v_b_proj.weight"},
                                         {".attn_kv_b.", "self_attn.kv_b_proj.weight"},
                                         {".attn_k.", "self_attn.k_proj.weight"},
                                         {".attn_output.", "self_attn.o_proj.weight"},
                                         {".attn_k_b.", "self_attn.k_b_proj.weight"}}};
  if (name == "token_embd.weight") return "model.embed_tokens.weight";
  if (name == "output.weight") return "lm_head.weight";
  if (name == "output_norm.weight") return "model.norm.weight";
  if (name.ends_with(".bias")) return "any.bias";
  std::string prefix;
  if (name.starts_with("blk.")) prefix = str("model.layers.", name.substr(4, name.find('.', 4) - 4), ".");
  for (const Rule& rule : kRules) {
    if (name.find(rule.part) != std::string_view::npos) return str(prefix, rule.name);
  }
  return str(prefix, "mlp.up_proj.weight");
}

}  // namespace

Result<std::vector<OutputTensor>> plan_gguf(const Checkpoint& checkpoint,
                                            const ModelConfig& config,
                                            std::optional<QuantType> type) {
  return GgufPlanner(checkpoint, config, type).plan();
}

Result<std::vector<OutputTensor>> plan_gguf_again(const GgufModel& model,
                                                  const ModelConfig& config,
                                                  std::optional<QuantType> type) {
  std::vector<OutputTensor> out;
  for (const GgufFile& file : model.files()) {
    for (const StoredTensor& tensor : file.tensors()) {
      const int64_t cols = columns_of(tensor);
      const int64_t rows = tensor.elements() / std::max<int64_t>(cols, 1);
      LATHE_TRY(RowsPtr all, stacked_rows({{.tensor = &tensor, .scales = nullptr, .first = 0, .count = rows}}));
      const std::string name = recipe_name(tensor.name);
      const RecipeTensor recipe{.name = name,
                                .rows = tensor.shape.size() < 2 ? 0 : rows,
                                .cols = cols,
                                .layers = config.num_hidden_layers,
                                .experts = config.n_routed_experts,
                                .tied_head = config.tie_word_embeddings};
      const DType dtype = type ? format_of(*type, recipe) : tensor.dtype;
      out.push_back({tensor.name, dtype, tensor.shape, std::move(all)});
    }
  }
  return out;
}

}  // namespace lathe::convert
