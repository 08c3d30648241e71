#include "lathe/runtime/mtp_drafter.h"

#include <algorithm>
#include <cstring>

#include "lathe/base/check.h"

namespace lathe {

int64_t MtpDrafter::plan(Sequence& sequence, int64_t most) {
  wanted_.push_back({.sequence = &sequence, .count = most});
  return most;
}

void MtpDrafter::clear_step() {
  token_ids_.clear();
  chunks_.clear();
  logit_rows_.clear();
}

// Positions [position, position + tokens) of the layer; the caller adds their tokens.
void MtpDrafter::add_chunk(const Sequence& sequence, int64_t position, int64_t tokens) {
  chunks_.push_back({.sequence = sequence.id,
                     .first_row = static_cast<int64_t>(token_ids_.size()),
                     .tokens = tokens,
                     .position = position,
                     .expanded_until = 0,
                     .pages = sequence.cache.pages()});
}

// The final-normed row of the token before `position`, of a step before: the last one of a page is in the page, where
// whoever shares it finds it too, any other in the sequence.
const float* MtpDrafter::row_before(const Sequence& sequence, int64_t position) const {
  if (position % kPageTokens != 0) return sequence.last_row.data();
  const std::byte* page = sequence.cache.pages()[static_cast<size_t>(position / kPageTokens - 1)];
  return reinterpret_cast<const float*>(page + layout_.tail_offset());
}

const float* MtpDrafter::passed_row(const SequenceChunk& chunk, int64_t position) const {
  return passed_.data() + static_cast<size_t>(chunk.first_row + position - chunk.position) * width();
}

void MtpDrafter::draft() {
  // Those with the most guesses first, so that the ones that still want some are the first ones.
  std::ranges::stable_sort(wanted_, std::ranges::greater(), &Wanted::count);
  hidden_.clear();
  for (const Wanted& wanted : wanted_) {
    Sequence& sequence = *wanted.sequence;
    LATHE_CHECK(sequence.uncomputed() == 1, sequence.uncomputed());
    const float* row = row_before(sequence, sequence.computed);
    hidden_.insert(hidden_.end(), row, row + width());
    sequence.mtp_rows = sequence.computed + 1;
  }
  for (int64_t depth = 0;; ++depth) {
    const auto wanting = std::ranges::count_if(wanted_, [&](const Wanted& wanted) { return wanted.count > depth; });
    if (wanting == 0) break;
    guess(depth, static_cast<size_t>(wanting));
  }
  wanted_.clear();
}

// One guess more for the first `wanting` sequences, which have `depth` each. hidden_ has the rows before their last
// tokens and gets the layer's own.
void MtpDrafter::guess(int64_t depth, size_t wanting) {
  clear_step();
  for (size_t i = 0; i < wanting; ++i) {
    const Sequence& sequence = *wanted_[i].sequence;
    add_chunk(sequence, sequence.computed + depth, 1);
    token_ids_.push_back(depth == 0 ? sequence.tokens.back() : sequence.drafts.back());
    logit_rows_.push_back(static_cast<int64_t>(i));
  }
  const auto vocab = static_cast<size_t>(config_.vocab_size);
  logits_.resize(wanting * vocab);
  decoder_.forward_mtp(backend_, step(), hidden_.data(), logits_.data());
  decoder_.read_normed(hidden_.data());
  for (size_t i = 0; i < wanting; ++i) {
    wanted_[i].sequence->drafts.push_back(argmax(std::span(logits_).subspan(i * vocab, vocab)));
  }
}

void MtpDrafter::after_pass(const Batch& batch) {
  passed_.resize(batch.token_ids.size() * width());
  decoder_.read_normed(passed_.data());
  follow(batch);
}

void MtpDrafter::after_answers(const Batch& batch) {
  follow(batch);
}

// Gives the layer the rows of all computed positions, whether or not this request wants guesses: its pages may be
// shared. The row of the newest token is left to draft().
void MtpDrafter::follow(const Batch& batch) {
  clear_step();
  hidden_.clear();
  for (size_t i = 0; i < batch.entries.size(); ++i) {
    Sequence* sequence = batch.entries[i].sequence;
    if (sequence == nullptr) continue;
    add_missing_rows(*sequence, batch.chunks[i]);
    keep_rows(*sequence, batch.chunks[i]);
    sequence->mtp_rows = std::max(sequence->mtp_rows, sequence->computed);
  }
  if (!token_ids_.empty()) decoder_.store_mtp(backend_, step(), hidden_.data());
}

void MtpDrafter::add_missing_rows(const Sequence& sequence, const SequenceChunk& chunk) {
  const int64_t begin = std::max<int64_t>(sequence.mtp_rows, 1);  // position 0 has none
  const int64_t end = sequence.computed;
  if (begin >= end) return;
  LATHE_CHECK(begin >= chunk.position, begin, " < ", chunk.position);
  add_chunk(sequence, begin, end - begin);
  for (int64_t position = begin; position < end; ++position) {
    token_ids_.push_back(sequence.tokens[static_cast<size_t>(position)]);
    const float* row = position == chunk.position ? row_before(sequence, position) : passed_row(chunk, position - 1);
    hidden_.insert(hidden_.end(), row, row + width());
  }
}

// Keeps the row of the last computed token, and in every page that is full its last one.
void MtpDrafter::keep_rows(Sequence& sequence, const SequenceChunk& chunk) const {
  const int64_t end = sequence.computed;
  for (int64_t page = chunk.position / kPageTokens; (page + 1) * kPageTokens <= end; ++page) {
    std::memcpy(sequence.cache.pages()[static_cast<size_t>(page)] + layout_.tail_offset(),
                passed_row(chunk, (page + 1) * kPageTokens - 1),
                width() * sizeof(float));
  }
  const float* last = passed_row(chunk, end - 1);
  sequence.last_row.assign(last, last + width());
}

}  // namespace lathe
