// Weights of any shape without a file: seeded random values, so that speed can be measured for a model that is not at
// hand.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "lathe/base/result.h"
#include "lathe/base/thread_pool.h"
#include "lathe/formats/quant/recipe.h"
#include "lathe/model/config.h"
#include "lathe/model/weights.h"

namespace lathe {

// Bytes that synthetic_weights() takes for them. kResourceExhausted when they do not fit 63 bits.
Result<uint64_t> synthetic_weight_bytes(const ModelConfig& config, std::optional<QuantType> type);

// Every tensor of the model as BF16: matrices with normal values of deviation 0.02 (what transformers initialises
// with), the embedding 256 times that, norms 1, biases 0. Activations stay finite, since every block normalises its
// input; the large embedding keeps tokens apart, so that routing is near to uniform and changes with every token.
// Values repeat after some millions, addresses do not. With a type, what the recipe of that type quantises is random in
// the packed layout instead, so that a model of any size needs no more memory than its packed weights. The same seed
// gives the same values for any pool. kResourceExhausted when there is no memory.
Result<std::unique_ptr<const ModelWeights>> synthetic_weights(const ModelConfig& config,
                                                              std::optional<QuantType> type,
                                                              uint64_t seed,
                                                              ThreadPool& pool);

}  // namespace lathe
