// The parameters of a model bound to their roles, layer by layer.
#pragma once

#include <vector>

#include "lathe/train/attention_block.h"
#include "lathe/train/moe_block.h"
#include "lathe/train/parameters.h"
#include "lathe/train/swiglu.h"

namespace lathe {

struct TrainedLayer {
  Trained input_layernorm;
  Trained post_attention_layernorm;
  AttentionParameters attention;
  SwigluParameters dense;
  MoeParameters moe;
};

struct TrainedWeights {
  Trained embed_tokens;
  Trained lm_head;  // the embedding when tied
  Trained norm;
  std::vector<TrainedLayer> layers;
};

// `parameters` is made from model_parameters(config) and outlives the result.
TrainedWeights bind_trained_weights(const ModelConfig& config, ParameterSet& parameters);

}  // namespace lathe
