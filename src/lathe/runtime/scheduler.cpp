#include "lathe/runtime/scheduler.h"

#include <algorithm>

#include "lathe/base/check.h"

namespace lathe {

void Batch::clear() {
  token_ids.clear();
  chunks.clear();
  entries.clear();
  logit_rows.clear();
}

void Sequence::learn_from_drafts(size_t accepted) {
  if (accepted == drafts.size()) {
    draft_window = std::min(2 * draft_window, request.draft_tokens);
  } else if (accepted == 0) {
    draft_window = std::max<int64_t>(draft_window / 2, 1);
  }
}

void Sequence::give_back_pages() {
  cache.clear();
  computed = 0;
  mtp_rows = 0;
  published = 0;
  last_published = 0;
  if (first_token_at == 0.0) completion.cached_prompt_tokens = 0;
}

// Oldest first, so that a page taken from the youngest serves the oldest in need.
void Scheduler::grow() {
  for (size_t i = 0; i < running_.size(); ++i) {
    while (!running_[i]->cache.reserve(static_cast<int64_t>(running_[i]->tokens.size()))) {
      preempt_youngest();
      if (i == running_.size()) return;  // it was the youngest itself
    }
  }
}

void Scheduler::preempt_youngest() {
  std::unique_ptr<Sequence> sequence = std::move(running_.back());
  running_.pop_back();
  sequence->give_back_pages();
  ++sequence->completion.preemptions;
  ++preemptions_;
  waiting_.push_front(std::move(sequence));
}

void Scheduler::admit() {
  while (!waiting_.empty() && running() < limits_.running && take_pages(*waiting_.front())) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// Pages for all tokens that the sequence has, those with a known prefix from the prefix cache. A sequence that has to
// wait holds none.
bool Scheduler::take_pages(Sequence& sequence) {
  take_prefix(sequence);
  const auto growing =
      static_cast<int64_t>(std::ranges::count_if(running_, [](const auto& other) { return other->may_grow(); }));
  const auto tokens = static_cast<int64_t>(sequence.tokens.size());
  const int64_t needed = pages_for(tokens) - static_cast<int64_t>(sequence.cache.pages().size());
  if (needed + growing <= pool_.free_pages() + pool_.kept_pages()) {
    LATHE_CHECK(sequence.cache.reserve(tokens));
    return true;
  }
  sequence.give_back_pages();
  return false;
}

PrefixKey Scheduler::key_of(const Sequence& sequence, int64_t ids) const {
  const int64_t first = sequence.published * kPageTokens;
  return {.before = sequence.last_published,
          .scope = sequence.request.cache_scope,
          .expanded = first < sequence.expanded_until,
          .ids = std::span(sequence.tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(ids))};
}

// The rows of all tokens before `end` are there now, and the new ones cost nothing.
void Scheduler::computed_elsewhere(Sequence& sequence, int64_t end) const {
  const int64_t new_prompt_tokens = std::min(end, sequence.prompt_tokens()) - sequence.computed;
  if (sequence.first_token_at == 0.0 && new_prompt_tokens > 0) {
    sequence.completion.cached_prompt_tokens += new_prompt_tokens;
  }
  sequence.computed = end;
}

// Takes over cached pages that continue what the sequence has computed, but never the row of its last token, whose
// logits are wanted.
void Scheduler::take_prefix(Sequence& sequence) {
  if (prefixes_ == nullptr || sequence.wants_prompt_logprobs()) return;
  for (;;) {
    const int64_t page = sequence.published;
    const int64_t end = (page + 1) * kPageTokens;
    if (end >= static_cast<int64_t>(sequence.tokens.size()) || end <= sequence.computed) return;
    const CachedPage found = prefixes_->find(key_of(sequence));
    if (found.id == 0) return;
    if (page < static_cast<int64_t>(sequence.cache.pages().size())) {
      sequence.cache.share_instead(static_cast<size_t>(page), found.page);
    } else {
      sequence.cache.share(found.page);
    }
    computed_elsewhere(sequence, end);
    sequence.mtp_rows = end;
    sequence.published = page + 1;
    sequence.last_published = found.id;
  }
}

// Where the sequence leaves a cached page in its middle, copies the rows before into its own page. Looked for at the
// first row of a page only: prompts move on by more than a row at a time.
void Scheduler::copy_prefix(Sequence& sequence) {
  const int64_t first = sequence.published * kPageTokens;
  if (prefixes_ == nullptr || sequence.wants_prompt_logprobs() || sequence.computed != first ||
      sequence.uncomputed() <= 1) {
    return;
  }
  const CachedRows found = prefixes_->find_rows(key_of(sequence, std::min(kPageTokens, sequence.uncomputed() - 1)));
  if (found.rows == 0) return;
  pool_.copy_rows(found.page, sequence.cache.pages()[static_cast<size_t>(sequence.published)], found.rows);
  sequence.mtp_rows = first + found.rows;
  // Inside a page nobody keeps the row that the drafter needs: the last token is computed anew for it.
  const int64_t end = first + found.rows - (drafter_.needs_row_before() ? 1 : 0);
  if (end > first) computed_elsewhere(sequence, end);
}

void Scheduler::publish(Sequence& sequence) {
  if (prefixes_ == nullptr) return;
  while ((sequence.published + 1) * kPageTokens <= sequence.computed) {
    const auto page = static_cast<size_t>(sequence.published);
    std::byte* own = sequence.cache.pages()[page];
    const CachedPage cached = prefixes_->insert(key_of(sequence), own);
    // Somebody else computed the same meanwhile: both use one page, so that a page's predecessors are in use with it.
    if (cached.page != own) sequence.cache.share_instead(page, cached.page);
    sequence.last_published = cached.id;
    ++sequence.published;
  }
}

// Rows of the step for every running sequence: its one token, or the share of its prompt.
void Scheduler::share_out(std::vector<int64_t>& shares, int64_t budget, int64_t& extra_logits) const {
  shares.assign(running_.size(), 0);
  std::vector<size_t> prompts;  // oldest first
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i]->uncomputed() == 1) {
      shares[i] = 1;
      --budget;
    } else {
      prompts.push_back(i);
    }
  }
  const auto give = [&](size_t i, int64_t most) {
    int64_t more = std::min({running_[i]->uncomputed() - shares[i], most, budget});
    if (running_[i]->wants_prompt_logprobs()) {
      const int64_t spare = extra_logits + (shares[i] == 0 ? 1 : 0);  // every sequence has one row
      more = std::min(more, spare);
      extra_logits -= more - (shares[i] == 0 && more > 0 ? 1 : 0);
    }
    shares[i] += more;
    budget -= more;
  };
  if (prompts.empty()) return;
  give(prompts.front(), (budget + 1) / 2);
  std::ranges::stable_sort(prompts, {}, [&](size_t i) { return running_[i]->uncomputed() - shares[i]; });
  for (const size_t i : prompts) give(i, budget);
}

