// Which matrices of a model are packed, into which format and where they lie in the packed bytes: arithmetic from the
// configuration and the headers of the checkpoint alone. packed_weights.h does the work.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lathe/formats/checkpoint.h"
#include "lathe/formats/quant/recipe.h"
#include "lathe/model/config.h"
#include "lathe/model/mtp.h"
#include "lathe/tensor/matrix.h"

namespace lathe {

// One matrix among the packed bytes.
struct PackedEntry {
  std::string name;    // of the role: the HuggingFace name, "lm_head.weight" also when it is the embedding's
  std::string source;  // tensor of the checkpoint that it is made of
  DType quantised{};   // the block format that the values have, or get first
  DType format{};      // how they lie here: the same, or in rows Q8_0 or F32, which hold the same values
  bool panels = true;  // panels of 16 rows; else row-major
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t taken = 0;  // of every `stride` rows of the source, the first `taken` are used; 0: all rows
  int64_t stride = 0;
  // Above 0 the entry is the transpose: of every so many rows of the source, column c is a row.
  int64_t transposed = 0;
  uint64_t offset = 0;  // from the start of the packed bytes, a multiple of 64
  uint64_t bytes = 0;   // a multiple of 64

  // Row of the source that row r is made of, where it is not transposed.
  int64_t source_row(int64_t r) const { return taken == 0 ? r : r / taken * stride + r % taken; }
};

// Name of W^UK in a layer where the tensor of the checkpoint serves one form of attention only: beside a packed
// kv_b_proj the rows that the absorbed form reads transposed; beside a packed k_b_proj, W^UK transposed, what the
// expanded form reads.
inline constexpr std::string_view kPackedUkName = "self_attn.kv_b_proj.uk";

struct PackedPlan {
  std::vector<PackedEntry> entries;  // in the order of execution
  uint64_t bytes = 0;                // of all entries
};

// How packed matrices lie in memory.
enum class PackLayout {
  kPanels,   // for the integer kernels
  kDecoded,  // fp32 rows of the same values: reference-grade arithmetic, four to eight times the memory
};

// Plans the packing of a checkpoint: every projection and the head that is stored in a block format, or that `type`
// turns into one. Empty when there is nothing to pack. Shapes are checked when weights are bound; tensors that are
// absent or have another shape are left out here. With `mtp` the multi-token prediction layer is part of it; its
// eh_proj keeps the type that it is stored in. kInvalidArgument when `type` is given for a tensor that is in a block
// format already.
Result<PackedPlan> plan_packing(const ModelConfig& config,
                                const Checkpoint& checkpoint,
                                std::optional<QuantType> type,
                                PackLayout layout = PackLayout::kPanels,
                                MtpLayer mtp = MtpLayer::kSkip);

// The same for a model without a checkpoint, all of it in `type`: what `bench --synthetic` measures.
PackedPlan plan_synthetic(const ModelConfig& config, QuantType type);

}  // namespace lathe
