// Names of tensors that belong to a layer, as HuggingFace checkpoints spell them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lathe {

// `model.layers.N.REST`.
struct LayerName {
  int64_t layer = -1;
  std::string_view rest;  // borrows from the name
};

// Names of another kind, and layers that are no numbers from 0, give layer -1.
LayerName split_layer_name(std::string_view name);

// "model.layers.N."
std::string layer_prefix(int64_t layer);

}  // namespace lathe
