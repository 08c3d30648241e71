#include "lathe/formats/layer_name.h"

#include "lathe/base/str.h"

namespace lathe {
namespace {

constexpr std::string_view kLayers = "model.layers.";

}  // namespace

LayerName split_layer_name(std::string_view name) {
  if (!name.starts_with(kLayers)) return {};
  name.remove_prefix(kLayers.size());
  const size_t dot = name.find('.');
  int64_t layer = -1;
  if (dot == std::string_view::npos || !parse_int(name.substr(0, dot), layer) || layer < 0) return {};
  return {.layer = layer, .rest = name.substr(dot + 1)};
}

std::string layer_prefix(int64_t layer) {
  return str(kLayers, layer, '.');
}

}  // namespace lathe
