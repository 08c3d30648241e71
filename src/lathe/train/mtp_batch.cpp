#include "lathe/train/mtp_batch.h"

namespace lathe {

void select_mtp_rows(const TrainBatch& batch, MtpRows& out) {
  out = {};
  size_t sequence = 0;       // of the document
  bool in_sequence = false;  // it has a row already
  const size_t T = batch.token_ids.size();
  for (size_t i = 0; i < batch.documents.size(); ++i) {
    const auto first = static_cast<size_t>(batch.documents[i]);
    const size_t end = i + 1 < batch.documents.size() ? static_cast<size_t>(batch.documents[i + 1]) : T;
    if (sequence + 1 < batch.sequences.size() && batch.documents[i] == batch.sequences[sequence + 1]) {
      ++sequence;
      in_sequence = false;
    }
    const auto begin = static_cast<int64_t>(out.rows.size());
    for (size_t t = first; t < end; ++t) {
      const bool last = t + 1 == end;
      const int32_t next = last ? batch.targets[t] : batch.token_ids[t + 1];
      if (next < 0) continue;
      out.rows.push_back(static_cast<int64_t>(t));
      out.token_ids.push_back(next);
      out.targets.push_back(last ? kIgnoredTarget : batch.targets[t + 1]);
      if (!batch.target_weights.empty()) out.target_weights.push_back(last ? 0.0F : batch.target_weights[t + 1]);
    }
    if (static_cast<int64_t>(out.rows.size()) == begin) continue;
    out.documents.push_back(begin);
    if (in_sequence) continue;
    in_sequence = true;
    out.sequences.push_back(begin);
    if (!batch.sequence_ids.empty()) out.sequence_ids.push_back(batch.sequence_ids[sequence]);
  }
}

}  // namespace lathe
