// The tensors of a GGUF file under the names that a HuggingFace checkpoint gives them (docs/formats.md has the table).
#pragma once

#include <vector>

#include "lathe/base/result.h"
#include "lathe/formats/gguf.h"

namespace lathe {

// Every tensor of one file, renamed: stacked experts become one tensor per expert, fused gate and up rows two. What has
// no counterpart keeps its bytes and gets a name of its own beside the projections it replaces:
//   self_attn.k_b_proj.weight [H*r, d_n]  rows h*r.. are the transposed W^UK of head h
//   self_attn.v_b_proj.weight [H*d_v, r]  rows h*d_v.. are W^UV of head h
// The bytes borrow from the file. A tensor that no model of the supported architectures has is kUnsupported.
Result<std::vector<StoredTensor>> tensors_by_hf_name(const GgufFile& file);

}  // namespace lathe
