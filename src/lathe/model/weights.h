// ModelWeights: the tensors of a checkpoint bound to their roles by name, each checked for presence, shape and dtype
// before use. Matrices borrow the mapped bytes, or packed ones where there are; norms, biases and FP8 scales are small
// and copied to fp32. Immutable after binding: one ModelWeights, many sequences.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lathe/attention/gqa.h"
#include "lathe/attention/mla.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/model/config.h"
#include "lathe/model/mtp.h"
#include "lathe/model/packed_weights.h"
#include "lathe/moe/experts.h"

namespace lathe {

struct LayerWeights {
  const float* input_layernorm = nullptr;           // [d]
  const float* post_attention_layernorm = nullptr;  // [d]
  MlaWeights mla;                                   // attention == kMla
  GqaWeights gqa;                                   // attention == kGqa
  bool is_moe = false;
  SwigluWeights dense;  // first_k_dense_replace layers
  MoeWeights moe;       // the others; `experts` points into expert_storage
  std::vector<SwigluWeights> expert_storage;
};

// What the multi-token prediction layer has beside its block.
struct MtpWeights {
  const float* enorm = nullptr;  // [d], of the following token's embedding
  const float* hnorm = nullptr;  // [d], of h
  WeightMatrix eh_proj;          // [d, 2 d], embedding first
  const float* norm = nullptr;   // shared_head.norm [d]
};

// See the head of this file. Thread safe for reading.
class ModelWeights {
 public:
  // Errors name the tensor, the file's shape or dtype, and what the configuration demands.
  // `packed` (may be null) takes the place of the stored bytes for the matrices it has; without it every projection
  // must be in a plain type.
  static Result<std::unique_ptr<const ModelWeights>> bind(const ModelConfig& config,
                                                          const std::shared_ptr<const Checkpoint>& checkpoint,
                                                          std::shared_ptr<const PackedWeights> packed = nullptr,
                                                          MtpLayer mtp = MtpLayer::kSkip);

  const ModelConfig& config() const { return config_; }

  const Checkpoint& checkpoint() const { return *checkpoint_; }

  const WeightMatrix& embed_tokens() const { return embed_tokens_; }  // [V, d]

  const WeightMatrix& lm_head() const { return lm_head_; }  // [V, d], the embedding when tied

  const float* norm() const { return norm_; }  // final norm [d]

  // num_hidden_layers of them, then the block of the multi-token prediction layer where that is bound.
  const std::vector<LayerWeights>& layers() const { return layers_; }

  // Null unless bound with MtpLayer::kUse.
  const MtpWeights* mtp() const { return mtp_ ? &*mtp_ : nullptr; }

  // Null when nothing is packed.
  const PackedWeights* packed() const { return packed_.get(); }

  // Bytes of the matrices and vectors that are in use: packed ones, else as stored.
  uint64_t stored_bytes() const { return stored_bytes_; }

  // Names of tensors the main model does not use, other than recognised ones (MTP layers, rotary buffers, FP8 scales).
  const std::vector<std::string>& unused_tensors() const { return unused_; }

  // Tensors of multi-token prediction layers, recognised and skipped (trap T17); with the layer its copies of embedding
  // and head.
  int64_t mtp_tensors() const { return mtp_tensors_; }

  // One line per doubtful thing, e.g. an FP8 tensor without scale.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  friend class WeightBinder;
  ModelWeights() = default;

  ModelConfig config_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::shared_ptr<const PackedWeights> packed_;
  WeightMatrix embed_tokens_;
  WeightMatrix lm_head_;
  const float* norm_ = nullptr;
  std::vector<LayerWeights> layers_;
  std::optional<MtpWeights> mtp_;
  std::vector<std::unique_ptr<float[]>> owned_;  // norms, biases, scales in fp32
  uint64_t stored_bytes_ = 0;
  std::vector<std::string> unused_;
  int64_t mtp_tensors_ = 0;
  std::vector<std::string> warnings_;
};

// The shape of one layer's attention and MoE as the operations take them.
MlaShape mla_shape(const ModelConfig& config);
GqaShape gqa_shape(const ModelConfig& config);
MoeShape moe_shape(const ModelConfig& config);

}  // namespace lathe
