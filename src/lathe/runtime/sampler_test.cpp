// Each filter against brute force over the definition; determinism, distribution, penalties, log-probabilities, errors.
#include "lathe/runtime/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "lathe/base/rng.h"
#include "lathe/base/str.h"

namespace lathe {
namespace {

using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int32_t sample_one(const SamplingParams& params,
                   std::vector<float> logits,
                   int64_t index = 0,
                   const std::vector<bool>* usable = nullptr) {
  Sampler sampler(params, {}, usable);
  const Result<SampledToken> token = sampler.sample(logits, index);
  EXPECT_TRUE(token.has_value()) << (token ? "" : token.error().message);
  return token ? token->id : -1;
}

// How often each id comes out, over output positions 0 .. draws - 1.
std::map<int32_t, int> histogram(const SamplingParams& params,
                                 const std::vector<float>& logits,
                                 int draws,
                                 const std::vector<bool>* usable = nullptr) {
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sample_one(params, logits, i, usable)];
  return counts;
}

TEST(Argmax, TakesTheLowestIdOfTheLargest) {
  EXPECT_EQ(argmax(std::vector<float>{1.0F, 3.0F, 3.0F, 2.0F}), 1);
  EXPECT_EQ(argmax(std::vector<float>{-kInfinity, -kInfinity}), 0);
  EXPECT_EQ(argmax(std::vector<float>{-kInfinity, -5.0F}), 1);
}

TEST(LogSumExp, IsStableAndTakesInfinities) {
  EXPECT_NEAR(log_sum_exp(std::vector<float>{1000.0F, 1000.0F}), 1000.0 + std::log(2.0), 1e-9);
  EXPECT_NEAR(log_sum_exp(std::vector<float>{-kInfinity, -2.0F}), -2.0, 1e-12);
  EXPECT_EQ(log_sum_exp(std::vector<float>{-kInfinity}), -kInfinity);
}

TEST(DefaultSampling, IsTheModelsAndGreedyWithoutPenaltyAtTemperatureZero) {
  GenerationDefaults defaults;
  defaults.temperature = 0.6;
  defaults.top_p = 0.9;
  defaults.dry_multiplier = 0.8;
  EXPECT_EQ(default_sampling(defaults).temperature, 0.0) << "do_sample is false";
  EXPECT_EQ(default_sampling(defaults).dry.multiplier, 0.0);
  defaults.do_sample = true;
  EXPECT_EQ(default_sampling(defaults).temperature, 0.6);
  EXPECT_EQ(default_sampling(defaults).dry.multiplier, 0.8);
  EXPECT_EQ(default_sampling(defaults, 1.5).temperature, 1.5);
  EXPECT_EQ(default_sampling(defaults, 1.5).dry.multiplier, 0.8);
  EXPECT_EQ(default_sampling(defaults, 0.0).temperature, 0.0);
  EXPECT_EQ(default_sampling(defaults, 0.0).dry.multiplier, 0.0);
}

TEST(Sampler, TemperatureZeroIsGreedyWithTiesToTheLowestId) {
  const SamplingParams greedy{.temperature = 0.0, .seed = 99};
  EXPECT_EQ(sample_one(greedy, {0.5F, 2.0F, 2.0F, 2.0F}), 1);
  EXPECT_EQ(sample_one(greedy, {-1.0F, -3.0F}), 0);
}

TEST(Sampler, TinyAndHugeTemperaturesStayFinite) {
  const std::vector<float> logits{1.0F, 1.5F, -2.0F};
  for (int i = 0; i < 50; ++i) EXPECT_EQ(sample_one({.temperature = 1e-300, .seed = 3}, logits, i), 1);
  EXPECT_EQ(histogram({.temperature = 100.0, .seed = 3}, logits, 300).size(), 3u);
}

TEST(Sampler, SameSeedAndPositionGiveTheSameToken) {
  Rng rng(4);
  std::vector<float> logits(100);
  for (float& z : logits) z = static_cast<float>(rng.next_normal());
  std::vector<int32_t> first, second, other;
  for (int i = 0; i < 40; ++i) {
    first.push_back(sample_one({.seed = 11}, logits, i));
    other.push_back(sample_one({.seed = 12}, logits, i));
  }
  for (int i = 39; i >= 0; --i) second.insert(second.begin(), sample_one({.seed = 11}, logits, i));
  EXPECT_EQ(first, second) << "what was drawn before does not matter";
  EXPECT_NE(first, other);
  EXPECT_GT(std::set<int32_t>(first.begin(), first.end()).size(), 10u) << "positions draw independently";
}

// Pearson's statistic of 20,000 draws over 8 tokens: above 24.3 in one of a thousand seeds if the distribution is
// right.
TEST(Sampler, DrawsFollowTheDistribution) {
  const std::vector<float> logits{0.0F, 1.0F, -1.0F, 2.0F, 0.5F, 0.5F, -2.0F, 1.5F};
  for (const double temperature : {0.6, 1.0, 1.7}) {
    double total = 0.0;
    std::vector<double> p;
    for (const float z : logits) p.push_back(std::exp(z / temperature)), total += p.back();
    const int draws = 20000;
    std::map<int32_t, int> counts = histogram({.temperature = temperature, .seed = 5}, logits, draws);
    double chi_square = 0.0;
    for (size_t i = 0; i < p.size(); ++i) {
      const double expected = draws * p[i] / total;
      chi_square += std::pow(counts[static_cast<int32_t>(i)] - expected, 2.0) / expected;
    }
    EXPECT_LT(chi_square, 24.3) << temperature;
  }
}

// The ids that may come out, by the definitions: top-k, then top-p, then min-p, most likely first, lower id on ties.
std::set<int32_t> allowed(const SamplingParams& params, const std::vector<float>& logits) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  std::vector<double> p;
  for (const int32_t id : order) {
    p.push_back(
        std::exp((logits[static_cast<size_t>(id)] - logits[static_cast<size_t>(order[0])]) / params.temperature));
  }
  size_t keep = order.size();
  if (params.top_k > 0) keep = std::min(keep, static_cast<size_t>(params.top_k));
  if (params.top_p < 1.0) {
    const double total = std::accumulate(p.begin(), p.begin() + static_cast<int64_t>(keep), 0.0);
    double share = 0.0;
    for (size_t n = 0; n < keep; ++n) {
      share += p[n];
      if (share >= params.top_p * total) keep = n + 1;
    }
  }
  std::set<int32_t> out;
  for (size_t n = 0; n < keep; ++n) {
    if (n == 0 || p[n] >= params.min_p) out.insert(order[n]);
  }
  return out;
}

