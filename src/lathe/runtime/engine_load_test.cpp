// Many requests at once, in a cache that is too small for them, with prefixes, guesses, constraints and cancellations:
// every answer is, bit for bit, what it is alone in an engine without any of these.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "lathe/runtime/engine.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

using testing::TempDir;
using testing::TinyModel;

// Allows ids whose remainder by 3 is that of the output's position; complete after `length` tokens.
class EveryThird final : public TokenConstraint {
 public:
  explicit EveryThird(int64_t length) : length_(length) {}

  void allowed(std::span<uint64_t> mask) override {
    std::ranges::fill(mask, 0);
    for (size_t id = static_cast<size_t>(position_ % 3); id < 40; id += 3) mask[id / 64] |= uint64_t{1} << (id % 64);
  }

  bool accept(int32_t id) override {
    if (id % 3 != position_ % 3) return false;
    ++position_;
    return true;
  }

  bool finished() const override { return position_ >= length_; }

 private:
  int64_t length_;
  int64_t position_ = 0;
};

struct Models {
  TempDir folder;
  std::unique_ptr<Engine> plain;  // one request at a time

  explicit Models(const TinyModel& model) {
    model.write(folder.path());
    plain = open({});
  }

  explicit Models(const Json& config) : Models(TinyModel(config)) {}

  std::unique_ptr<Engine> open(EngineOptions options) const {
    options.model = folder.path();
    options.threads = 2;
    options.ctx_size = 480;
    Result<std::unique_ptr<Engine>> engine = Engine::open(options);
    EXPECT_TRUE(engine.has_value()) << (engine ? "" : engine.error().message);
    return engine ? std::move(*engine) : nullptr;
  }
};

// A request that can be made twice with a constraint of its own each time.
Request random_request(uint64_t seed) {
  Rng rng(seed);
  Request request;
  // A system prompt of one of three lengths, then something of its own that may repeat itself.
  const int64_t common = std::array<int64_t, 3>{0, 130, 260}[static_cast<size_t>(rng.next_int(0, 2))];
  for (int64_t i = 0; i < common; ++i) request.prompt.push_back(static_cast<int32_t>((i * i + i / 7) % 40));
  const int64_t own = rng.next_int(1, 70);
  const int64_t period = rng.next_int(3, 50);
  for (int64_t i = 0; i < own; ++i) {
    request.prompt.push_back(i < period ? static_cast<int32_t>(rng.next_int(0, 39))
                                        : request.prompt[request.prompt.size() - static_cast<size_t>(period)]);
  }
  request.max_tokens = rng.next_int(0, 4) == 0 ? 0 : rng.next_int(1, 130);
  request.ignore_eos = rng.next_int(0, 3) != 0;
  if (rng.next_int(0, 2) == 0) {
    request.stop_token_ids = {5, 20};
    request.min_tokens = std::min<int64_t>(request.max_tokens, 30);
  }
  request.sampling.temperature = rng.next_int(0, 1) == 0 ? 0.0 : 0.6;
  request.sampling.seed = seed;
  request.sampling.logprobs = 2;
  if (rng.next_int(0, 3) == 0) request.sampling.repetition_penalty = 1.2;
  if (rng.next_int(0, 3) == 0) request.sampling.frequency_penalty = 0.3;
  if (rng.next_int(0, 3) == 0) request.constraint = std::make_shared<EveryThird>(rng.next_int(1, 100));
  if (rng.next_int(0, 4) == 0) request.prompt_logprobs = 1;
  return request;
}

void expect_same(const std::vector<SampledToken>& a, const std::vector<SampledToken>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].id, b[i].id) << i;
    ASSERT_EQ(a[i].logprob, b[i].logprob) << i;
    ASSERT_EQ(a[i].top.size(), b[i].top.size());
    for (size_t k = 0; k < a[i].top.size(); ++k) {
      ASSERT_EQ(a[i].top[k].id, b[i].top[k].id);
      ASSERT_EQ(a[i].top[k].logprob, b[i].top[k].logprob);
    }
  }
}

void expect_same(const Completion& a, const Completion& b) {
  expect_same(a.tokens, b.tokens);
  expect_same(a.prompt_logprobs, b.prompt_logprobs);
  EXPECT_EQ(a.finish_reason, b.finish_reason);
  EXPECT_EQ(a.stop_reason, b.stop_reason);
}

Completion generate(Engine& engine, Request request) {
  Result<Completion> completion = engine.generate(std::move(request));
  EXPECT_TRUE(completion.has_value()) << (completion ? "" : completion.error().message);
  return completion ? std::move(*completion) : Completion{};
}

// Everything that was asked of an engine, and what came back.
struct Load {
  Engine& engine;
  std::map<RequestId, uint64_t> seed_of = {};
  std::map<uint64_t, Completion> answers = {};  // by seed; without the cancelled ones
  int64_t cancelled = 0;

