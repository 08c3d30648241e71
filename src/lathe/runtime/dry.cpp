#include "lathe/runtime/dry.h"

#include <algorithm>
#include <cmath>

#include "lathe/base/str.h"
#include "lathe/runtime/param_range.h"

namespace lathe {
namespace {

constexpr double kMaxPenalty = 1e30;  // finite in fp32

Status whole_in_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return Error{Errc::kInvalidArgument, str(name, ": expected an integer from ", low, " to ", high, ", found ", value)};
}

bool is_breaker(const std::vector<bool>& breakers, int32_t id) {
  return static_cast<size_t>(id) < breakers.size() && breakers[static_cast<size_t>(id)];
}

// z[i]: length of the longest common prefix of `text` and text[i..] (D. Gusfield 1997, section 1.4); z[0] is 0.
std::vector<int64_t> common_prefixes(std::span<const int32_t> text) {
  const auto n = static_cast<int64_t>(text.size());
  const auto at = [&](int64_t i) { return text[static_cast<size_t>(i)]; };
  std::vector<int64_t> z(text.size());
  int64_t left = 0;  // text[left, right) is the match that reaches furthest
  int64_t right = 0;
  for (int64_t i = 1; i < n; ++i) {
    int64_t length = i < right ? std::min(right - i, z[static_cast<size_t>(i - left)]) : 0;
    while (i + length < n && at(length) == at(i + length)) ++length;
    z[static_cast<size_t>(i)] = length;
    if (i + length > right) {
      left = i;
      right = i + length;
    }
  }
  return z;
}

}  // namespace

Status validate(const DryParams& p) {
  LATHE_TRY(in_range("dry_multiplier", p.multiplier, 0.0, kMaxDryMultiplier));
  LATHE_TRY(in_range("dry_base", p.base, 1.0, kMaxDryBase));
  LATHE_TRY(whole_in_range("dry_allowed_length", p.allowed_length, 1, kMaxDryLength));
  LATHE_TRY(whole_in_range("dry_penalty_last_n", p.last_n, -1, INT64_MAX));
  if (std::ssize(p.breakers) > kMaxDryBreakers) {
    return Error{Errc::kInvalidArgument,
                 str("dry_sequence_breakers: expected at most ", kMaxDryBreakers, " texts, found ", p.breakers.size())};
  }
  if (std::ranges::any_of(p.breakers, &std::string::empty)) {
    return Error{Errc::kInvalidArgument,
                 "dry_sequence_breakers: expected texts that are not empty, found an empty one"};
  }
  return {};
}

std::vector<bool> tokens_with(const Tokenizer* tokenizer, std::span<const std::string> texts) {
  std::vector<bool> out;
  if (tokenizer == nullptr || texts.empty()) return out;
  out.resize(static_cast<size_t>(tokenizer->vocabulary_size()));
  for (size_t id = 0; id < out.size(); ++id) {
    const std::string bytes = tokenizer->token_bytes(static_cast<int32_t>(id));
    out[id] =
        std::ranges::any_of(texts, [&](const std::string& text) { return bytes.find(text) != std::string::npos; });
  }
  return out;
}

std::vector<Repetition> repetitions(std::span<const int32_t> history,
                                    const std::vector<bool>& breakers,
                                    int64_t least) {
  std::vector<int32_t> backwards(history.rbegin(), history.rend());
  const auto broken = std::ranges::find_if(backwards, [&](int32_t id) { return is_breaker(breakers, id); });
  const int64_t limit = broken - backwards.begin();
  std::vector<Repetition> out;
  if (limit < least) return out;
  const std::vector<int64_t> z = common_prefixes(backwards);
  for (size_t i = 1; i < backwards.size(); ++i) {
    const int64_t length = std::min(z[i], limit);
    const int32_t next = backwards[i - 1];
    if (length >= least && !is_breaker(breakers, next)) out.push_back({.id = next, .length = length});
  }
  // The longest of each token.
  std::ranges::sort(
      out, [](const Repetition& a, const Repetition& b) { return a.id != b.id ? a.id < b.id : a.length > b.length; });
  const auto same = [](const Repetition& a, const Repetition& b) { return a.id == b.id; };
  out.erase(std::unique(out.begin(), out.end(), same), out.end());
  return out;
}

DryPenalty::DryPenalty(DryParams params,
                       std::span<const int32_t> prompt,
                       std::shared_ptr<const std::vector<bool>> breakers)
    : params_(std::move(params)), breakers_(std::move(breakers)) {
  if (params_.multiplier > 0.0) history_.assign(prompt.begin(), prompt.end());
}

void DryPenalty::add(int32_t id) {
  if (params_.multiplier > 0.0) history_.push_back(id);
}

void DryPenalty::apply(std::span<float> logits) const {
  if (params_.multiplier == 0.0) return;
  std::span<const int32_t> seen = history_;
  if (params_.last_n >= 0) seen = seen.last(std::min(seen.size(), static_cast<size_t>(params_.last_n)));
  const std::vector<bool> none;
  for (const Repetition& found : repetitions(seen, breakers_ == nullptr ? none : *breakers_, params_.allowed_length)) {
    const auto beyond = static_cast<double>(found.length - params_.allowed_length);
    const double penalty = std::min(params_.multiplier * std::pow(params_.base, beyond), kMaxPenalty);
    logits[static_cast<size_t>(found.id)] -= static_cast<float>(penalty);
  }
}

}  // namespace lathe
