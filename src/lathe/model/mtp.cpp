#include "lathe/model/mtp.h"

#include "lathe/formats/layer_name.h"

namespace lathe {

bool has_mtp_layer(const ModelConfig& config, const Checkpoint& checkpoint) {
  const std::string projection = layer_prefix(config.num_hidden_layers) + "eh_proj.weight";
  return config.num_nextn_predict_layers > 0 && checkpoint.find(projection) != nullptr;
}

CacheLayout with_mtp_layer(CacheLayout main, const ModelConfig& config) {
  constexpr int64_t kAlignment = 64;
  const auto row = config.hidden_size * static_cast<int64_t>(sizeof(float));
  ++main.layers;
  main.tail_bytes = (row + kAlignment - 1) / kAlignment * kAlignment;
  return main;
}

}  // namespace lathe