  void submit(uint64_t seed, int64_t drafts) {
    Request request = random_request(seed);
    request.draft_tokens = drafts;
    const Result<RequestId> id =
        engine.submit(std::move(request), [this](RequestId ended, Result<Completion> completion) {
          ASSERT_TRUE(completion.has_value()) << completion.error().message;
          if (completion->finish_reason == FinishReason::kCancelled) {
            ++cancelled;
          } else {
            answers[seed_of.at(ended)] = std::move(*completion);
          }
        });
    ASSERT_TRUE(id.has_value()) << id.error().message;
    seed_of[*id] = seed;
  }
};

TEST(EngineLoad, EveryAnswerIsWhatItIsAlone) {
  EngineStats by_text;
  EngineStats by_mtp;
  int64_t cancelled = 0;
  Json llama = testing::tiny_llama_config();
  llama.set("max_position_embeddings", 512);
  for (const TinyModel& model :
       {TinyModel(testing::tiny_v3_config()), TinyModel(llama), testing::predictable_model(0.1)}) {
    const Models models(model);
    const bool mtp = model.config().num_nextn_predict_layers > 0;
    std::map<uint64_t, Completion> alone;
    for (uint64_t seed = 0; seed < 24; ++seed) alone[seed] = generate(*models.plain, random_request(seed));
    for (uint64_t round = 0; round < 4; ++round) {
      SCOPED_TRACE(round);
      Rng rng(round + 100);
      const std::unique_ptr<Engine> engine = models.open({.cache_tokens = 64 * rng.next_int(8, 10),
                                                          .max_batch_tokens = rng.next_int(20, 120),
                                                          .max_running = rng.next_int(3, 12),
                                                          .prefix_cache = round != 1,
                                                          .draft_tokens = 4,
                                                          .drafter = mtp ? DrafterKind::kMtp : DrafterKind::kText});
      Load load{.engine = *engine};
      for (uint64_t seed = 0; seed < 24; ++seed) {
        load.submit(seed, round == 2 ? 0 : -1);
        for (int64_t steps = rng.next_int(0, 4); steps > 0; --steps) engine->step();
        if (rng.next_int(0, 7) == 0 && !load.seed_of.empty()) {
          engine->cancel(static_cast<RequestId>(rng.next_int(1, static_cast<int64_t>(seed) + 1)));
        }
      }
      while (engine->step()) {
      }
      EXPECT_EQ(load.answers.size() + static_cast<size_t>(load.cancelled), 24u);
      for (const auto& [seed, answer] : load.answers) {
        SCOPED_TRACE(seed);
        expect_same(answer, alone.at(seed));
      }
      const EngineStats stats = engine->stats();
      EXPECT_EQ(stats.running + stats.waiting, 0);
      EXPECT_EQ(stats.free_pages + stats.cached_pages, stats.pages);
      EXPECT_EQ(stats.cached_pages > 0, round != 1);
      EXPECT_EQ(stats.draft_tokens > 0, round != 2);
      EXPECT_EQ(stats.drafter, mtp ? DrafterKind::kMtp : DrafterKind::kText);
      EngineStats& sum = mtp ? by_mtp : by_text;
      sum.preemptions += stats.preemptions;
      sum.cached_prompt_tokens += stats.cached_prompt_tokens;
      sum.accepted_draft_tokens += stats.accepted_draft_tokens;
      cancelled += load.cancelled;
    }
  }
  EXPECT_GT(by_text.preemptions, 10);
  EXPECT_GT(by_text.cached_prompt_tokens, 1000);
  EXPECT_GT(by_text.accepted_draft_tokens, 100);
  EXPECT_GT(by_mtp.preemptions, 3);
  EXPECT_GT(by_mtp.cached_prompt_tokens, 300);
  EXPECT_GT(by_mtp.accepted_draft_tokens, 300);
  EXPECT_GT(cancelled, 5);
}

