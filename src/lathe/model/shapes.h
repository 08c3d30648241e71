// What follows from a ModelConfig alone, without weights: which tensors the checkpoint must have, parameter counts
// (spec numbers.md section 2), cache sizes (the paper's Table 1), the memory plan.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lathe/model/config.h"

namespace lathe {

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
  bool quantisable = false;  // a linear projection that an FP8 checkpoint stores with weight_scale_inv
  bool optional = false;     // a bias that only some converted models have (q_proj, q_b_proj with attention_bias)
};

// Every tensor of the main model in forward order (MTP layers are not included). Here and below the config must have
// passed parse_config, which bounds all sizes. Without qk_latent_layernorm the two latent norms are absent; with
// attention_bias the biases of spec checkpoints.md 1.2 follow their weights.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

struct ParameterCounts {
  int64_t total = 0;   // main model: embedding, layers, final norm, head (once when tied)
  int64_t active = 0;  // per token, without the embedding, with the head
  int64_t active_with_embedding = 0;
  int64_t active_without_head = 0;  // without embedding and head
  int64_t attention_per_layer = 0;
};

// Optional tensors are not counted; with tied embeddings the one matrix counts once, and as the head in `active`.
ParameterCounts count_parameters(const ModelConfig& config);

// Cache elements per token, over all layers: this model and the alternatives of Table 1 with the same heads, d_h and
// layers.
struct CacheComparison {
  int64_t elements_per_token = 0;
  int64_t mha_elements_per_token = 0;   // 2 n_h d_h l, d_h = qk_nope_head_dim (MLA) or head_dim
  int64_t gqa8_elements_per_token = 0;  // 2 * 8 d_h l
  int64_t mqa_elements_per_token = 0;   // 2 d_h l
  double equivalent_gqa_groups = 0.0;   // elements / (2 d_h l): 2.25 for the releases
};

// All counts follow from the config alone.
CacheComparison compare_caches(const ModelConfig& config);

}  // namespace lathe
