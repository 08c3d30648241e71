#include "lathe/formats/gguf_tensors.h"

#include <optional>

#include "lathe/base/str.h"
#include "lathe/formats/layer_name.h"

namespace lathe {
namespace {

constexpr int64_t kMaxExperts = 65'536;         // of one layer, as in config.json
constexpr size_t kMaxSlices = size_t{1} << 20;  // of one file: more than the largest accepted configuration has
constexpr int64_t kMaxLayer = 100'000;

struct Renamed {
  std::string_view from;
  std::string_view to;
};

constexpr Renamed kModelTensors[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};

// Below blk.i and model.layers.i: with both suffixes.
constexpr Renamed kProjections[] = {
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_q_a", "self_attn.q_a_proj"},
    {"attn_q_b", "self_attn.q_b_proj"},
    {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
    {"attn_kv_b", "self_attn.kv_b_proj"},
    {"attn_output", "self_attn.o_proj"},
};

// Under the whole name.
constexpr Renamed kLayerTensors[] = {
    {"attn_norm.weight", "input_layernorm.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight"},
    {"attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight"},
    {"attn_rot_embd.weight", "self_attn.rotary_emb.inv_freq"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
    {"ffn_gate_inp.weight", "mlp.gate.weight"},
    {"exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
    {"exp_probs_b", "mlp.gate.e_score_correction_bias"},
    {"ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight"},
    {"ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight"},
    {"ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight"},
    {"nextn.eh_proj.weight", "eh_proj.weight"},
    {"nextn.enorm.weight", "enorm.weight"},
    {"nextn.hnorm.weight", "hnorm.weight"},
    {"nextn.embed_tokens.weight", "embed_tokens.weight"},
    {"nextn.shared_head_norm.weight", "shared_head.norm.weight"},
    {"nextn.shared_head_head.weight", "shared_head.head.weight"},
};

// Three dimensions, the heads outermost; or already flat, as one fork writes them.
constexpr Renamed kSplitLatent[] = {
    {"attn_k_b.weight", "self_attn.k_b_proj.weight"},
    {"attn_v_b.weight", "self_attn.v_b_proj.weight"},
};

constexpr Renamed kStackedExperts[] = {
    {"ffn_gate_exps.weight", "gate_proj.weight"},
    {"ffn_up_exps.weight", "up_proj.weight"},
    {"ffn_down_exps.weight", "down_proj.weight"},
};

constexpr std::string_view kFusedExperts = "ffn_gate_up_exps.weight";

template <size_t N>
std::optional<std::string_view> renamed(const Renamed (&table)[N], std::string_view name) {
  for (const Renamed& entry : table) {
    if (entry.from == name) return entry.to;
  }
  return std::nullopt;
}

std::optional<std::string> projection(std::string_view name) {
  for (const std::string_view suffix : {".weight", ".bias"}) {
    if (!name.ends_with(suffix)) continue;
    const auto to = renamed(kProjections, name.substr(0, name.size() - suffix.size()));
    if (to) return str(*to, suffix);
  }
  return std::nullopt;
}

class Renamer {
 public:
  explicit Renamer(std::vector<StoredTensor>& out) : out_(out) {}

  Status add(const StoredTensor& tensor) {
    if (const auto to = renamed(kModelTensors, tensor.name)) return push(tensor, std::string(*to));
    int64_t layer = -1;
    const std::string_view rest = below_layer(tensor.name, layer);
    if (layer < 0) return unknown(tensor);
    const std::string prefix = layer_prefix(layer);
    if (const auto to = projection(rest)) return push(tensor, prefix + *to);
    if (const auto to = renamed(kLayerTensors, rest)) return push(tensor, str(prefix, *to));
    if (const auto to = renamed(kSplitLatent, rest)) return push_flat(tensor, str(prefix, *to));
    if (const auto to = renamed(kStackedExperts, rest)) return push_experts(tensor, prefix, *to);
    if (rest == kFusedExperts) return push_fused(tensor, prefix);
    return unknown(tensor);
  }

 private:
  // What follows `blk.N.` in a name, and N; -1 for other names.
  static std::string_view below_layer(std::string_view name, int64_t& layer) {
    constexpr std::string_view kPrefix = "blk.";
    if (!name.starts_with(kPrefix)) return {};
    name.remove_prefix(kPrefix.size());
    const size_t dot = name.find('.');
    const std::string_view number = name.substr(0, dot);
    int64_t value = 0;
    if (dot == std::string_view::npos || !parse_int(number, value)) return {};
    if (value < 0 || value > kMaxLayer || str(value) != number) return {};
    layer = value;
    return name.substr(dot + 1);
  }

  static Error unknown(const StoredTensor& tensor) {
    if (tensor.name == "rope_freqs.weight") {
      return {Errc::kUnsupported,
              "tensor \"rope_freqs.weight\": rotation frequencies of its own are not supported (expected none)"};
    }
    return {Errc::kUnsupported,
            str("tensor ",
                lathe::quoted(tensor.name),
                ": expected a tensor of deepseek2, deepseek or llama, found another")};
  }

  static Error wrong_rank(const StoredTensor& tensor, std::string_view expected) {
    return {Errc::kInvalidData,
            str("tensor ", lathe::quoted(tensor.name), ": expected ", expected, ", found shape ", tensor.shape)};
  }

  Status push(const StoredTensor& tensor, std::string name) {
    out_.push_back(tensor);
    out_.back().name = std::move(name);
    return {};
  }

  Status push_flat(const StoredTensor& tensor, std::string name) {
    if (tensor.shape.size() != 2 && tensor.shape.size() != 3) return wrong_rank(tensor, "2 or 3 dimensions");
    LATHE_TRY(push(tensor, std::move(name)));
    if (tensor.shape.size() == 3) out_.back().shape = {tensor.shape[0] * tensor.shape[1], tensor.shape[2]};
    return {};
  }

  // Checks a stacked tensor [experts, rows, cols] and that its slices may still be listed.
  Status check_stack(const StoredTensor& tensor, size_t slices_per_expert) {
    if (tensor.shape.size() != 3) return wrong_rank(tensor, "3 dimensions");
    if (tensor.shape[0] > kMaxExperts) return wrong_rank(tensor, str("at most ", kMaxExperts, " experts"));
    slices_ += static_cast<size_t>(tensor.shape[0]) * slices_per_expert;
    if (slices_ > kMaxSlices) return wrong_rank(tensor, str("at most ", kMaxSlices, " matrices of experts in all"));
    return {};
  }

  // Rows [first, first + rows) of expert e.
  void push_rows(const StoredTensor& stack, int64_t e, int64_t first, int64_t rows, std::string name) {
    const int64_t row = row_bytes(stack.dtype, stack.shape[2]);
    const auto offset = static_cast<size_t>((e * stack.shape[1] + first) * row);
    out_.push_back({.name = std::move(name),
                    .dtype = stack.dtype,
                    .shape = {rows, stack.shape[2]},
                    .bytes = stack.bytes.subspan(offset, static_cast<size_t>(rows * row))});
  }

  Status push_experts(const StoredTensor& stack, const std::string& prefix, std::string_view projection) {
    LATHE_TRY(check_stack(stack, 1));
    for (int64_t e = 0; e < stack.shape[0]; ++e) {
      push_rows(stack, e, 0, stack.shape[1], str(prefix, "mlp.experts.", e, ".", projection));
    }
    return {};
  }

  Status push_fused(const StoredTensor& stack, const std::string& prefix) {
    LATHE_TRY(check_stack(stack, 2));
    if (stack.shape[1] % 2 != 0) return wrong_rank(stack, "an even number of rows per expert");
    const int64_t half = stack.shape[1] / 2;
    for (int64_t e = 0; e < stack.shape[0]; ++e) {
      const std::string expert = str(prefix, "mlp.experts.", e, ".");
      push_rows(stack, e, 0, half, expert + "gate_proj.weight");
      push_rows(stack, e, half, half, expert + "up_proj.weight");
    }
    return {};
  }

  std::vector<StoredTensor>& out_;
  size_t slices_ = 0;
};

}  // namespace

Result<std::vector<StoredTensor>> tensors_by_hf_name(const GgufFile& file) {
  std::vector<StoredTensor> out;
  out.reserve(file.tensors().size());
  Renamer renamer(out);
  for (const StoredTensor& tensor : file.tensors()) {
    const Status added = renamer.add(tensor);
    if (!added) return added.error().at(file.path().string());
  }
  return out;
}

}  // namespace lathe