TEST(Sampler, FiltersKeepExactlyWhatTheyShould) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Rng rng(seed);
    std::vector<float> logits(static_cast<size_t>(rng.next_int(1, 9)));
    // Steps of a half: ties are common, and every kept token is drawn within a few thousand draws.
    for (float& z : logits) z = static_cast<float>(rng.next_int(-3, 2)) * 0.5F;
    SamplingParams params{.temperature = 1.0 + rng.next_uniform(), .seed = seed};
    if (rng.next_int(0, 1) == 1) params.top_k = rng.next_int(1, 8);
    if (rng.next_int(0, 1) == 1) params.top_p = 0.05 + 0.9 * rng.next_uniform();
    if (rng.next_int(0, 1) == 1) params.min_p = rng.next_uniform();
    std::set<int32_t> seen;
    for (const auto& [id, count] : histogram(params, logits, 3000)) seen.insert(id);
    EXPECT_EQ(seen, allowed(params, logits))
        << str("seed ", seed, ": top_k ", params.top_k, ", top_p ", params.top_p, ", min_p ", params.min_p);
  }
}

TEST(Sampler, TopPOfZeroAndTopKOfOneAreGreedy) {
  const std::vector<float> logits{1.0F, 2.0F, 2.0F, 0.0F};
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(sample_one({.top_p = 0.0}, logits, i), 1);
    EXPECT_EQ(sample_one({.top_k = 1}, logits, i), 1);
    EXPECT_NE(sample_one({.min_p = 1.0}, logits, i), 3);
  }
}

TEST(Sampler, IdsWithoutATokenNeverComeOut) {
  std::vector<bool> usable(6, true);
  usable[2] = false;
  const std::vector<float> logits{0.0F, 0.0F, 50.0F, 0.0F, 0.0F, 0.0F, 50.0F, 50.0F};  // two rows beyond the tokenizer
  EXPECT_EQ(sample_one({.temperature = 0.0}, logits, 0, &usable), 0);
  for (const auto& [id, count] : histogram({.seed = 8}, logits, 500, &usable)) {
    EXPECT_LT(id, 6);
    EXPECT_NE(id, 2);
  }
  // Not even by a bias.
  EXPECT_NE(sample_one({.temperature = 0.0, .logit_bias = {{2, 100.0}, {7, 100.0}}}, logits, 0, &usable), 2);
}

