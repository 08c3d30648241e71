#include "lathe/train/block_expansion.h"

#include <algorithm>

#include "lathe/base/str.h"
#include "lathe/formats/layer_name.h"

namespace lathe {
namespace {

// Bias and scale included.
bool writes_to_residual(std::string_view rest) {
  return rest.find("o_proj.") != std::string_view::npos || rest.find("down_proj.") != std::string_view::npos;
}

}  // namespace

Result<BlockExpansion> BlockExpansion::create(std::vector<int64_t> after, int64_t layers) {
  int64_t least = 0;
  for (const int64_t layer : after) {
    if (layer < least || layer >= layers) {
      return Error{Errc::kInvalidArgument, str("expected ascending layers from 0 to ", layers - 1, ", found ", layer)};
    }
    least = layer + 1;
  }
  return BlockExpansion(std::move(after));
}

BlockExpansion::Source BlockExpansion::source(std::string_view name) const {
  const LayerName split = split_layer_name(name);
  if (split.layer < 0) return {.name = std::string(name)};
  int64_t before = 0;  // new layers below split.layer
  for (const int64_t old : after_) {
    const int64_t added = old + before + 1;
    if (added == split.layer) {
      return {.name = str(layer_prefix(old), split.rest), .zero = writes_to_residual(split.rest)};
    }
    if (added > split.layer) break;
    ++before;
  }
  return {.name = str(layer_prefix(split.layer - before), split.rest)};
}

int64_t BlockExpansion::added_to(int64_t layers) const {
  return std::ranges::lower_bound(after_, layers) - after_.begin();
}

}  // namespace lathe