TEST(EngineLoad, TheCountersTellWhatHappened) {
  const Models models(testing::tiny_v3_config());
  const std::unique_ptr<Engine> engine = models.open({.cache_tokens = 1024, .prefix_cache = true});
  Request request;
  request.prompt = testing::random_ids(engine->config(), 200, 5);
  request.max_tokens = 10;
  request.ignore_eos = true;
  request.sampling.temperature = 0.0;
  const Completion first = generate(*engine, request);
  EXPECT_EQ(first.cached_prompt_tokens, 0);
  const Completion second = generate(*engine, request);
  EXPECT_EQ(second.cached_prompt_tokens, 192);
  expect_same(first, second);
  // A prompt of 256 tokens or more has other rows: its first 256 are computed in the other form of attention.
  Request longer = request;
  longer.prompt.insert(longer.prompt.end(), 60, 3);
  EXPECT_EQ(generate(*engine, longer).cached_prompt_tokens, 0);
  longer.prompt.push_back(4);
  EXPECT_EQ(generate(*engine, longer).cached_prompt_tokens, 256);
  // The answer goes on from: its pages are there as well.
  Request turn = request;
  turn.prompt.insert(turn.prompt.end(), 20, 3);
  for (const SampledToken& token : generate(*engine, turn).tokens) turn.prompt.push_back(token.id);
  EXPECT_EQ(generate(*engine, turn).cached_prompt_tokens, 192);
  turn.cache_scope = 9;
  EXPECT_EQ(generate(*engine, turn).cached_prompt_tokens, 0);
  turn.cache_scope = 0;
  turn.prompt_logprobs = 0;
  EXPECT_EQ(generate(*engine, turn).cached_prompt_tokens, 0) << "every row of the prompt is needed";
  // It parts from the others in the middle of a page.
  Request parting = request;
  parting.prompt.resize(150);
  parting.prompt.insert(parting.prompt.end(), 10, (request.prompt[150] + 1) % 3);
  const Completion parted = generate(*engine, parting);
  EXPECT_EQ(parted.cached_prompt_tokens, 150);
  expect_same(parted, generate(*models.plain, parting));
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.prompt_tokens, 2 * 200 + 260 + 261 + 220 + 3 * 230 + 160);
  EXPECT_EQ(stats.cached_prompt_tokens, 192 + 256 + 192 + 192 + 150);
  EXPECT_EQ(stats.generated_tokens, 90);
  EXPECT_EQ(stats.pages, 16);
  EXPECT_EQ(stats.free_pages + stats.cached_pages, 16);
}

TEST(EngineLoad, PromptLogprobsAreThoseOfScoring) {
  const Models models(testing::tiny_v3_config());
  const std::unique_ptr<Engine> engine = models.open({.max_batch_tokens = 50});
  Request request;
  request.prompt = testing::random_ids(engine->config(), 270, 6);
  request.prompt_logprobs = 3;
  request.max_tokens = 0;
  const Completion completion = generate(*engine, request);
  EXPECT_TRUE(completion.tokens.empty());
  ASSERT_EQ(completion.prompt_logprobs.size(), request.prompt.size());
  EXPECT_EQ(completion.prompt_logprobs[0].id, request.prompt[0]);
  EXPECT_TRUE(completion.prompt_logprobs[0].top.empty());
  ASSERT_TRUE(engine
                  ->score(request.prompt,
                          [&](int64_t first, int64_t rows, const float* logits) {
                            for (int64_t i = first; i < std::min<int64_t>(first + rows, 269); ++i) {
                              const std::span<const float> row(logits + (i - first) * 40, 40);
                              const SampledToken& token = completion.prompt_logprobs[static_cast<size_t>(i) + 1];
                              EXPECT_EQ(token.id, request.prompt[static_cast<size_t>(i) + 1]);
                              EXPECT_EQ(token.logprob, row[static_cast<size_t>(token.id)] - log_sum_exp(row));
                              EXPECT_EQ(token.top.size(), 3u);
                              EXPECT_EQ(token.top[0].id, argmax(row));
                            }
                            return true;
                          })
                  .has_value());
}

TEST(EngineLoad, GuessesThatAreRightSaveSteps) {
  const Models models(testing::tiny_v3_config());
  Request request;
  request.prompt = {1, 2, 3};
  request.max_tokens = 300;
  request.ignore_eos = true;
  request.sampling.temperature = 0.0;
  const Completion plain = generate(*models.plain, request);
  const int64_t plain_steps = models.plain->stats().steps;
  request.draft_tokens = 8;
  const std::unique_ptr<Engine> engine = models.open({});
  const Completion guessed = generate(*engine, request);
  expect_same(guessed, plain);
  EXPECT_GT(guessed.accepted_draft_tokens, 50) << "greedy output of a random model repeats itself";
  EXPECT_EQ(engine->stats().steps, plain_steps - guessed.accepted_draft_tokens);
  EXPECT_LE(guessed.accepted_draft_tokens, guessed.draft_tokens);
}

TEST(EngineLoad, AConstraintDecidesWhatComesAndWhenItEnds) {
  const Models models(testing::tiny_v3_config());
  Request request;
  request.prompt = {1, 2, 3};
  request.ignore_eos = true;
  request.constraint = std::make_shared<EveryThird>(20);
  std::vector<int32_t> seen;
  request.on_token = [&](const TokenEvent& event) {
    seen.push_back(event.token.id);
    return true;
  };
  const Completion completion = generate(*models.plain, request);
  EXPECT_EQ(completion.finish_reason, FinishReason::kStop);
  EXPECT_EQ(completion.stop_reason, "constraint");
  ASSERT_EQ(completion.tokens.size(), 20u);
  EXPECT_EQ(seen.size(), 20u);
  for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(static_cast<size_t>(seen[i]) % 3, i % 3);

  class Nothing final : public TokenConstraint {
    void allowed(std::span<uint64_t> mask) override { std::ranges::fill(mask, 0); }

    bool accept(int32_t) override { return false; }

    bool finished() const override { return false; }
  };

  request.constraint = std::make_shared<Nothing>();
  const Result<Completion> stuck = models.plain->generate(request);
  ASSERT_FALSE(stuck.has_value());
  EXPECT_EQ(stuck.error().message, "constraint: expected a token that may come next at output 0, found none");
}