TEST(Sampler, RepetitionPenaltyCoversPromptAndOutputOnce) {
  const std::vector<int32_t> prompt{1, 1, 3};
  Sampler sampler({.temperature = 0.0, .repetition_penalty = 2.0}, prompt, nullptr);
  // 4 / 2 < 3; a negative logit is multiplied.
  std::vector<float> logits{3.0F, 4.0F, 0.0F, -1.0F};
  EXPECT_EQ(sampler.sample(logits, 0)->id, 0);
  EXPECT_EQ(logits[1], 2.0F) << "twice in the prompt counts once";
  EXPECT_EQ(logits[3], -2.0F);
  EXPECT_EQ(logits[2], 0.0F);
  logits = {3.0F, 4.0F, 1.9F, -1.0F};  // now 0 is part of the output: 1.5, 2, 1.9, -2
  EXPECT_EQ(sampler.sample(logits, 1)->id, 1);
  EXPECT_EQ(logits[0], 1.5F);
}

TEST(Sampler, PresenceAndFrequencyPenaltiesCountTheOutputAlone) {
  const std::vector<int32_t> prompt{0, 0, 0};
  Sampler sampler({.temperature = 0.0, .presence_penalty = 0.5, .frequency_penalty = 0.25}, prompt, nullptr);
  const std::vector<float> fresh{2.0F, 1.0F};
  std::vector<int32_t> ids;
  std::vector<float> seen;
  for (int64_t i = 0; i < 4; ++i) {
    std::vector<float> logits = fresh;
    ids.push_back(sampler.sample(logits, i)->id);
    seen.push_back(logits[0]);
  }
  // 2, then 2 - 0.75, then 2 - 1.0 which ties with 1 and wins by its id, then 2 - 1.25.
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 0, 0, 1}));
  EXPECT_EQ(seen, (std::vector<float>{2.0F, 1.25F, 1.0F, 0.75F}));
}

TEST(Sampler, NegativePenaltiesReward) {
  Sampler sampler({.temperature = 0.0, .presence_penalty = -2.0}, {}, nullptr);
  std::vector<float> logits{1.0F, 0.9F};
  EXPECT_EQ(sampler.sample(logits, 0)->id, 0);
  logits = {0.0F, 1.9F};
  EXPECT_EQ(sampler.sample(logits, 1)->id, 0);
}

TEST(Sampler, LogitBiasIsAdded) {
  EXPECT_EQ(sample_one({.temperature = 0.0, .logit_bias = {{2, 5.0}, {0, -1.0}}}, {1.0F, 0.5F, -4.0F}), 2);
  EXPECT_EQ(sample_one({.temperature = 0.0, .logit_bias = {{1, 0.25}, {1, 0.5}}}, {1.0F, 0.5F}), 1) << "twice: both";
}

TEST(Sampler, LogprobsAreTheModelsOwnDistribution) {
  const std::vector<float> original{0.3F, 2.0F, 2.0F, -1.0F, 0.7F};
  std::vector<float> logits = original;
  // Penalties, bias and temperature move the choice and not the reported numbers.
  Sampler sampler({.temperature = 0.0, .repetition_penalty = 3.0, .logit_bias = {{3, 50.0}}, .logprobs = 5},
                  std::vector<int32_t>{1},
                  nullptr);
  const Result<SampledToken> token = sampler.sample(logits, 0);
  ASSERT_TRUE(token.has_value());
  EXPECT_EQ(token->id, 3);
  const double normaliser = log_sum_exp(original);
  EXPECT_NEAR(token->logprob, -1.0 - normaliser, 1e-6);
  ASSERT_EQ(token->top.size(), 5u);
  std::vector<int32_t> ids;
  double sum = 0.0;
  for (const TokenLogprob& t : token->top) {
    ids.push_back(t.id);
    sum += std::exp(t.logprob);
    EXPECT_NEAR(t.logprob, original[static_cast<size_t>(t.id)] - normaliser, 1e-6);
  }
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 2, 4, 0, 3})) << "best first, ties by id";
  EXPECT_NEAR(sum, 1.0, 1e-9);
}

