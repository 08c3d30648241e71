// MtpDrafter: guesses by the checkpoint's multi-token prediction layer (model/mtp.h). The layer has its own rows in the
// cache; a row needs nothing but the token of its position and the main model's final-normed row before it, so for
// prompts and accepted guesses only the row is computed, not the layer. One pass of the layer over the last tokens of
// all answers gives their first guesses; each further guess is one more pass over the last guesses, in which the
// layer's own normed row stands in for the main model's.
#pragma once

#include <vector>

#include "lathe/model/cpu_backend.h"
#include "lathe/model/decoder.h"
#include "lathe/runtime/drafter.h"
#include "lathe/runtime/scheduler.h"

namespace lathe {

class MtpDrafter final : public Drafter {
 public:
  // All arguments outlive the drafter: the decoder of `backend`, whose weights have the layer, and the layout of its
  // cache (with_mtp_layer).
  MtpDrafter(const ModelConfig& config, const CacheLayout& layout, CpuBackend& backend, Decoder& decoder)
      : config_(config), layout_(layout), backend_(backend), decoder_(decoder) {}

  DrafterKind kind() const override { return DrafterKind::kMtp; }

  bool needs_row_before() const override { return true; }

  int64_t plan(Sequence& sequence, int64_t most) override;
  void draft() override;
  void after_pass(const Batch& batch) override;
  void after_answers(const Batch& batch) override;

 private:
  struct Wanted {
    Sequence* sequence = nullptr;
    int64_t count = 0;  // guesses
  };

  void guess(int64_t depth, size_t wanting);
  void follow(const Batch& batch);
  void add_missing_rows(const Sequence& sequence, const SequenceChunk& chunk);
  void keep_rows(Sequence& sequence, const SequenceChunk& chunk) const;
  const float* row_before(const Sequence& sequence, int64_t position) const;
  const float* passed_row(const SequenceChunk& chunk, int64_t position) const;
  void clear_step();
  void add_chunk(const Sequence& sequence, int64_t position, int64_t tokens);

  size_t width() const { return static_cast<size_t>(config_.hidden_size); }

  Step step() const { return {.token_ids = token_ids_, .chunks = chunks_, .logit_rows = logit_rows_}; }

  const ModelConfig& config_;
  const CacheLayout& layout_;
  CpuBackend& backend_;
  Decoder& decoder_;
  std::vector<Wanted> wanted_;
  std::vector<float> passed_;  // final-normed rows of the last pass [T, d]
  // The layer's next step: for each row its token and the row that the token follows.
  std::vector<int32_t> token_ids_;
  std::vector<SequenceChunk> chunks_;
  std::vector<int64_t> logit_rows_;
  std::vector<float> hidden_;  // [R, d]
  std::vector<float> logits_;
};

}  // namespace lathe
