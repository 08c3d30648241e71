#include "lathe/runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "lathe/base/rng.h"
#include "lathe/base/str.h"
#include "lathe/runtime/param_range.h"

namespace lathe {

namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

// Candidates in the order of sampling: most likely first, the lower id on ties.
bool more_likely(const std::pair<float, int32_t>& a, const std::pair<float, int32_t>& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

}  // namespace

SamplingParams default_sampling(const GenerationDefaults& defaults, std::optional<double> temperature) {
  SamplingParams params;
  params.temperature = temperature.value_or(defaults.do_sample ? defaults.temperature : 0.0);
  params.top_k = defaults.do_sample ? defaults.top_k : 0;
  params.top_p = defaults.do_sample ? defaults.top_p : 1.0;
  params.repetition_penalty = defaults.repetition_penalty;
  params.dry.multiplier = params.temperature > 0.0 ? defaults.dry_multiplier : 0.0;
  params.dry.base = defaults.dry_base.value_or(params.dry.base);
  params.dry.allowed_length = defaults.dry_allowed_length.value_or(params.dry.allowed_length);
  return params;
}

Status validate(const SamplingParams& p, int64_t vocab_size) {
  LATHE_TRY(in_range("temperature", p.temperature, 0.0, 100.0));
  LATHE_TRY(in_range("top_p", p.top_p, 0.0, 1.0));
  LATHE_TRY(in_range("min_p", p.min_p, 0.0, 1.0));
  LATHE_TRY(in_range("repetition_penalty", p.repetition_penalty, 0.01, 100.0));
  LATHE_TRY(in_range("presence_penalty", p.presence_penalty, -2.0, 2.0));
  LATHE_TRY(in_range("frequency_penalty", p.frequency_penalty, -2.0, 2.0));
  LATHE_TRY(validate(p.dry));
  if (p.top_k < 0) return Error{Errc::kInvalidArgument, str("top_k: expected 0 (off) or more, found ", p.top_k)};
  if (p.logprobs < -1 || p.logprobs > vocab_size) {
    return Error{Errc::kInvalidArgument, str("logprobs: expected 0 to ", vocab_size, ", found ", p.logprobs)};
  }
  for (const auto& [id, bias] : p.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return Error{Errc::kInvalidArgument,
                   str("logit_bias: expected token ids from 0 to ", vocab_size - 1, ", found ", id)};
    }
    LATHE_TRY(in_range("logit_bias", bias, -100.0, 100.0));
  }
  return {};
}

