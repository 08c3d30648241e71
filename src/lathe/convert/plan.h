// What a conversion writes: a list of tensors with their types, and where their rows come from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/convert/rows.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/formats/gguf.h"
#include "lathe/formats/quant/recipe.h"
#include "lathe/model/config.h"

namespace lathe::convert {

struct OutputTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // slowest extent first; rows->rows() x rows->cols() values
  RowsPtr rows;

  // Size of the data in the new file.
  uint64_t bytes() const { return static_cast<uint64_t>(rows->rows() * row_bytes(dtype, rows->cols())); }
};

// Layout of GGUF files: experts stacked, kv_b_proj in two halves, norms and router in F32, rows of q and k in the order
// of adjacent pairs. Without a type, matrices keep the one they have, and FP8 becomes BF16. kUnsupported for what these
// files cannot say (biases of MLA, other norms). Tensors of layers after the last (multi-token prediction) are left
// out.
Result<std::vector<OutputTensor>> plan_gguf(const Checkpoint& checkpoint,
                                            const ModelConfig& config,
                                            std::optional<QuantType> type);

// The tensors of a GGUF file under their own names and in their own order, in other types.
Result<std::vector<OutputTensor>> plan_gguf_again(const GgufModel& model,
                                                  const ModelConfig& config,
                                                  std::optional<QuantType> type);

// HuggingFace's layout: every tensor under the name and in the shape that the configuration expects, in one plain type
// (F32, F16 or BF16); correction biases of the router stay F32. Of a folder, tensors beyond those (multi-token
// prediction) are kept too.
Result<std::vector<OutputTensor>> plan_hf(const Checkpoint& checkpoint,
                                          const ModelConfig& config,
                                          bool from_gguf,
                                          DType dtype);

// The plain type that most of a checkpoint's values have; BF16 when that is none (FP8, block formats).
DType usual_dtype(const Checkpoint& checkpoint);

}  // namespace lathe::convert
