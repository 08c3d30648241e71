#include "lathe/model/packed_plan.h"

#include <algorithm>
#include <iterator>

#include "lathe/base/check.h"
#include "lathe/base/str.h"
#include "lathe/model/shapes.h"
#include "lathe/tensor/panels.h"

namespace lathe {

namespace {

constexpr std::string_view kHead = "lm_head.weight";
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kKvB = "self_attn.kv_b_proj.weight";
constexpr std::string_view kMtpProjection = ".eh_proj.weight";

uint64_t padded(int64_t bytes) {
  return static_cast<uint64_t>((bytes + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment);
}

// Rows that a transposed product reads exactly: Q8_0 holds the integers and scale of every format without minima and
// sub-scales; the others become fp32.
DType transposed_format(DType format) {
  const bool fits = format == DType::kQ8_0 || format == DType::kQ5_0 || format == DType::kQ4_0;
  return fits ? DType::kQ8_0 : DType::kF32;
}

class Planner {
 public:
  Planner(const ModelConfig& config,
          const Checkpoint* checkpoint,
          std::optional<QuantType> type,
          PackLayout layout,
          MtpLayer mtp)
      : config_(config), checkpoint_(checkpoint), type_(type), layout_(layout), mtp_(mtp) {}

  Result<PackedPlan> run() {
    std::vector<ExpectedTensor> tensors = expected_tensors(config_);
    if (mtp_ == MtpLayer::kUse) std::ranges::move(expected_mtp_tensors(config_), std::back_inserter(tensors));
    for (const ExpectedTensor& tensor : tensors) {
      if (tensor.shape.size() != 2) continue;
      if (!tensor.quantisable && tensor.name != kHead && !is_quantised_mtp_projection(tensor.name)) continue;
      if (tensor.name.ends_with(kKvB) && !is_stored(tensor.name)) {
        LATHE_TRY(add_split_kv_b(tensor.name));
      } else {
        LATHE_TRY(add(tensor.name, tensor.name, tensor.shape[0], tensor.shape[1]));
      }
    }
    if (config_.tie_word_embeddings) {
      LATHE_TRY(add(std::string(kHead), std::string(kEmbedding), config_.vocab_size, config_.hidden_size));
    }
    return std::move(plan_);
  }

 private:
  bool is_stored(std::string_view name) const { return checkpoint_ == nullptr || checkpoint_->find(name) != nullptr; }

  // GGUF files may have eh_proj in blocks, which only packed matrices are multiplied in.
  bool is_quantised_mtp_projection(std::string_view name) const {
    const StoredTensor* tensor = name.ends_with(kMtpProjection) ? checkpoint_->find(name) : nullptr;
    return tensor != nullptr && is_block_format(tensor->dtype);
  }

  // The format the matrix is to have: nothing when it stays as it is stored.
  Result<std::optional<DType>> target(const std::string& name, const std::string& source, int64_t rows, int64_t cols) {
    std::optional<DType> stored;
    if (checkpoint_ != nullptr) {
      const StoredTensor* tensor = checkpoint_->find(source);
      if (tensor == nullptr || tensor->shape != std::vector<int64_t>{rows, cols}) return std::optional<DType>();
      if (is_block_format(tensor->dtype)) stored = tensor->dtype;
    }
    if (!type_) return stored;
    if (stored) {
      return Error{Errc::kInvalidArgument,
                   str("--type ",
                       quant_type_name(*type_),
                       ": expected weights that are not quantised yet, found ",
                       source,
                       " in ",
                       dtype_name(*stored))};
    }
    const DType format = format_of(*type_,
                                   {.name = name,
                                    .rows = rows,
                                    .cols = cols,
                                    .layers = config_.num_hidden_layers,
                                    .experts = config_.n_routed_experts,
                                    .tied_head = config_.tie_word_embeddings});
    return is_block_format(format) ? std::optional(format) : std::nullopt;
  }

  // Appends a matrix whose panels are possible, or its decoded rows.
  void append(PackedEntry entry, bool panels) {
    if (panels && layout_ == PackLayout::kPanels) {
      entry.format = entry.quantised;
      entry.panels = true;
    } else {
      entry.format = DType::kF32;
      entry.panels = false;
    }
    place(std::move(entry));
  }

  // Appends the rows that products with the transpose read beside panels.
  void append_transposed(PackedEntry entry) {
    if (layout_ != PackLayout::kPanels) return;
    entry.format = transposed_format(entry.quantised);
    entry.panels = false;
    place(std::move(entry));
  }

  // Appends what expands latents to keys, beside the panels of a k_b_proj.
  void append_expanding(PackedEntry k_b, std::string name) {
    k_b.name = std::move(name);
    if (!heads_are_panels() || config_.kv_lora_rank % kBlock != 0) return append_transposed(std::move(k_b));
    if (layout_ != PackLayout::kPanels) return;
    k_b.quantised = DType::kQ8_0;
    k_b.format = DType::kQ8_0;
    k_b.panels = true;
    k_b.rows = config_.num_attention_heads * config_.qk_nope_head_dim;
    k_b.cols = config_.kv_lora_rank;
    k_b.transposed = config_.kv_lora_rank;
    place(std::move(k_b));
  }

  void place(PackedEntry entry) {
    entry.bytes = padded(entry.panels ? packed_bytes(entry.format, entry.rows, entry.cols)
                                      : entry.rows * row_bytes(entry.format, entry.cols));
    entry.offset = plan_.bytes;
    plan_.bytes += entry.bytes;
    plan_.entries.push_back(std::move(entry));
  }

  Status add(const std::string& name, const std::string& source, int64_t rows, int64_t cols) {
    LATHE_TRY(const std::optional<DType> format, target(name, source, rows, cols));
    if (!format) return {};
    const bool is_kv_b = name.ends_with(kKvB);
    const bool panels = !is_kv_b || heads_are_panels();
    append({.name = name, .source = source, .quantised = *format, .rows = rows, .cols = cols}, panels);
    if (!is_kv_b || !panels) return {};
    append_transposed({.name = name.substr(0, name.size() - kKvB.size()) + std::string(kPackedUkName),
                       .source = name,
                       .quantised = *format,
                       .rows = config_.num_attention_heads * config_.qk_nope_head_dim,
                       .cols = cols,
                       .taken = config_.qk_nope_head_dim,
                       .stride = config_.qk_nope_head_dim + config_.v_head_dim});
    return {};
  }

  // Heads begin at panels, so d_h and d_v must be whole panels (all releases have 128); else fp32 rows do the work.
  bool heads_are_panels() const {
    return config_.qk_nope_head_dim % kPanelRows == 0 && config_.v_head_dim % kPanelRows == 0;
  }

  // W^UK transposed and W^UV as two tensors: the form of newer GGUF files. k_b is read both ways. Its blocks lie along
  // d_h, so for products along d_c it gets blocks anew, in Q8_0; where heads are no whole panels, or latents no whole
  // blocks, its rows stay instead.
  Status add_split_kv_b(const std::string& kv_b) {
    const std::string prefix = kv_b.substr(0, kv_b.size() - kKvB.size());
    const std::string k_b = prefix + "self_attn.k_b_proj.weight";
    const std::string v_b = prefix + "self_attn.v_b_proj.weight";
    const int64_t heads = config_.num_attention_heads;
    const int64_t k_rows = heads * config_.kv_lora_rank;
    const int64_t k_cols = config_.qk_nope_head_dim;
    LATHE_TRY(const std::optional<DType> k_format, target(k_b, k_b, k_rows, k_cols));
    if (k_format) {
      const bool panels = config_.kv_lora_rank % kPanelRows == 0;
      const PackedEntry entry{.name = k_b, .source = k_b, .quantised = *k_format, .rows = k_rows, .cols = k_cols};
      append(entry, panels);
      if (panels) append_expanding(entry, prefix + std::string(kPackedUkName));
    }
    const int64_t v_rows = heads * config_.v_head_dim;
    LATHE_TRY(const std::optional<DType> v_format, target(v_b, v_b, v_rows, config_.kv_lora_rank));
    if (v_format) {
      append({.name = v_b, .source = v_b, .quantised = *v_format, .rows = v_rows, .cols = config_.kv_lora_rank},
             heads_are_panels());
    }
    return {};
  }

  const ModelConfig& config_;
  const Checkpoint* checkpoint_;
  std::optional<QuantType> type_;
  PackLayout layout_;
  MtpLayer mtp_;  // only with a checkpoint
  PackedPlan plan_;
};

}  // namespace

Result<PackedPlan> plan_packing(const ModelConfig& config,
                                const Checkpoint& checkpoint,
                                std::optional<QuantType> type,
                                PackLayout layout,
                                MtpLayer mtp) {
  return Planner(config, &checkpoint, type, layout, mtp).run();
}

PackedPlan plan_synthetic(const ModelConfig& config, QuantType type) {
  Result<PackedPlan> plan = Planner(config, nullptr, type, PackLayout::kPanels, MtpLayer::kSkip).run();
  LATHE_CHECK(plan.has_value(), "no checkpoint, no error");
  return *std::move(plan);
}

}  // namespace lathe
