// Tensors of a checkpoint by the names that HuggingFace gives them, whatever form they are stored in: experts apart,
// stacked or fused; kv_b_proj in one piece or in two; FP8 with its scales.
#pragma once

#include <memory>
#include <string>

#include "lathe/convert/rows.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/model/config.h"

namespace lathe::convert {

// Borrows the checkpoint and the configuration.
class TensorFinder {
 public:
  TensorFinder(const Checkpoint& checkpoint, const ModelConfig& config) : checkpoint_(checkpoint), config_(config) {}

  // Whether the checkpoint has a tensor of exactly this name.
  bool has(const std::string& name) const { return checkpoint_.find(name) != nullptr; }

  // The tensor of this name as rows; its shape must be [rows, cols], or [cols] where rows is 0. kNotFound, kInvalidData
  // (shape, scales), kUnsupported (type).
  Result<RowsPtr> find(const std::string& name, int64_t rows, int64_t cols) const;

  // A stored tensor as it is, of any shape, with its FP8 scales.
  Result<RowsPtr> whole(const StoredTensor& tensor) const;

  // One projection ("gate_proj", "up_proj", "down_proj") of every routed expert of a layer, below each other.
  Result<RowsPtr> experts(int64_t layer, const std::string& projection, int64_t rows, int64_t cols) const;

  // Half of kv_b_proj of a layer as GGUF has it: [H * kv_lora_rank, qk_nope_head_dim], the transposed W^UK of each
  // head.
  Result<RowsPtr> key_half(int64_t layer) const;
  // [H * v_head_dim, kv_lora_rank], W^UV of each head.
  Result<RowsPtr> value_half(int64_t layer) const;

 private:
  Result<Part> part(const StoredTensor& tensor) const;
  Result<Part> part(const std::string& name, int64_t rows, int64_t cols) const;
  Result<std::shared_ptr<const std::vector<float>>> fp8_scales(const StoredTensor& tensor) const;
  Result<RowsPtr> joined_kv_b(const std::string& prefix) const;

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
};

}  // namespace lathe::convert
