// The rows of a multi-token prediction layer (V3 section 2.2) of a packed batch: every token whose next one is known
// stands for itself, takes the next one as input and predicts the one after it.
#pragma once

#include <cstdint>
#include <vector>

#include "lathe/train/train_model.h"

namespace lathe {

// R <= T rows, packed like a TrainBatch: documents and sequences without a row are left out. token_ids: the following
// token; targets: the token after that inside the same document, or kIgnoredTarget; target_weights: those of the tokens
// that are predicted.
struct MtpRows : PackedRows {
  std::vector<int64_t> rows;  // [R]: the row of the batch that each stands for, ascending
};

// `batch` satisfies the conditions of TrainBatch. The following token of a document's last one is its target, where it
// has one.
void select_mtp_rows(const TrainBatch& batch, MtpRows& out);

}  // namespace lathe