// Guesses for the answers, oldest first: at most `budget` and `extra_logits` in all, and of each as many as have room
// in its pages and could become output.
void Scheduler::draft(int64_t budget, int64_t extra_logits) {
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.uncomputed() != 1 || shares_[i] == 0 || sequence.first_token_at == 0.0) continue;
    const auto tokens = static_cast<int64_t>(sequence.tokens.size());
    const int64_t room = static_cast<int64_t>(sequence.cache.pages().size()) * kPageTokens - tokens;
    const int64_t most =
        std::min({sequence.draft_window, budget, extra_logits, room, sequence.length_limit - tokens - 1});
    if (most <= 0) continue;
    const int64_t planned = drafter_.plan(sequence, most);
    budget -= planned;
    extra_logits -= planned;
  }
  drafter_.draft();
}

void Scheduler::add_chunk(Batch& batch, Sequence& sequence, int64_t tokens) const {
  const auto first_row = static_cast<int64_t>(batch.token_ids.size());
  const auto drafts = static_cast<int64_t>(sequence.drafts.size());
  const auto from = sequence.tokens.begin() + sequence.computed;
  batch.token_ids.insert(batch.token_ids.end(), from, from + tokens);
  batch.token_ids.insert(batch.token_ids.end(), sequence.drafts.begin(), sequence.drafts.end());
  batch.chunks.push_back({.sequence = sequence.id,
                          .first_row = first_row,
                          .tokens = tokens + drafts,
                          .position = sequence.computed,
                          .expanded_until = sequence.expanded_until,
                          .pages = sequence.cache.pages()});
  const int64_t end = sequence.computed + tokens + drafts;
  int64_t first = tokens == sequence.uncomputed() ? end - drafts - 1 : end;
  if (sequence.wants_prompt_logprobs()) {
    // The row of token n - 1 has the logits of token n; token 0 has none.
    const auto next = static_cast<int64_t>(sequence.completion.prompt_logprobs.size());
    first = std::max(sequence.computed, next - 1);
  }
  batch.entries.push_back({.sequence = &sequence,
                           .tokens = tokens,
                           .first_logits = static_cast<int64_t>(batch.logit_rows.size()),
                           .logits = end - first,
                           .logits_position = first});
  for (int64_t position = first; position < end; ++position) {
    batch.logit_rows.push_back(first_row + position - sequence.computed);
  }
}

void Scheduler::next_batch(Batch& batch) {
  batch.clear();
  grow();
  admit();
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    sequence->drafts.clear();
    take_prefix(*sequence);  // what another request has computed since
    copy_prefix(*sequence);
  }
  int64_t extra_logits = limits_.extra_logits;
  share_out(shares_, limits_.batch_tokens, extra_logits);
  int64_t budget = limits_.batch_tokens;
  for (const int64_t share : shares_) budget -= share;
  draft(budget, extra_logits);
  for (const bool answering : {true, false}) {
    for (size_t i = 0; i < running_.size(); ++i) {
      Sequence& sequence = *running_[i];
      if ((sequence.uncomputed() == 1) == answering && shares_[i] > 0) add_chunk(batch, sequence, shares_[i]);
    }
  }
}

void Scheduler::commit(const BatchEntry& entry) {
  entry.sequence->computed += entry.tokens;
  publish(*entry.sequence);
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
