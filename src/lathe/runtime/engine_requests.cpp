// Requests from submit() to their end.
#include <algorithm>
#include <utility>

#include "lathe/base/check.h"
#include "lathe/base/clock.h"
#include "lathe/runtime/engine_state.h"

namespace lathe {

namespace {

// True while callbacks may run, also when one of them throws.
class SteppingScope {
 public:
  explicit SteppingScope(bool& stepping) : stepping_(stepping) { stepping_ = true; }

  SteppingScope(const SteppingScope&) = delete;
  SteppingScope& operator=(const SteppingScope&) = delete;

  ~SteppingScope() { stepping_ = false; }

 private:
  bool& stepping_;
};

// Some of the prompt is computed: tells the listener; false to cancel.
bool tell_prompt(const Sequence& sequence) {
  if (!sequence.request.on_prompt) return true;
  return sequence.request.on_prompt({.done = sequence.computed,
                                     .cached = sequence.completion.cached_prompt_tokens,
                                     .total = sequence.prompt_tokens(),
                                     .seconds = now_seconds() - sequence.submitted_at - sequence.completion.queued_s});
}

}  // namespace

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "length";
}

Status Engine::State::check(const Request& request) const {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt == 0) return Error{Errc::kInvalidArgument, "prompt: expected at least one token, found none"};
  for (const int32_t id : request.prompt) {
    if (id < 0 || id >= config.vocab_size) {
      return Error{Errc::kInvalidArgument,
                   str("prompt: expected token ids from 0 to ", config.vocab_size - 1, ", found ", id)};
    }
  }
  if (prompt > context) {
    return Error{Errc::kInvalidArgument,
                 str("prompt: expected at most ", context, " tokens (the context size), found ", prompt)};
  }
  if (request.max_tokens < -1) {
    return Error{Errc::kInvalidArgument, str("max_tokens: expected -1 (no limit) or more, found ", request.max_tokens)};
  }
  if (request.min_tokens < 0) {
    return Error{Errc::kInvalidArgument, str("min_tokens: expected 0 or more, found ", request.min_tokens)};
  }
  if (request.max_tokens >= 0 && request.min_tokens > request.max_tokens) {
    return Error{Errc::kInvalidArgument,
                 str("min_tokens: expected at most max_tokens, ", request.max_tokens, ", found ", request.min_tokens)};
  }
  if (request.prompt_logprobs < -1 || request.prompt_logprobs > config.vocab_size) {
    return Error{
        Errc::kInvalidArgument,
        str("prompt_logprobs: expected -1 (none) to ", config.vocab_size, ", found ", request.prompt_logprobs)};
  }
  if (request.draft_tokens < -1 || request.draft_tokens > kMostDraftTokens) {
    return Error{Errc::kInvalidArgument,
                 str("draft_tokens: expected -1 (default) to ", kMostDraftTokens, ", found ", request.draft_tokens)};
  }
  return validate(request.sampling, config.vocab_size);
}

// Most tokens of prompt and output. Without max_tokens both the context and the cache limit it.
int64_t Engine::State::length_limit(const Request& request) const {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t room = context - prompt;
  if (request.max_tokens >= 0) return prompt + std::min(request.max_tokens, room);
  return std::max(prompt, std::min(context, pages->pages() * kPageTokens));
}

// Requests want the same ones as a rule, and looking through a vocabulary takes milliseconds.
std::shared_ptr<const std::vector<bool>> Engine::State::breakers(const DryParams& dry) {
  if (dry.multiplier == 0.0) return nullptr;
  if (breaker_tokens == nullptr || breaker_texts != dry.breakers) {
    breaker_texts = dry.breakers;
    breaker_tokens =
        std::make_shared<const std::vector<bool>>(tokens_with(tokenizer ? &*tokenizer : nullptr, breaker_texts));
  }
  return breaker_tokens;
}

