// From a recipe to the configuration of the model that is trained, and to the options of its training.
#pragma once

#include <cstdint>
#include <string_view>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/model/config.h"
#include "lathe/tokenizer/tokenizer.h"
#include "lathe/train/block_expansion.h"
#include "lathe/train/recipe.h"
#include "lathe/train/train_model.h"

namespace lathe::train {

struct ModelSetup {
  Json json;  // config.json of its checkpoints
  ModelConfig config;
  BlockExpansion expansion;  // from the layers of model.from to those of config
};

// [model] over the config.json it names, with what follows from the tokenizer. Without a tokenizer the vocabulary is
// taken from [tokenizer]: to find errors before it is trained. kInvalidData and kUnsupported name the field.
Result<ModelSetup> set_up_model(const Recipe& recipe, const Tokenizer* tokenizer);

// Rows of one pass forward and backward.
int64_t micro_batch_rows(const TrainRecipe& recipe);

// As recipes spell it: "nothing", "latents", "layers".
std::string_view name_of(Recompute level);

// [balance] and [train] as the core wants them. Recomputation "auto" becomes the least whose plan, with the optimizer,
// takes at most half of `room` bytes, else the most.
Result<TrainOptions> train_options(const Recipe& recipe, const ModelConfig& config, int threads, uint64_t room);

}  // namespace lathe::train