// A request that was preempted and computed anew, output included, ends as if nothing had happened, and the other one
// never waits for it.
TEST(EngineLoad, PreemptionChangesNothingButTime) {
  const Models models(testing::tiny_v3_config());
  const std::unique_ptr<Engine> engine = models.open({.cache_tokens = int64_t{6} * 64});
  Request request;
  request.ignore_eos = true;
  request.sampling.logprobs = 1;
  request.prompt = testing::random_ids(engine->config(), 60, 1);
  request.max_tokens = 200;
  Request second = request;
  second.prompt = testing::random_ids(engine->config(), 20, 2);
  const Completion alone = generate(*models.plain, request);
  const Completion second_alone = generate(*models.plain, second);
  std::vector<Completion> ended;
  const auto on_finished = [&](RequestId, Result<Completion> completion) { ended.push_back(std::move(*completion)); };
  ASSERT_TRUE(engine->submit(request, on_finished).has_value());
  ASSERT_TRUE(engine->submit(second, on_finished).has_value());
  while (engine->step()) {
  }
  ASSERT_EQ(ended.size(), 2u);
  expect_same(ended[0], alone);
  expect_same(ended[1], second_alone);
  EXPECT_EQ(ended[0].preemptions, 0);
  EXPECT_EQ(ended[1].preemptions, 1);
  EXPECT_EQ(engine->stats().preemptions, 1);
  EXPECT_GE(ended[0].queued_s, 0.0);
}

TEST(EngineLoad, WhatCouldNeverFitIsRefusedWithItsNumbers) {
  const Models models(testing::tiny_v3_config());
  const std::unique_ptr<Engine> engine = models.open({.cache_tokens = 128});
  Request request;
  request.prompt = {1, 2};
  request.max_tokens = 150;
  const Result<Completion> refused = engine->generate(request);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::kInvalidArgument);
  EXPECT_EQ(refused.error().message,
            "prompt and max_tokens: expected at most 128 tokens together (the cache), found 152");
  request.max_tokens = -1;
  request.ignore_eos = true;
  EXPECT_EQ(generate(*engine, request).tokens.size(), 126u) << "until the cache is full";
  request.draft_tokens = 33;
  EXPECT_EQ(engine->generate(request).error().message, "draft_tokens: expected -1 (default) to 32, found 33");
  request.draft_tokens = 0;
  request.prompt_logprobs = 41;
  EXPECT_EQ(engine->generate(request).error().message, "prompt_logprobs: expected -1 (none) to 40, found 41");
}

// After cancel() a request hears nothing more but its end, whoever calls it, and its pages are free at once.
TEST(EngineLoad, CancellationTakesAStep) {
  const Models models(testing::tiny_v3_config());
  const std::unique_ptr<Engine> engine = models.open({.draft_tokens = 8});
  std::map<RequestId, size_t> tokens;
  std::map<RequestId, size_t> answered;
  std::vector<RequestId> ids;
  for (int i = 0; i < 3; ++i) {
    Request request;
    request.prompt = {1, 2, 3};
    request.ignore_eos = true;
    request.sampling.temperature = 0.0;
    request.on_token = [&, i](const TokenEvent&) {
      ++tokens[ids[static_cast<size_t>(i)]];
      if (i == 0 && tokens[ids[0]] == 100) {
        for (const RequestId id : ids) engine->cancel(id);
      }
      return true;
    };
    ids.push_back(engine
                      ->submit(request,
                               [&](RequestId id, Result<Completion> completion) {
                                 EXPECT_EQ(completion->finish_reason, FinishReason::kCancelled);
                                 EXPECT_EQ(completion->tokens.size(), tokens[id]);
                                 answered[id] = completion->tokens.size();
                               })
                      .value());
  }
  while (engine->step()) ASSERT_TRUE(answered.empty());
  EXPECT_EQ(answered.size(), 3u);
  EXPECT_EQ(answered[ids[0]], 100u) << "nothing after it, drafts or not";
  EXPECT_LT(answered[ids[1]], 100u);
  EXPECT_EQ(engine->stats().free_pages, engine->stats().pages);
}

}  // namespace
}  // namespace lathe
