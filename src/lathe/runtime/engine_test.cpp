// Requests from submission to their end: every reason to finish, queueing beyond the cache, errors of submit, score and
// open.
#include "lathe/runtime/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TempDir;
using testing::TinyModel;

std::unique_ptr<Engine> open_or_fail(EngineOptions options) {
  options.threads = 2;
  Result<std::unique_ptr<Engine>> engine = Engine::open(options);
  EXPECT_TRUE(engine.has_value()) << (engine ? "" : engine.error().message);
  return engine ? std::move(*engine) : nullptr;
}

// A random model without tokenizer in a folder of its own.
struct TinyEngine {
  TempDir folder;
  std::unique_ptr<Engine> engine;

  explicit TinyEngine(int64_t context, const Json& config = testing::tiny_v2_config(), uint64_t seed = 1) {
    TinyModel(config, seed).write(folder.path());
    engine = open_or_fail({.model = folder.path(), .ctx_size = context});
  }

  Engine* operator->() const { return engine.get(); }
};

std::unique_ptr<Engine> open_storyteller() {
  return open_or_fail({.model = std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller"});
}

Request greedy_request(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  request.sampling.temperature = 0.0;
  return request;
}

Completion generate(Engine& engine, Request request) {
  Result<Completion> completion = engine.generate(std::move(request));
  EXPECT_TRUE(completion.has_value()) << (completion ? "" : completion.error().message);
  return completion ? std::move(*completion) : Completion{};
}

// Allows one id after the other.
class Script final : public TokenConstraint {
 public:
  explicit Script(std::vector<int32_t> ids) : ids_(std::move(ids)) {}

  void allowed(std::span<uint64_t> mask) override {
    std::ranges::fill(mask, 0);
    const auto id = static_cast<size_t>(ids_[at_]);
    mask[id / 64] |= uint64_t{1} << (id % 64);
  }

  bool accept(int32_t id) override { return id == ids_[at_++]; }

  bool finished() const override { return at_ == ids_.size(); }

 private:
  std::vector<int32_t> ids_;
  size_t at_ = 0;
};

std::vector<int32_t> ids_of(const Completion& completion) {
  std::vector<int32_t> ids;
  for (const SampledToken& token : completion.tokens) ids.push_back(token.id);
  return ids;
}

TEST(Engine, MaxTokensZeroComputesThePromptAndNothingElse) {
  const TinyEngine engine(128);
  const Completion completion = generate(*engine.engine, greedy_request({5, 6, 7}, 0));
  EXPECT_TRUE(completion.tokens.empty());
  EXPECT_EQ(completion.finish_reason, FinishReason::kLength);
  EXPECT_EQ(completion.prompt_tokens, 3);
  EXPECT_EQ(completion.stop_reason, "");
}

TEST(Engine, APromptThatFillsTheContextEndsByLength) {
  const TinyEngine engine(70);
  EXPECT_EQ(engine->context_size(), 70);
  const std::vector<int32_t> full(70, 3);
  const Completion none = generate(*engine.engine, greedy_request(full, -1));
  EXPECT_TRUE(none.tokens.empty());
  EXPECT_EQ(none.finish_reason, FinishReason::kLength);
  const Completion one = generate(*engine.engine, greedy_request({full.begin(), full.begin() + 69}, -1));
  EXPECT_EQ(one.tokens.size(), 1u);
  EXPECT_EQ(one.finish_reason, FinishReason::kLength);
}

TEST(Engine, WithoutALimitTheContextIsFilled) {
  const TinyEngine engine(100);
  for (const int64_t max_tokens : {int64_t{-1}, int64_t{1} << 60}) {
    const Completion completion = generate(*engine.engine, greedy_request({1, 2, 3, 4}, max_tokens));
    EXPECT_EQ(completion.tokens.size(), 96u);
    EXPECT_EQ(completion.finish_reason, FinishReason::kLength);
  }
  EXPECT_EQ(generate(*engine.engine, greedy_request({1, 2, 3, 4}, 17)).tokens.size(), 17u);
}

TEST(Engine, CallbacksSeeEveryTokenAndMayCancel) {
  const TinyEngine engine(128);
  std::vector<int32_t> seen;
  Request request = greedy_request({9, 8}, 20);
  request.on_token = [&](const TokenEvent& event) {
    seen.push_back(event.token.id);
    return seen.size() < 3;
  };
  const Completion completion = generate(*engine.engine, request);
  EXPECT_EQ(completion.finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(ids_of(completion), seen);
  EXPECT_EQ(seen.size(), 3u);
  seen.clear();
  request.on_token = [&](const TokenEvent& event) {
    seen.push_back(event.token.id);
    return true;
  };
  EXPECT_EQ(ids_of(generate(*engine.engine, request)), seen);
  EXPECT_EQ(seen.size(), 20u);
}

TEST(Engine, APromptTellsHowFarItIsAndCanBeLeft) {
  const TempDir folder;
  TinyModel(testing::tiny_v2_config(), 1).write(folder.path());
  const auto engine = open_or_fail({.model = folder.path(), .ctx_size = 128, .max_batch_tokens = 16, .max_running = 4});
  Request request = greedy_request(std::vector<int32_t>(50, 7), 2);
  std::vector<int64_t> seen;
  double seconds = 0.0;
  request.on_prompt = [&](const PromptEvent& event) {
    seen.push_back(event.done);
    EXPECT_EQ(event.total, 50);
    EXPECT_EQ(event.cached, 0);
    EXPECT_GT(event.seconds, seconds);
    seconds = event.seconds;
    return true;
  };
  EXPECT_EQ(generate(*engine, request).tokens.size(), 2u);
  EXPECT_EQ(seen, (std::vector<int64_t>{16, 32, 48}));

  seen.clear();
  int tokens = 0;
  request.on_prompt = [&](const PromptEvent& event) {
    seen.push_back(event.done);
    return seen.size() < 2;
  };
  request.on_token = [&](const TokenEvent&) { return ++tokens > 0; };
  const Completion left = generate(*engine, request);
  EXPECT_EQ(left.finish_reason, FinishReason::kCancelled);
  EXPECT_TRUE(left.tokens.empty());
  EXPECT_EQ(tokens, 0);
  EXPECT_EQ(seen, (std::vector<int64_t>{16, 32}));
  EXPECT_EQ(engine->stats().running, 0);
  EXPECT_EQ(engine->stats().free_pages, engine->stats().pages);
}

TEST(Engine, CancelEndsWaitingAndRunningRequests) {
  const TinyEngine engine(64);
  std::map<RequestId, FinishReason> ended;
  const auto on_finished = [&](RequestId id, Result<Completion> result) {
    ASSERT_TRUE(result.has_value());
    ended[id] = result->finish_reason;
  };
  const RequestId running = engine->submit(greedy_request({1}, 50), on_finished).value();
  const RequestId waiting = engine->submit(greedy_request({2}, 50), on_finished).value();
  const RequestId last = engine->submit(greedy_request({3}, 2), on_finished).value();
  EXPECT_TRUE(engine->step());
  engine->cancel(waiting);
  engine->cancel(waiting);
  engine->cancel(12345);
  EXPECT_EQ(ended.size(), 1u);
  engine->cancel(running);
  while (engine->step()) {
  }
  EXPECT_EQ(
      ended,
      (std::map<RequestId, FinishReason>{
          {running, FinishReason::kCancelled}, {waiting, FinishReason::kCancelled}, {last, FinishReason::kLength}}));
  EXPECT_FALSE(engine->step()) << "idle";
}

// A callback may cancel any request of the batch that is being answered, its own included.
TEST(Engine, CancelFromACallbackIsSafe) {
  const TinyEngine engine(128);
  std::map<RequestId, Result<Completion>> ended;
  const auto on_finished = [&](RequestId id, Result<Completion> result) { ended.emplace(id, std::move(result)); };
  RequestId own = 0;
  RequestId other = 0;
  Request request = greedy_request({1, 2}, 30);
  int calls = 0;
  request.on_token = [&](const TokenEvent&) {
    if (++calls == 2) {
      engine->cancel(other);
      engine->cancel(own);
    }
    return true;
  };
  own = engine->submit(request, on_finished).value();
  other = engine->submit(greedy_request({3, 4}, 30), on_finished).value();
  while (engine->step()) {
  }
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended.at(own)->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(ended.at(own)->tokens.size(), 2u);
  EXPECT_EQ(ended.at(other)->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(calls, 2);
}

// Whatever ends an answer, what was chosen counts: its tokens, and the stop token.
TEST(Engine, EveryTokenThatWasChosenCounts) {
  const std::unique_ptr<Engine> engine = open_storyteller();
  const int32_t eos = engine->eos_ids().front();
  const auto letter = [&](const char* text) { return engine->tokenizer()->find(text).value(); };
  const std::vector<int32_t> text{letter("a"), letter("E"), letter("N")};

  struct Case {
    std::vector<int32_t> script;
    std::vector<std::string> stop;
    std::string text;
    std::string stop_reason;
    size_t tokens;
    int64_t counted;
  };

  const std::string at_eos = str("token ", eos);
  for (const Case& c : std::vector<Case>{{{text[0], text[1], text[2], eos}, {}, "aEN", at_eos, 3, 4},
                                         {{text[0], text[1], text[2], eos}, {"END"}, "aEN", at_eos, 3, 4},
                                         {{eos}, {"END"}, "", at_eos, 0, 1},
                                         {{text[0], text[1], text[2]}, {"EN"}, "a", "stop string", 3, 3},
                                         {{text[0], text[1], text[2]}, {"END"}, "aEN", "constraint", 3, 3}}) {
    SCOPED_TRACE(c.stop_reason + str(c.stop.size()));
    Request request;
    request.prompt = {1, 2};
    request.stop = c.stop;
    request.constraint = std::make_shared<Script>(c.script);
    std::string streamed;
    std::vector<int32_t> part;
    request.on_token = [&](const TokenEvent& event) {
      streamed += event.text;
      if (!event.is_stop_token) part.push_back(event.token.id);
      return true;
    };
    const int64_t before = engine->stats().generated_tokens;
    const Completion completion = generate(*engine, request);
    EXPECT_EQ(completion.text, c.text);
    EXPECT_EQ(streamed, c.text);
    EXPECT_EQ(part, ids_of(completion));
    EXPECT_EQ(completion.stop_reason, c.stop_reason);
    EXPECT_EQ(completion.tokens.size(), c.tokens);
    EXPECT_EQ(completion.completion_tokens, c.counted);
    EXPECT_EQ(engine->stats().generated_tokens - before, c.counted);
  }
}

TEST(Engine, LeastTokensHoldBackWhatWouldEnd) {
  const TinyEngine engine(128);
  const std::vector<int32_t> plain = ids_of(generate(*engine.engine, greedy_request({4, 5}, 30)));
  Request request = greedy_request({4, 5}, 30);
  request.stop_token_ids = {plain[0], 7};
  request.sampling.logit_bias = {{7, 100.0}};
  EXPECT_EQ(generate(*engine.engine, request).completion_tokens, 1);
  request.min_tokens = 5;
  const Completion least = generate(*engine.engine, request);
  ASSERT_EQ(least.tokens.size(), 5u);
  EXPECT_EQ(least.completion_tokens, 6);
  EXPECT_EQ(least.stop_reason, "token 7");
  for (const int32_t id : ids_of(least)) EXPECT_TRUE(id != 7 && id != plain[0]);
  request.draft_tokens = 8;
  EXPECT_EQ(ids_of(generate(*engine.engine, request)), ids_of(least));
  request.min_tokens = 30;
  EXPECT_EQ(generate(*engine.engine, request).finish_reason, FinishReason::kLength);
  // The end comes where a constraint wants nothing else.
  const int32_t other = plain[0] == 3 ? 4 : 3;
  request.constraint = std::make_shared<Script>(std::vector<int32_t>{other, 7});
  EXPECT_EQ(ids_of(generate(*engine.engine, request)), (std::vector<int32_t>{other}));
  request.constraint = nullptr;
  request.min_tokens = 31;
  EXPECT_EQ(engine->generate(request).error().message, "min_tokens: expected at most max_tokens, 30, found 31");
  request.min_tokens = -1;
  EXPECT_EQ(engine->generate(request).error().message, "min_tokens: expected 0 or more, found -1");
}

TEST(Engine, StopTokensEndTheAnswerAndAreNotPartOfIt) {
  const TinyEngine engine(128);
  const std::vector<int32_t> all = ids_of(generate(*engine.engine, greedy_request({4, 5}, 30)));
  ASSERT_EQ(all.size(), 30u);
  Request request = greedy_request({4, 5}, 30);
  request.stop_token_ids = {39, all[20]};
  const std::vector<int32_t>& stop = request.stop_token_ids;
  const auto first = std::find_first_of(all.begin(), all.end(), stop.begin(), stop.end());
  const Completion completion = generate(*engine.engine, request);
  EXPECT_EQ(completion.finish_reason, FinishReason::kStop);
  EXPECT_EQ(ids_of(completion), std::vector<int32_t>(all.begin(), first));
  EXPECT_EQ(completion.stop_reason, str("token ", *first));
}

TEST(Engine, EosOfTheConfigurationsEndsUnlessIgnored) {
  const std::vector<int32_t> all = ids_of(generate(*TinyEngine(128).engine, greedy_request({4, 5}, 30)));
  const std::vector<int32_t> ends{38, all[12]};
  const auto first = std::find_first_of(all.begin(), all.end(), ends.begin(), ends.end());
  for (const bool in_generation_config : {false, true}) {
    SCOPED_TRACE(in_generation_config);
    const Json eos = Json::list(ends);
    const TempDir folder;
    Json config = testing::tiny_v2_config();
    if (!in_generation_config) config.set("eos_token_id", eos);
    TinyModel(config).write(folder.path());
    if (in_generation_config) {
      Json defaults = Json::object();
      defaults.set("eos_token_id", eos);
      std::ofstream(folder / "generation_config.json") << defaults.dump();
    }
    const std::unique_ptr<Engine> engine = open_or_fail({.model = folder.path(), .ctx_size = 128});
    Request request = greedy_request({4, 5}, 30);
    EXPECT_EQ(ids_of(generate(*engine, request)), all);
    request.ignore_eos = false;
    const Completion completion = generate(*engine, request);
    EXPECT_EQ(completion.finish_reason, FinishReason::kStop);
    EXPECT_EQ(ids_of(completion), std::vector<int32_t>(all.begin(), first));
    // Explicit stop tokens count even when EOS is ignored.
    request.ignore_eos = true;
    request.stop_token_ids = {all[12]};
    EXPECT_EQ(generate(*engine, request).finish_reason, FinishReason::kStop);
  }
}

TEST(Engine, StopStringsCutTheText) {
  const std::unique_ptr<Engine> engine = open_storyteller();
  std::vector<int32_t> prompt = engine->tokenizer()->encode("Once upon a time", AddedTokens::kPlain);
  prompt.insert(prompt.begin(), *engine->tokenizer()->bos_id());
  std::string streamed;
  Request request = greedy_request(prompt, 40);
  request.on_token = [&](const TokenEvent& event) {
    streamed += event.text;
    return true;
  };
  const Completion whole = generate(*engine, request);
  EXPECT_EQ(whole.text, streamed);
  EXPECT_EQ(whole.text, engine->tokenizer()->decode(ids_of(whole), true));
  ASSERT_GT(whole.text.size(), 60u);

  // From the middle of a word, so that it never falls on tokens' edges alone.
  const std::string stop = whole.text.substr(29, 13);
  streamed.clear();
  request.stop = {"not in there at all", stop};
  const Completion cut = generate(*engine, request);
  EXPECT_EQ(cut.finish_reason, FinishReason::kStop);
  EXPECT_EQ(cut.stop_reason, "stop string");
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_EQ(streamed, cut.text);
  EXPECT_LT(cut.tokens.size(), whole.tokens.size());

  // Text that is held back for a stop string still comes out when the answer ends.
  request.stop = {whole.text.substr(whole.text.size() - 4) + "never"};
  streamed.clear();
  EXPECT_EQ(generate(*engine, request).text, whole.text);
  EXPECT_EQ(streamed, whole.text);
}

TEST(Engine, MoreRequestsThanTheCacheHoldsAllGetTheirOwnAnswer) {
  for (const Json& config : {testing::tiny_v3_config(), testing::tiny_llama_config()}) {
    const TinyEngine engine(192, config);  // 3 pages; most requests take 2
    std::vector<Request> requests;
    for (uint64_t i = 0; i < 12; ++i) {
      Request request = greedy_request(testing::random_ids(engine->config(), static_cast<int64_t>(1 + 9 * i), i), 20);
      request.sampling.temperature = 1.0;
      request.sampling.seed = i;
      requests.push_back(request);
    }
    std::vector<std::vector<int32_t>> alone;
    for (const Request& request : requests) alone.push_back(ids_of(generate(*engine.engine, request)));
    std::map<RequestId, std::vector<int32_t>> together;
    std::vector<RequestId> ids;
    for (const Request& request : requests) {
      ids.push_back(engine
                        ->submit(request,
                                 [&](RequestId id, Result<Completion> result) {
                                   ASSERT_TRUE(result.has_value());
                                   together[id] = ids_of(*result);
                                 })
                        .value());
    }
    while (engine->step()) {
    }
    ASSERT_EQ(together.size(), 12u);
    for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(together.at(ids[i]), alone[i]) << i;
  }
}

TEST(Engine, RequestsSubmittedFromCallbacksRun) {
  const TinyEngine engine(128);
  int finished = 0;
  OnFinished again = [&](RequestId, const Result<Completion>&) {
    if (++finished == 4) return;
    EXPECT_TRUE(engine->submit(greedy_request({1}, 3), again).has_value());
  };
  ASSERT_TRUE(engine->submit(greedy_request({1}, 3), again).has_value());
  for (int i = 0; i < 100; ++i) engine->step();
  EXPECT_EQ(finished, 4);
}

TEST(Engine, SubmitNamesWhatIsWrong) {
  const TinyEngine engine(100);
  const auto message = [&](const Request& request) {
    const Result<RequestId> id = engine->submit(request, {});
    EXPECT_FALSE(id.has_value());
    if (id) return std::string();
    EXPECT_EQ(id.error().code, Errc::kInvalidArgument);
    return id.error().message;
  };
  EXPECT_EQ(message(greedy_request({}, 1)), "prompt: expected at least one token, found none");
  EXPECT_EQ(message(greedy_request({1, 40}, 1)), "prompt: expected token ids from 0 to 39, found 40");
  EXPECT_EQ(message(greedy_request({-1}, 1)), "prompt: expected token ids from 0 to 39, found -1");
  EXPECT_EQ(message(greedy_request(std::vector<int32_t>(101, 1), 1)),
            "prompt: expected at most 100 tokens (the context size), found 101");
  EXPECT_EQ(message(greedy_request({1}, -2)), "max_tokens: expected -1 (no limit) or more, found -2");
  Request sampling = greedy_request({1}, 1);
  sampling.sampling.top_p = 7.0;
  EXPECT_EQ(message(sampling), "top_p: expected a number from 0 to 1, found 7");
  sampling.sampling = {.logit_bias = {{40, 1.0}}};
  EXPECT_EQ(message(sampling), "logit_bias: expected token ids from 0 to 39, found 40");
  EXPECT_FALSE(engine->step()) << "nothing was queued";
}

TEST(Engine, ScoreNamesWhatIsWrong) {
  const TinyEngine engine(64);
  const auto visit = [](int64_t, int64_t, const float*) { return true; };
  const auto message = [&](const std::vector<int32_t>& ids) { return engine->score(ids, visit).error().message; };
  EXPECT_EQ(message({}), "token ids: expected at least one, found none");
  EXPECT_EQ(message(std::vector<int32_t>(65, 1)), "token ids: expected at most 64 (the context size), found 65");
  EXPECT_EQ(message({40}), "token ids: expected values from 0 to 39, found 40");
  ASSERT_TRUE(engine->submit(greedy_request({1}, 40), {}).has_value());
  engine->step();
  const Status busy = engine->score(std::vector<int32_t>{1}, visit);
  ASSERT_FALSE(busy.has_value());
  EXPECT_EQ(busy.error().code, Errc::kResourceExhausted);
  EXPECT_EQ(busy.error().message, "the cache is in use by other requests");
}

TEST(Engine, ScoreVisitsEveryPositionOnceAndStopsWhenTold) {
  const TinyEngine engine(200);
  const std::vector<int32_t> ids = testing::random_ids(engine->config(), 150, 3);
  int64_t next = 0;
  ForwardTrace trace;
  ASSERT_TRUE(engine
                  ->score(
                      ids,
                      [&](int64_t first, int64_t rows, const float*) {
                        EXPECT_EQ(first, next);
                        EXPECT_LE(rows, 40);
                        next = first + rows;
                        return true;
                      },
                      &trace,
                      40)
                  .has_value());
  EXPECT_EQ(next, 150);
  EXPECT_EQ(trace.final_norm.size(), 150u * 26u);
  int visits = 0;
  ASSERT_TRUE(engine
                  ->score(
                      ids, [&](int64_t, int64_t, const float*) { return ++visits < 2; }, nullptr, 40)
                  .has_value());
  EXPECT_EQ(visits, 2);
}

// The cache is as precise as asked for, scoring gives what generation computes.
TEST(Engine, GreedyFollowsTheScoredLogits) {
  const TinyEngine engine(128);
  EXPECT_EQ(engine->cache_type(), CacheFormat::kF16);
  const std::unique_ptr<Engine> exact =
      open_or_fail({.model = engine.folder.path(), .ctx_size = 128, .compute = Compute::kF32});
  EXPECT_EQ(exact->cache_type(), CacheFormat::kF32);
  const std::unique_ptr<Engine> chosen = open_or_fail(
      {.model = engine.folder.path(), .ctx_size = 128, .cache_type = CacheFormat::kBF16, .compute = Compute::kF32});
  EXPECT_EQ(chosen->cache_type(), CacheFormat::kBF16);
  std::vector<int32_t> ids{3, 4, 5};
  const std::vector<int32_t> output = ids_of(generate(*exact, greedy_request(ids, 10)));
  for (const int32_t id : output) {
    int32_t best = -1;
    ASSERT_TRUE(exact
                    ->score(ids,
                            [&](int64_t, int64_t rows, const float* logits) {
                              best = argmax({logits + (rows - 1) * 40, 40});
                              return true;
                            })
                    .has_value());
    ASSERT_EQ(best, id);
    ids.push_back(id);
  }
}

TEST(Engine, BrokenWeightsFailTheRequestAndNotTheEngine) {
  TinyModel model(testing::tiny_v2_config());
  std::fill_n(model.at("model.embed_tokens.weight").values.begin() + 7 * 26, 26, std::nanf(""));
  const TempDir folder;
  model.write(folder.path());
  const std::unique_ptr<Engine> engine = open_or_fail({.model = folder.path(), .ctx_size = 128});
  const Result<Completion> broken = engine->generate(greedy_request({1, 7}, 5));
  ASSERT_FALSE(broken.has_value());
  EXPECT_EQ(broken.error().code, Errc::kInvalidData);
  EXPECT_THAT(broken.error().message, HasSubstr("logits: expected finite values, found NaN at token 0 of output 0"));
  EXPECT_TRUE(engine->generate(greedy_request({1, 2}, 1)).has_value());
}

TEST(Engine, OpenChecksTheContextSize) {
  const TempDir folder;
  TinyModel(testing::tiny_v2_config()).write(folder.path());
  const Result<std::unique_ptr<Engine>> engine = Engine::open({.model = folder.path(), .threads = 1, .ctx_size = 513});
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().code, Errc::kInvalidArgument);
  EXPECT_EQ(engine.error().message, "--ctx-size: expected at most max_position_embeddings 512, found 513");
}

TEST(Engine, OpenRefusesAPlanThatDoesNotFit) {
  const TempDir folder;
  Json config = testing::tiny_v2_config();
  config.set("max_position_embeddings", int64_t{1} << 30);
  config.set("kv_lora_rank", 2048);  // more than any machine's memory at that length
  TinyModel(config).write(folder.path());
  bool planned = false;
  const Result<std::unique_ptr<Engine>> engine = Engine::open(
      {.model = folder.path(), .threads = 1, .ctx_size = int64_t{1} << 30, .on_plan = [&](const MemoryPlan& plan) {
         planned = plan.cache > 1'000'000'000'000;
       }});
  ASSERT_FALSE(engine.has_value());
  EXPECT_TRUE(planned) << "the plan is shown before it is refused";
  EXPECT_EQ(engine.error().code, Errc::kResourceExhausted);
  EXPECT_THAT(engine.error().message, HasSubstr("memory plan: expected at most "));
  EXPECT_THAT(engine.error().message, HasSubstr("cache of 1073741824 tokens"));
}

TEST(Engine, OpenRefusesATokenizerLargerThanTheVocabulary) {
  const TempDir folder;
  TinyModel(testing::tiny_v2_config()).write(folder.path());
  std::filesystem::copy_file(std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller" / "tokenizer.json",
                             folder / "tokenizer.json");
  const Result<std::unique_ptr<Engine>> engine = Engine::open({.model = folder.path(), .threads = 1});
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().code, Errc::kInvalidData);
  EXPECT_THAT(engine.error().message, HasSubstr("expected a tokenizer of at most vocab_size 40 tokens, found 4096"));
}

TEST(Engine, OpenPassesErrorsAndWarningsOn) {
  const TempDir folder;
  EXPECT_FALSE(Engine::open({.model = folder / "nothing", .threads = 1}).has_value());
  TinyModel model(testing::tiny_v2_config());
  model.tensors.emplace("extra.weight", testing::TinyTensor{.dtype = DType::kF32, .shape = {1}, .values = {1.0F}});
  model.write(folder.path());
  const std::unique_ptr<Engine> engine = open_or_fail({.model = folder.path()});
  EXPECT_EQ(engine->tokenizer(), nullptr);
  EXPECT_EQ(engine->threads(), 2);
  EXPECT_EQ(engine->context_size(), 512) << "the model's own";
  EXPECT_THAT(engine->warnings(),
              ::testing::Contains("1 tensors are not part of this model and are ignored, e.g. \"extra.weight\""));
}

TEST(FinishReason, HasNames) {
  EXPECT_EQ(name_of(FinishReason::kStop), "stop");
  EXPECT_EQ(name_of(FinishReason::kLength), "length");
  EXPECT_EQ(name_of(FinishReason::kCancelled), "cancelled");
}

}  // namespace
}  // namespace lathe