int32_t argmax(std::span<const float> values) {
  size_t best = 0;
  for (size_t i = 1; i < values.size(); ++i) {
    if (values[i] > values[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

double log_sum_exp(std::span<const float> values) {
  float largest = kMasked;
  for (const float v : values) largest = std::max(largest, v);
  if (largest == kMasked) return kMasked;
  double sum = 0.0;
  for (const float v : values) sum += std::exp(static_cast<double>(v) - largest);
  return largest + std::log(sum);
}

Status check_logits(std::span<const float> logits, std::string_view where) {
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] < std::numeric_limits<float>::infinity()) continue;
    return Error{Errc::kInvalidData,
                 str("logits: expected finite values, found ",
                     std::isnan(logits[id]) ? "NaN" : "infinity",
                     " at token ",
                     id,
                     " of ",
                     where,
                     " (lathe verify names the cause)")};
  }
  return {};
}

SampledToken describe_token(std::span<const float> logits, int32_t id, int64_t top) {
  const double normaliser = log_sum_exp(logits);
  SampledToken out{.id = id, .logprob = logits[static_cast<size_t>(id)] - normaliser, .top = {}};
  const auto count = std::min<int64_t>(top, static_cast<int64_t>(logits.size()));
  if (count == 0) return out;
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(ids.begin(), ids.begin() + count, ids.end(), [&](int32_t a, int32_t b) {
    return more_likely({logits[static_cast<size_t>(a)], a}, {logits[static_cast<size_t>(b)], b});
  });
  for (const int32_t likely : std::span(ids).first(static_cast<size_t>(count))) {
    out.top.push_back({likely, logits[static_cast<size_t>(likely)] - normaliser});
  }
  return out;
}

Sampler::Sampler(SamplingParams params,
                 std::span<const int32_t> prompt,
                 const std::vector<bool>* usable,
                 TokenConstraint* constraint,
                 std::shared_ptr<const std::vector<bool>> breakers)
    : params_(std::move(params)),
      usable_(usable),
      constraint_(constraint),
      dry_(params_.dry, prompt, std::move(breakers)) {
  if (params_.repetition_penalty == 1.0) return;
  seen_.assign(prompt.begin(), prompt.end());
  std::ranges::sort(seen_);
  seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
}

void Sampler::hold_back(std::vector<int32_t> ids, int64_t until) {
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  held_back_ = std::move(ids);
  held_until_ = until;
}

void Sampler::penalise(std::span<float> logits) const {
  if (params_.repetition_penalty != 1.0) {
    for (const int32_t id : seen_) {
      float& z = logits[static_cast<size_t>(id)];
      const double factor = z > 0.0F ? 1.0 / params_.repetition_penalty : params_.repetition_penalty;
      z = static_cast<float>(z * factor);
    }
  }
  for (const auto& [id, count] : output_counts_) {
    logits[static_cast<size_t>(id)] -= static_cast<float>(params_.presence_penalty + params_.frequency_penalty * count);
  }
  dry_.apply(logits);
  for (const auto& [id, bias] : params_.logit_bias) logits[static_cast<size_t>(id)] += static_cast<float>(bias);
}

void Sampler::mask(std::span<float> logits) {
  for (size_t id = 0; usable_ != nullptr && id < logits.size(); ++id) {
    if (id >= usable_->size() || !(*usable_)[id]) logits[id] = kMasked;
  }
  if (constraint_ == nullptr) return;
  allowed_.assign((logits.size() + 63) / 64, 0);
  constraint_->allowed(allowed_);
  for (size_t id = 0; id < logits.size(); ++id) {
    if ((allowed_[id / 64] >> (id % 64) & 1) == 0) logits[id] = kMasked;
  }
}

void Sampler::mask_held_back(std::span<float> logits) const {
  std::vector<std::pair<size_t, float>> before;
  for (const int32_t id : held_back_) {
    const auto at = static_cast<size_t>(id);
    if (id < 0 || at >= logits.size()) continue;
    before.emplace_back(at, logits[at]);
    logits[at] = kMasked;
  }
  if (logits[static_cast<size_t>(argmax(logits))] != kMasked) return;
  for (const auto& [at, logit] : before) logits[at] = logit;  // there is nothing else
}

void Sampler::count(int32_t id) {
  dry_.add(id);
  if (params_.repetition_penalty != 1.0) {
    const auto at = std::ranges::lower_bound(seen_, id);
    if (at == seen_.end() || *at != id) seen_.insert(at, id);
  }
  if (params_.presence_penalty == 0.0 && params_.frequency_penalty == 0.0) return;
  const auto at = std::ranges::lower_bound(output_counts_, id, {}, &std::pair<int32_t, int32_t>::first);
  if (at != output_counts_.end() && at->first == id) {
    ++at->second;
  } else {
    output_counts_.insert(at, {id, 1});
  }
}

int32_t Sampler::draw(std::span<const float> logits, int64_t index) {
  const int32_t best = argmax(logits);
  if (params_.temperature == 0.0) return best;
  const double peak = logits[static_cast<size_t>(best)];
  if (peak == kMasked) return best;
  // Weights relative to the best token: exp((z - peak) / temperature).
  candidates_.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] == kMasked) continue;
    const auto weight = static_cast<float>(std::exp((logits[id] - peak) / params_.temperature));
    if (weight > 0.0F) candidates_.emplace_back(weight, static_cast<int32_t>(id));
  }
  const bool cuts = params_.top_k > 0 || params_.top_p < 1.0;
  if (params_.top_k > 0 && params_.top_k < static_cast<int64_t>(candidates_.size())) {
    std::nth_element(candidates_.begin(), candidates_.begin() + params_.top_k, candidates_.end(), more_likely);
    candidates_.resize(static_cast<size_t>(params_.top_k));
  }
  if (cuts) std::ranges::sort(candidates_, more_likely);
  if (params_.top_p < 1.0) {
    // The smallest set of most likely tokens whose share reaches top_p; at least one.
    double total = 0.0;
    for (const auto& c : candidates_) total += c.first;
    double share = 0.0;
    size_t keep = 0;
    while (keep < candidates_.size() && (keep == 0 || share < params_.top_p * total))
      share += candidates_[keep++].first;
    candidates_.resize(keep);
  }
  if (params_.min_p > 0.0) {
    // The best token has weight 1, so the threshold is min_p itself.
    std::erase_if(candidates_, [&](const auto& c) { return c.first < params_.min_p && c.second != best; });
  }
  double total = 0.0;
  for (const auto& c : candidates_) total += c.first;
  double rest = uniform(params_.seed, 0, static_cast<uint64_t>(index)) * total;
  for (const auto& [weight, id] : candidates_) {
    rest -= weight;
    if (rest < 0.0) return id;
  }
  return candidates_.back().second;
}

Result<SampledToken> Sampler::sample(std::span<float> logits, int64_t index) {
  LATHE_TRY(check_logits(logits, str("output ", index)));
  std::vector<float> raw;
  if (params_.logprobs >= 0) raw.assign(logits.begin(), logits.end());
  penalise(logits);
  mask(logits);
  if (index < held_until_) mask_held_back(logits);
  const int32_t id = draw(logits, index);
  if (constraint_ != nullptr && (logits[static_cast<size_t>(id)] == kMasked || !constraint_->accept(id))) {
    return Error{Errc::kInvalidData,
                 str("constraint: expected a token that may come next at output ", index, ", found none")};
  }
  count(id);
  if (params_.logprobs < 0) return SampledToken{.id = id, .logprob = 0.0, .top = {}};
  return describe_token(raw, id, params_.logprobs);
}

}  // namespace lathe