TEST(Sampler, LogprobsAreOptional) {
  std::vector<float> logits{0.0F, 1.0F};
  EXPECT_TRUE(Sampler({.temperature = 0.0}, {}, nullptr).sample(logits, 0)->top.empty());
  logits = {0.0F, 1.0F};
  const Result<SampledToken> zero = Sampler({.temperature = 0.0, .logprobs = 0}, {}, nullptr).sample(logits, 0);
  EXPECT_TRUE(zero->top.empty());
  EXPECT_NEAR(zero->logprob, -std::log1p(std::exp(-1.0)), 1e-9);
}

TEST(Sampler, NaNAndInfinityAreErrorsThatSayWhere) {
  for (const auto& [value, name] : {std::pair{std::nanf(""), "NaN"}, std::pair{kInfinity, "infinity"}}) {
    std::vector<float> logits{0.0F, 1.0F, value};
    const Result<SampledToken> token = Sampler({}, {}, nullptr).sample(logits, 7);
    ASSERT_FALSE(token.has_value());
    EXPECT_EQ(token.error().code, Errc::kInvalidData);
    EXPECT_THAT(token.error().message,
                HasSubstr(str("logits: expected finite values, found ", name, " at token 2 of output 7")));
  }
  EXPECT_EQ(sample_one({.seed = 2}, {-kInfinity, 0.0F}), 1) << "-infinity is a masked token";
}

TEST(Validate, AcceptsTheEdgesOfEveryRange) {
  EXPECT_TRUE(validate({}, 10).has_value());
  EXPECT_TRUE(validate({.temperature = 0.0,
                        .top_k = 1000,
                        .top_p = 1.0,
                        .min_p = 1.0,
                        .repetition_penalty = 0.01,
                        .presence_penalty = -2.0,
                        .frequency_penalty = 2.0,
                        .logit_bias = {{0, -100.0}, {9, 100.0}},
                        .logprobs = 10},
                       10)
                  .has_value());
}

TEST(Validate, NamesTheFieldTheRangeAndTheValue) {
  const double nan = std::nan("");
  const std::pair<SamplingParams, const char*> cases[] = {
      {{.temperature = -0.5}, "temperature: expected a number from 0 to 100, found -0.5"},
      {{.temperature = nan}, "temperature: expected a number from 0 to 100, found nan"},
      {{.top_k = -1}, "top_k: expected 0 (off) or more, found -1"},
      {{.top_p = 1.5}, "top_p: expected a number from 0 to 1, found 1.5"},
      {{.top_p = nan}, "top_p: expected a number from 0 to 1, found nan"},
      {{.min_p = -0.1}, "min_p: expected a number from 0 to 1, found -0.1"},
      {{.repetition_penalty = 0.0}, "repetition_penalty: expected a number from 0.01 to 100, found 0"},
      {{.presence_penalty = 2.5}, "presence_penalty: expected a number from -2 to 2, found 2.5"},
      {{.frequency_penalty = -3.0}, "frequency_penalty: expected a number from -2 to 2, found -3"},
      {{.logit_bias = {{10, 1.0}}}, "logit_bias: expected token ids from 0 to 9, found 10"},
      {{.logit_bias = {{-1, 1.0}}}, "logit_bias: expected token ids from 0 to 9, found -1"},
      {{.logit_bias = {{3, 101.0}}}, "logit_bias: expected a number from -100 to 100, found 101"},
      {{.logprobs = 11}, "logprobs: expected 0 to 10, found 11"},
      {{.logprobs = -2}, "logprobs: expected 0 to 10, found -2"},
  };
  for (const auto& [params, message] : cases) {
    const Status status = validate(params, 10);
    ASSERT_FALSE(status.has_value()) << message;
    EXPECT_EQ(status.error().code, Errc::kInvalidArgument);
    EXPECT_EQ(status.error().message, message);
  }
}

TEST(Sampler, IdsHeldBackAreChosenOnlyWhereNothingElseIsLeft) {
  const auto choose = [](Sampler& sampler, int64_t index) {
    std::vector<float> logits{0.0F, 5.0F, 1.0F};
    return sampler.sample(logits, index).value().id;
  };
  Sampler sampler({.temperature = 0.0}, {}, nullptr);
  sampler.hold_back({7, 1, 1, -1}, 2);
  EXPECT_EQ(choose(sampler, 0), 2);
  EXPECT_EQ(choose(sampler, 1), 2);
  EXPECT_EQ(choose(sampler, 2), 1);
  const std::vector<bool> only_one{false, true, false};
  Sampler stuck({.temperature = 0.0}, {}, &only_one);
  stuck.hold_back({1}, 2);
  EXPECT_EQ(choose(stuck, 0), 1);
}

}  // namespace
}  // namespace lathe
