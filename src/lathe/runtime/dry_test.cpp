// The DRY penalty against brute force over its definition, and what it is for: loops end, single words stay.
#include "lathe/runtime/dry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "lathe/base/rng.h"
#include "lathe/runtime/sampler.h"

namespace lathe {
namespace {

using Lengths = std::map<int32_t, int64_t>;

Lengths found(const std::vector<int32_t>& history, const std::vector<bool>& breakers, int64_t least) {
  Lengths out;
  for (const Repetition& one : repetitions(history, breakers, least)) {
    EXPECT_TRUE(out.emplace(one.id, one.length).second) << "twice: " << one.id;
  }
  return out;
}

// Every place of the history in turn: how far back do it and the end agree?
Lengths by_definition(const std::vector<int32_t>& history, const std::vector<bool>& breakers, int64_t least) {
  const auto breaks = [&](int32_t id) {
    return static_cast<size_t>(id) < breakers.size() && breakers[static_cast<size_t>(id)];
  };
  const auto n = static_cast<int64_t>(history.size());
  const auto at = [&](int64_t i) { return history[static_cast<size_t>(i)]; };
  Lengths out;
  for (int64_t next = 1; next < n; ++next) {
    int64_t length = 0;
    while (length < next && at(next - 1 - length) == at(n - 1 - length) && !breaks(at(n - 1 - length))) ++length;
    if (length < least || breaks(at(next))) continue;
    out[at(next)] = std::max(out[at(next)], length);
  }
  return out;
}

TEST(Dry, FindsWhatTheEndRepeats) {
  // a b c d a b c: d would make it four.
  EXPECT_EQ(found({1, 2, 3, 4, 1, 2, 3}, {}, 1), (Lengths{{4, 3}}));
  EXPECT_EQ(found({1, 2, 3, 4, 1, 2, 3}, {}, 4), Lengths());
  // Two ways on, of different lengths.
  EXPECT_EQ(found({1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3}, {}, 1), (Lengths{{4, 3}, {5, 2}}));
  // A token again and again overlaps with itself.
  EXPECT_EQ(found({7, 7, 7, 7}, {}, 1), (Lengths{{7, 3}}));
  EXPECT_EQ(found({}, {}, 1), Lengths());
  EXPECT_EQ(found({3}, {}, 1), Lengths());
}

TEST(Dry, NoSequenceReachesOverABreaker) {
  std::vector<bool> breakers(10);
  breakers[2] = true;
  EXPECT_EQ(found({1, 2, 3, 4, 1, 2, 3}, breakers, 1), (Lengths{{4, 1}}));
  EXPECT_EQ(found({1, 3, 2, 1, 3}, breakers, 1), Lengths()) << "a breaker loses nothing";
  EXPECT_EQ(found({1, 2, 3, 1, 2}, breakers, 1), Lengths()) << "nothing reaches back from a breaker";
}

TEST(Dry, AgreesWithTheDefinitionOnRandomText) {
  Rng rng(20261128);
  for (int round = 0; round < 400; ++round) {
    const int64_t kinds = rng.next_int(1, 5);
    std::vector<int32_t> history(static_cast<size_t>(rng.next_int(0, 60)));
    for (int32_t& id : history) id = static_cast<int32_t>(rng.next_int(0, kinds));
    std::vector<bool> breakers(static_cast<size_t>(rng.next_int(0, 6)));
    for (size_t i = 0; i < breakers.size(); ++i) breakers[i] = rng.next_int(0, 4) == 0;
    const int64_t least = rng.next_int(1, 4);
    EXPECT_EQ(found(history, breakers, least), by_definition(history, breakers, least)) << "round " << round;
  }
}

TEST(DryPenalty, GrowsWithTheLength) {
  const std::vector<int32_t> prompt{1, 2, 3, 4, 5, 1, 2};
  DryPenalty penalty({.multiplier = 0.5, .base = 2.0, .allowed_length = 2}, prompt, nullptr);
  std::vector<float> logits(8, 10.0F);
  penalty.apply(logits);
  EXPECT_EQ(logits, (std::vector<float>{10, 10, 10, 9.5F, 10, 10, 10, 10}));
  penalty.add(3);
  logits.assign(8, 10.0F);
  penalty.apply(logits);
  EXPECT_EQ(logits, (std::vector<float>{10, 10, 10, 10, 9, 10, 10, 10}));
  penalty.add(6);  // something else: over
  logits.assign(8, 10.0F);
  penalty.apply(logits);
  EXPECT_EQ(logits, std::vector<float>(8, 10.0F));
}

TEST(DryPenalty, LooksAtTheLastTokensOnly) {
  const std::vector<int32_t> prompt{1, 2, 3, 4, 5, 1, 2};
  for (const auto& [last_n, loses] :
       {std::pair<int64_t, bool>{-1, true}, {7, true}, {100, true}, {6, false}, {0, false}}) {
    const DryPenalty penalty({.multiplier = 1.0, .last_n = last_n}, prompt, nullptr);
    std::vector<float> logits(8);
    penalty.apply(logits);
    EXPECT_EQ(logits[3] < 0.0F, loses) << last_n;
  }
}

TEST(DryPenalty, StaysFiniteAfterAnyLoop) {
  const std::vector<int32_t> prompt(4000, 1);
  const DryPenalty penalty({.multiplier = 100.0, .base = 100.0, .allowed_length = 1}, prompt, nullptr);
  std::vector<float> logits(3);
  penalty.apply(logits);
  EXPECT_TRUE(std::isfinite(logits[1]));
  EXPECT_LT(logits[1], -1e29F);
}

// A model that wants to say the same four tokens for ever.
TEST(DryPenalty, EndsLoopsOfTheSampler) {
  const auto longest_run = [](const DryParams& dry) {
    Sampler sampler({.temperature = 0.0, .dry = dry}, std::vector<int32_t>{0}, nullptr);
    std::vector<int32_t> out{0};
    for (int64_t i = 0; i < 60; ++i) {
      std::vector<float> logits{0.0F, 0.0F, 0.0F, 0.0F, 3.0F};
      logits[static_cast<size_t>((out.back() + 1) % 4)] = 6.0F;
      const Result<SampledToken> token = sampler.sample(logits, i);
      EXPECT_TRUE(token.has_value());
      out.push_back(token->id);
    }
    int run = 0;
    int longest = 0;
    for (size_t i = 4; i < out.size(); ++i) longest = std::max(longest, run = out[i] == out[i - 4] ? run + 1 : 0);
    return longest;
  };
  EXPECT_EQ(longest_run({}), 57);
  EXPECT_LT(longest_run({.multiplier = 0.8}), 12);
}

TEST(DryParams, RangesAreChecked) {
  const auto error_of = [](const DryParams& params) {
    const Status status = validate(params);
    return status ? std::string() : status.error().message;
  };
  EXPECT_EQ(error_of({}), "");
  EXPECT_EQ(error_of({.multiplier = -1.0}), "dry_multiplier: expected a number from 0 to 100, found -1");
  EXPECT_EQ(error_of({.base = 0.5}), "dry_base: expected a number from 1 to 100, found 0.5");
  EXPECT_EQ(error_of({.multiplier = std::nan("")}), "dry_multiplier: expected a number from 0 to 100, found nan");
  EXPECT_EQ(error_of({.allowed_length = 0}), "dry_allowed_length: expected an integer from 1 to 1048576, found 0");
  EXPECT_EQ(error_of({.last_n = -2}),
            "dry_penalty_last_n: expected an integer from -1 to 9223372036854775807, found -2");
  EXPECT_EQ(error_of({.breakers = {"a", ""}}),
            "dry_sequence_breakers: expected texts that are not empty, found an empty one");
  EXPECT_EQ(error_of({.breakers = std::vector<std::string>(65, "a")}),
            "dry_sequence_breakers: expected at most 64 texts, found 65");
  const Status whole = validate(SamplingParams{.dry = {.base = 0.0}}, 10);
  EXPECT_FALSE(whole);
}

TEST(TokensWith, TakesTokensThatHoldATextAnywhere) {
  const Result<Tokenizer> tokenizer =
      Tokenizer::open(std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const std::vector<bool> breakers = tokens_with(&*tokenizer, std::vector<std::string>{"\n", "\""});
  ASSERT_EQ(std::ssize(breakers), tokenizer->vocabulary_size());
  for (int32_t id = 0; id < tokenizer->vocabulary_size(); ++id) {
    const bool holds = tokenizer->token_bytes(id).find_first_of("\n\"") != std::string::npos;
    EXPECT_EQ(breakers[static_cast<size_t>(id)], holds) << id;
  }
  EXPECT_GT(std::ranges::count(breakers, true), 4) << "\", \\n, and what begins or ends with them";
  EXPECT_TRUE(tokens_with(nullptr, std::vector<std::string>{"a"}).empty());
  EXPECT_TRUE(tokens_with(&*tokenizer, {}).empty());
}

}  // namespace
}  // namespace lathe