Result<RequestId> Engine::submit(Request request, OnFinished on_finished) {
  State& s = *state_;
  LATHE_TRY(s.check(request));
  const int64_t limit = s.length_limit(request);
  // Alone it must fit, or it could neither run nor let the others behind it.
  if (pages_for(limit) > s.pages->pages()) {
    return Error{Errc::kInvalidArgument,
                 str("prompt and max_tokens: expected at most ",
                     s.pages->pages() * kPageTokens,
                     " tokens together (the cache), found ",
                     limit)};
  }
  const RequestId id = s.next_id++;
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const bool has_forms = s.config.attention == AttentionKind::kMla;
  const int64_t drafts = request.draft_tokens < 0 ? s.draft_tokens : request.draft_tokens;
  request.draft_tokens = drafts;
  Sampler sampler(request.sampling,
                  request.prompt,
                  s.usable.empty() ? nullptr : &s.usable,
                  request.constraint.get(),
                  s.breakers(request.sampling.dry));
  std::vector<int32_t> stop_tokens = s.stop_tokens(request);
  if (request.min_tokens > 0) sampler.hold_back(stop_tokens, request.min_tokens);
  TextStream text(tokenizer(), request.stop, request.visible_special, request.min_tokens);
  auto sequence =
      std::make_unique<Sequence>(Sequence{.id = id,
                                          .request = std::move(request),
                                          .on_finished = std::move(on_finished),
                                          .sampler = std::move(sampler),
                                          .text = std::move(text),
                                          .cache = SequenceCache(*s.pages),
                                          .stop_tokens = std::move(stop_tokens),
                                          .length_limit = limit,
                                          .expanded_until = has_forms ? canonical_expanded_until(prompt) : 0,
                                          .draft_window = drafts,
                                          .submitted_at = now_seconds()});
  sequence->tokens = sequence->request.prompt;
  sequence->completion.prompt_tokens = prompt;
  sequence->completion.drafter = s.drafter->kind();
  if (sequence->request.prompt_logprobs >= 0) {
    sequence->completion.prompt_logprobs.push_back({.id = sequence->tokens.front(), .logprob = 0.0, .top = {}});
  }
  s.scheduler->add(std::move(sequence));
  return id;
}

void Engine::cancel(RequestId id) {
  State& s = *state_;
  if (s.stepping) {
    s.cancelled.push_back(id);
    return;
  }
  const std::unique_ptr<Sequence> sequence = s.scheduler->remove(id);
  if (sequence == nullptr) return;
  sequence->completion.finish_reason = FinishReason::kCancelled;
  if (sequence->first_token_at > 0.0) sequence->completion.decode_s = now_seconds() - sequence->first_token_at;
  if (sequence->on_finished) sequence->on_finished(id, std::move(sequence->completion));
}

bool Engine::State::is_cancelled(RequestId id) const {
  return std::ranges::find(cancelled, id) != cancelled.end();
}

std::vector<int32_t> Engine::State::eos_ids() const {
  std::vector<int32_t> out;
  for (const std::vector<int64_t>* ids : {&config.eos_token_ids, &defaults.eos_token_ids}) {
    for (const int64_t id : *ids) {
      if (id >= 0 && id < config.vocab_size) out.push_back(static_cast<int32_t>(id));
    }
  }
  if (tokenizer && tokenizer->eos_id()) out.push_back(*tokenizer->eos_id());
  return out;
}

std::vector<int32_t> Engine::eos_ids() const {
  return state_->eos_ids();
}

std::vector<int32_t> Engine::State::stop_tokens(const Request& request) const {
  std::vector<int32_t> out = request.ignore_eos ? std::vector<int32_t>() : eos_ids();
  out.insert(out.end(), request.stop_token_ids.begin(), request.stop_token_ids.end());
  return out;
}

std::unique_ptr<Sequence> Engine::State::take_out(RequestId id) {
  std::unique_ptr<Sequence> sequence = scheduler->remove(id);
  const auto entry = std::ranges::find(batch.entries, sequence.get(), &BatchEntry::sequence);
  if (entry != batch.entries.end()) entry->sequence = nullptr;
  return sequence;
}

void Engine::State::fail(RequestId id, Error error) {
  const std::unique_ptr<Sequence> sequence = take_out(id);
  if (sequence->on_finished) sequence->on_finished(id, std::move(error));
}

void Engine::State::finish(Sequence& sequence, FinishReason reason, std::string stop_reason) {
  const std::unique_ptr<Sequence> owned = take_out(sequence.id);
  Completion& completion = owned->completion;
  completion.finish_reason = reason;
  completion.stop_reason = std::move(stop_reason);
  completion.decode_s = owned->first_token_at > 0.0 ? now_seconds() - owned->first_token_at : 0.0;
  if (owned->on_finished) owned->on_finished(owned->id, std::move(completion));
}

void Engine::State::first_token(Sequence& sequence) {
  if (sequence.first_token_at != 0.0) return;
  sequence.first_token_at = now_seconds();
  sequence.completion.prefill_s = sequence.first_token_at - sequence.submitted_at;
  totals.prompt_tokens += sequence.completion.prompt_tokens;
  totals.cached_prompt_tokens += sequence.completion.cached_prompt_tokens;
}

