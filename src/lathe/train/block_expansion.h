// Block expansion: a trained model is made deeper before it is trained on. Behind chosen layers comes a copy whose
// matrices that write to the residual stream (o_proj, down_proj) are zero, so that the deeper model computes exactly
// what the shallower one did, and training has trained neighbours to start from (C. Wu et al. 2024, "LLaMA Pro:
// Progressive LLaMA with Block Expansion", section 3.2).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"

namespace lathe {

class BlockExpansion {
 public:
  // Adds no layer.
  BlockExpansion() = default;

  // `after`: those of a model's `layers` layers (from 0) that a new one follows, ascending. kInvalidArgument names the
  // element that is not.
  static Result<BlockExpansion> create(std::vector<int64_t> after, int64_t layers);

  // Where a tensor of the deeper model comes from.
  struct Source {
    std::string name;   // in the shallower model
    bool zero = false;  // of that one's shape, but every element 0
  };

  // Names without a layer, and of the layers behind the last (multi-token prediction), keep their meaning.
  Source source(std::string_view name) const;

  // New layers among or right behind the first `layers` of the shallower model.
  int64_t added_to(int64_t layers) const;

 private:
  explicit BlockExpansion(std::vector<int64_t> after) : after_(std::move(after)) {}

  std::vector<int64_t> after_;
};

}  // namespace lathe
