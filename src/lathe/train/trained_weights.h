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

// What a multi-token prediction layer has beside its block.
struct TrainedMtp {
  Trained enorm;
  Trained hnorm;
  Trained eh_proj;
  Trained norm;  // shared_head.norm
};

struct TrainedWeights {
  Trained embed_tokens;
  Trained lm_head;  // the embedding when tied
  Trained norm;
  TrainedMtp mtp;                    // empty unless it is trained
  std::vector<TrainedLayer> layers;  // with it, its block is the last one
};

// `parameters` is made from model_parameters() and outlives the result.
TrainedWeights bind_trained_weights(const ModelConfig& config, ParameterSet& parameters);

}  // namespace lathe