// Adds a sampled token to its sequence, tells the listener, and ends the request where a reason to end is met.
bool Engine::State::take_token(Sequence& sequence, const SampledToken& token) {
  const auto end = [&](FinishReason reason, std::string stop_reason) {
    finish(sequence, reason, std::move(stop_reason));
    return false;
  };
  const bool is_stop_token = std::ranges::find(sequence.stop_tokens, token.id) != sequence.stop_tokens.end();
  const auto emit = [&](const std::string& text) {
    sequence.completion.text += text;
    return !sequence.request.on_token ||
           sequence.request.on_token({token, text, is_stop_token, sequence.completion.prompt_logprobs});
  };
  ++totals.generated_tokens;
  ++sequence.completion.completion_tokens;
  if (is_stop_token) {
    const std::string rest = sequence.text.finish();
    if (!rest.empty()) emit(rest);
    return end(FinishReason::kStop, str("token ", token.id));
  }
  sequence.tokens.push_back(token.id);
  sequence.completion.tokens.push_back(token);
  std::string text = sequence.text.push(token.id);
  const bool at_limit = static_cast<int64_t>(sequence.tokens.size()) >= sequence.length_limit;
  const bool complete = sequence.request.constraint != nullptr && sequence.request.constraint->finished();
  const bool stopped = sequence.text.stopped();
  if ((at_limit || complete) && !stopped) text += sequence.text.finish();
  const bool go_on = emit(text);
  if (stopped) return end(FinishReason::kStop, "stop string");
  if (!go_on) return end(FinishReason::kCancelled, {});
  if (complete) return end(FinishReason::kStop, "constraint");
  if (at_limit) return end(FinishReason::kLength, {});
  return true;
}

// `row` has the logits of the prompt token before the next one that has no log-probability yet.
Status Engine::State::take_prompt_logprob(Sequence& sequence, std::span<const float> row) {
  std::vector<SampledToken>& done = sequence.completion.prompt_logprobs;
  LATHE_TRY(check_logits(row, str("prompt token ", done.size() - 1)));
  done.push_back(describe_token(row, sequence.tokens[done.size()], sequence.request.prompt_logprobs));
  return {};
}

// The rows of one sequence: first those that only the prompt's log-probabilities need, then the one after its last
// token, whose choice is output, then those after its drafts. Each is sampled as if it had been computed alone, and
// counts as long as the draft before it is what was sampled; so drafts change how many tokens a step gives, never
// which.
void Engine::State::answer(const BatchEntry& entry) {
  Sequence& sequence = *entry.sequence;
  const auto drafts = static_cast<int64_t>(sequence.drafts.size());
  sequence.completion.draft_tokens += drafts;
  totals.draft_tokens += drafts;
  if (sequence.first_token_at == 0.0 && sequence.uncomputed() > 0 && !tell_prompt(sequence)) {
    return finish(sequence, FinishReason::kCancelled, {});
  }
  size_t accepted = 0;
  for (int64_t i = 0; i < entry.logits; ++i) {
    const std::span<float> row = logit_row(entry.first_logits + i);
    if (sequence.wants_prompt_logprobs()) {
      if (Status status = take_prompt_logprob(sequence, row); !status) return fail(sequence.id, status.error());
      continue;
    }
    first_token(sequence);
    if (static_cast<int64_t>(sequence.tokens.size()) >= sequence.length_limit) {
      return finish(sequence, FinishReason::kLength, {});  // no new tokens wanted, or a prompt that fills the context
    }
    Result<SampledToken> token = sequence.sampler.sample(row, static_cast<int64_t>(sequence.completion.tokens.size()));
    if (!token) return fail(sequence.id, std::move(token).error());
    const bool guessed = accepted < sequence.drafts.size() && sequence.drafts[accepted] == token->id;
    if (guessed) {
      ++accepted;
      ++sequence.completion.accepted_draft_tokens;
      ++totals.accepted_draft_tokens;
    }
    if (!take_token(sequence, *token)) return;
    if (!guessed || is_cancelled(sequence.id)) break;
    ++sequence.computed;  // the row of the draft is that of the token
  }
  if (drafts > 0) sequence.learn_from_drafts(accepted);
}

bool Engine::step() {
  State& s = *state_;
  s.scheduler->next_batch(s.batch);
  if (s.batch.token_ids.empty()) return !s.scheduler->idle();
  ++s.totals.steps;
  const double now = now_seconds();
  for (const BatchEntry& entry : s.batch.entries) {
    Sequence& sequence = *entry.sequence;
    if (std::exchange(sequence.started, true)) continue;
    sequence.completion.queued_s = now - sequence.submitted_at;
  }
  s.logits.resize(s.batch.logit_rows.size() * static_cast<size_t>(s.config.vocab_size));
  s.decoder->forward(s.batch.step(), s.logits.data(), nullptr);
  for (const BatchEntry& entry : s.batch.entries) s.scheduler->commit(entry);
  s.drafter->after_pass(s.batch);
  {
    const SteppingScope scope(s.stepping);
    for (const BatchEntry& entry : s.batch.entries) {
      if (!s.is_cancelled(entry.sequence->id)) s.answer(entry);
    }
  }
  s.drafter->after_answers(s.batch);
  for (const RequestId id : std::exchange(s.cancelled, {})) cancel(id);
  return !s.scheduler->idle();
}

Result<Completion> Engine::generate(Request request) {
  std::optional<Result<Completion>> outcome;
  LATHE_TRY(
      submit(std::move(request), [&](RequestId, Result<Completion> result) { outcome.emplace(std::move(result)); }));
  while (!outcome && step()) {
  }
  LATHE_CHECK(outcome.has_value());
  return *std::move(outcome);
}

}  // namespace lathe
