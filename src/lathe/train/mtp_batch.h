// The rows of a multi-token prediction layer (V3 section 2.2) of a packed batch: every token whose next one is known
// stands for itself, takes the next one as input and predicts the one after it.
#pragma once

#include <cstdint>
#include <vector>

#include "lathe/train/train_model.h"

namespace lathe {

// R <= T rows, packed like a TrainBatch: documents and sequences without a row are left out.
struct MtpRows {
  std::vector<int32_t> tokens;         // [R]: the following token
  std::vector<int32_t> targets;        // [R]: the token after that inside the same document, or kIgnoredTarget
  std::vector<int64_t> rows;           // [R]: the row of the batch that each stands for, ascending
  std::vector<int64_t> sequences;      // first rows
  std::vector<int64_t> documents;      // first rows
  std::vector<uint64_t> sequence_ids;  // [sequences], or empty
  std::vector<float> target_weights;   // [R], or empty: those of the tokens that are predicted

  // Valid while this lives and is not changed.
  TrainBatch batch() const;
};

// `batch` satisfies the conditions of TrainBatch. The following token of a document's last one is its target, where it
// has one.
void select_mtp_rows(const TrainBatch& batch, MtpRows& out);

}  // namespace lathe
