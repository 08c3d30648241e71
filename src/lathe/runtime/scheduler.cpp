#include "lathe/runtime/scheduler.h"

#include <algorithm>

namespace lathe {

void Batch::clear() {
  token_ids.clear();
  chunks.clear();
  logit_rows.clear();
  sampled.clear();
}

void Scheduler::admit() {
  while (!waiting_.empty() && waiting_.front()->cache.reserve(waiting_.front()->length_limit)) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  // The head of the queue holds nothing while it waits for the rest of its pages.
  if (!waiting_.empty()) waiting_.front()->cache.clear();
}

void Scheduler::next_batch(Batch& batch) {
  batch.clear();
  admit();
  const auto add_chunk = [&](Sequence& sequence, int64_t tokens) {
    const auto first_row = static_cast<int64_t>(batch.token_ids.size());
    const auto from = sequence.tokens.begin() + sequence.computed;
    batch.token_ids.insert(batch.token_ids.end(), from, from + tokens);
    batch.chunks.push_back({.sequence = sequence.id,
                            .first_row = first_row,
                            .tokens = tokens,
                            .position = sequence.computed,
                            .expanded_until = sequence.expanded_until,
                            .pages = sequence.cache.pages()});
    sequence.computed += tokens;
    if (sequence.computed == static_cast<int64_t>(sequence.tokens.size())) {
      batch.logit_rows.push_back(first_row + tokens - 1);
      batch.sampled.push_back(&sequence);
    }
  };
  const auto budget = [&] { return max_batch_tokens_ - static_cast<int64_t>(batch.token_ids.size()); };
  for (const bool decoding : {true, false}) {
    for (const std::unique_ptr<Sequence>& sequence : running_) {
      const int64_t rest = static_cast<int64_t>(sequence->tokens.size()) - sequence->computed;
      const bool is_decoding = sequence->computed >= sequence->prompt_tokens();
      if (is_decoding != decoding || rest == 0 || budget() == 0) continue;
      add_chunk(*sequence, std::min(rest, budget()));
    }
  }
}

std::unique_ptr<Sequence> Scheduler::remove(RequestId id) {
  const auto take = [&](auto& list) -> std::unique_ptr<Sequence> {
    const auto at = std::ranges::find_if(list, [&](const auto& s) { return s->id == id; });
    if (at == list.end()) return nullptr;
    std::unique_ptr<Sequence> sequence = std::move(*at);
    list.erase(at);
    return sequence;
  };
  std::unique_ptr<Sequence> sequence = take(running_);
  return sequence != nullptr ? std::move(sequence) : take(waiting_);
}

}  // namespace lathe
