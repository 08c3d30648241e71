// The endpoints against an exchange that is no network: order of events, limits, clients that leave and that are slow.
#include "lathe/server/api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>

#include "lathe/base/str.h"

namespace lathe::server {
namespace {

using ::testing::HasSubstr;

// What an exchange was told.
struct Wire final : Exchange {
  std::optional<Reply> answer;
  bool begun = false;
  bool ended = false;
  bool reads = true;
  std::string bytes;
  size_t waiting = 0;

  void reply(Reply reply) override {
    EXPECT_FALSE(answer || begun) << "answered twice";
    answer = std::move(reply);
  }

  void begin_stream() override {
    EXPECT_FALSE(answer || begun) << "begun twice";
    begun = true;
  }

  void write(std::string more) override {
    EXPECT_TRUE(begun && !ended);
    if (!reads) waiting += more.size();
    bytes += more;
  }

  void end_stream() override {
    EXPECT_TRUE(begun && !ended);
    ended = true;
  }

  size_t unsent() const override { return waiting; }

  bool done() const { return answer || ended; }

  // The JSON of each event; the last has to be [DONE].
  std::vector<Json> events() const {
    std::vector<Json> out;
    std::string_view rest = bytes;
    while (!rest.empty()) {
      const size_t end = rest.find("\n\n");
      EXPECT_NE(end, std::string_view::npos);
      const std::string_view event = rest.substr(0, end);
      rest.remove_prefix(end + 2);
      EXPECT_TRUE(event.starts_with("data: ")) << event;
      if (rest.empty()) {
        EXPECT_EQ(event, "data: [DONE]");
        break;
      }
      Result<Json> json = parse_json(event.substr(6));
      EXPECT_TRUE(json.has_value()) << event;
      if (json) out.push_back(*std::move(json));
    }
    return out;
  }
};

// An API whose event loop is the test's thread.
class ApiTest : public ::testing::Test {
 protected:
  void open(ApiOptions options = {}, int64_t max_running = 64, int64_t max_batch_tokens = 512) {
    EngineOptions engine_options;
    engine_options.model = std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller";
    engine_options.threads = 1;
    engine_options.max_running = max_running;
    engine_options.max_batch_tokens = max_batch_tokens;
    Result<std::unique_ptr<Engine>> engine = Engine::open(engine_options);
    ASSERT_TRUE(engine.has_value()) << engine.error().message;
    engine_ = engine->get();
    auto model = ServedModel::open(**engine, "story", std::nullopt);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    model_ = *std::move(model);
    service_ = std::make_unique<Service>(*std::move(engine));
    options.log_requests = false;
    api_ = std::make_unique<Api>(
        *model_,
        *service_,
        [this](std::function<void()> function) {
          const std::lock_guard lock(mutex_);
          posted_.push_back(std::move(function));
          wakes_.notify_one();
        },
        options);
  }

  void TearDown() override {
    if (service_) service_->stop();
  }

  std::shared_ptr<Wire> call(const std::string& path, const std::string& body = {}) {
    auto wire = std::make_shared<Wire>();
    call(path, body, wire);
    return wire;
  }

  void call(const std::string& path, const std::string& body, const std::shared_ptr<Wire>& wire) {
    const Route* route = find_route(path);
    ASSERT_NE(route, nullptr) << path;
    api_->handle(*route, {.method = route->post ? "POST" : "GET", .path = path, .body = body}, wire);
  }

  // Runs what was posted, and what will be, until `condition` holds.
  void run_until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "nothing happens any more";
      std::function<void()> next;
      {
        std::unique_lock lock(mutex_);
        if (!wakes_.wait_for(lock, std::chrono::milliseconds(10), [this] { return !posted_.empty(); })) continue;
        next = std::move(posted_.front());
        posted_.pop_front();
      }
      next();
    }
  }

  Json finished(const std::shared_ptr<Wire>& wire) {
    run_until([&] { return wire->done(); });
    Result<Json> json = parse_json(wire->answer ? wire->answer->body : "null");
    EXPECT_TRUE(json.has_value());
    return json ? *std::move(json) : Json();
  }

  static std::string text_of(const Json& choices) {
    const Json& choice = choices.as_array().front();
    const Json* text = choice.find("text");
    return text != nullptr ? text->as_string() : choice.find("message")->find("content")->as_string();
  }

  Engine* engine_ = nullptr;  // its tokenizer may be used; the rest belongs to the service
  std::unique_ptr<const ServedModel> model_;
  std::mutex mutex_;
  std::condition_variable wakes_;
  std::deque<std::function<void()>> posted_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Api> api_;
};

constexpr const char* kCompletions = "/v1/completions";
constexpr const char* kStory = R"({"prompt": "The king", "max_tokens": 12, "temperature": 0, "ignore_eos": true)";

TEST_F(ApiTest, StreamsWhatItAnswersWhole) {
  open();
  const Json whole = finished(call(kCompletions, str(kStory, "}")));
  const std::shared_ptr<Wire> wire =
      call(kCompletions, str(kStory, R"(, "stream": true, "stream_options": {"include_usage": true}})"));
  finished(wire);
  const std::vector<Json> events = wire->events();
  ASSERT_GT(events.size(), 3U);
  std::string text;
  int reasons = 0;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const Json& choice = events[i].find("choices")->as_array().front();
    text += choice.find("text")->as_string();
    if (!choice.find("finish_reason")->is_null()) ++reasons;
    EXPECT_TRUE(events[i].find("usage")->is_null());
  }
  EXPECT_EQ(text, text_of(*whole.find("choices")));
  EXPECT_EQ(reasons, 1);
  EXPECT_TRUE(events.back().find("choices")->as_array().empty());
  EXPECT_EQ(events.back().find("usage")->find("completion_tokens")->as_int(), 12);
  EXPECT_EQ(whole.find("usage")->dump(), events.back().find("usage")->dump());
}

// Steps whose news the reader was too late for are told by the next one, or not at all when the answer has begun.
TEST_F(ApiTest, TellsHowMuchOfAPromptIsRead) {
  open({}, /*max_running=*/4, /*max_batch_tokens=*/8);
  std::string prompt;
  for (int i = 0; i < 100; ++i) prompt += "the king ";
  const std::string body = str(R"({"prompt": ")", prompt, R"(", "max_tokens": 4, "temperature": 0, "stream": true)");
  const std::shared_ptr<Wire> told = call(kCompletions, body + R"(, "return_progress": true})");
  finished(told);
  const std::shared_ptr<Wire> plain = call(kCompletions, body + "}");
  finished(plain);
  EXPECT_EQ(plain->bytes.find("prompt_progress"), std::string::npos);
  std::vector<int64_t> processed;
  std::string text;
  for (const Json& event : told->events()) {
    const std::string piece = event.find("choices")->as_array().front().find("text")->as_string();
    text += piece;
    const Json* progress = event.find("prompt_progress");
    if (progress == nullptr) continue;
    EXPECT_EQ(piece, "");
    EXPECT_TRUE(text.empty()) << "after the answer has begun";
    processed.push_back(progress->find("processed")->as_int());
    EXPECT_GT(progress->find("total")->as_int(), 100);
    EXPECT_LT(processed.back(), progress->find("total")->as_int());
    EXPECT_GE(processed.back(), progress->find("cache")->as_int());
    EXPECT_GT(progress->find("time_ms")->as_double(), 0.0);
  }
  EXPECT_FALSE(processed.empty());
  EXPECT_TRUE(std::ranges::is_sorted(processed, std::ranges::less_equal()));
}

// The likeliest two of six are those that the six tell by their log-probabilities.
TEST_F(ApiTest, TellsTheBestOfManyAnswers) {
  open();
  const std::string body = R"({"prompt": ["The king", "A fox"], "max_tokens": 12, "temperature": 1, "seed": 5)";
  const Json all = finished(call(kCompletions, str(body, R"(, "n": 6, "logprobs": 0})")));
  std::vector<std::string> expected;
  for (size_t prompt = 0; prompt < 2; ++prompt) {
    std::vector<std::pair<double, std::string>> answers;
    for (size_t i = 6 * prompt; i < 6 * prompt + 6; ++i) {
      const Json& choice = all.find("choices")->as_array()[i];
      const Json::Array& logprobs = choice.find("logprobs")->find("token_logprobs")->as_array();
      double sum = 0.0;
      for (const Json& one : logprobs) sum += one.as_double();
      answers.emplace_back(-sum / static_cast<double>(logprobs.size()), choice.find("text")->as_string());
    }
    std::ranges::sort(answers);
    expected.push_back(answers[0].second);
    expected.push_back(answers[1].second);
  }
  const Json best = finished(call(kCompletions, str(body, R"(, "n": 2, "best_of": 6})")));
  const Json::Array& choices = best.find("choices")->as_array();
  ASSERT_EQ(choices.size(), 4U);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(choices[i].find("text")->as_string(), expected[i]) << i;
    EXPECT_EQ(choices[i].find("index")->as_int(), static_cast<int64_t>(i));
    EXPECT_TRUE(choices[i].find("logprobs")->is_null());
  }
  EXPECT_EQ(best.find("usage")->dump(), all.find("usage")->dump()) << "all that was made counts";
}

TEST_F(ApiTest, EveryChunkMayTellTheUsageSoFar) {
  open();
  const auto wire = call(
      kCompletions,
      str(kStory,
          R"(, "n": 2, "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true}})"));
  finished(wire);
  const std::vector<Json> events = wire->events();
  int64_t before = 0;
  for (const Json& event : events) {
    const Json& usage = *event.find("usage");
    const int64_t tokens = usage.find("completion_tokens")->as_int();
    EXPECT_GE(tokens, before);
    EXPECT_EQ(usage.find("total_tokens")->as_int(), tokens + usage.find("prompt_tokens")->as_int());
    before = tokens;
  }
  EXPECT_GT(events.front().find("usage")->find("completion_tokens")->as_int(), 0);
  EXPECT_EQ(before, 24);
}

// Whether or not it releases text that was held back for a stop string.
TEST_F(ApiTest, TheTokenThatEndsAnAnswerCounts) {
  open();
  const Json whole = finished(call(kCompletions, str(kStory, R"(, "return_token_ids": true})")));
  std::vector<int64_t> ids;
  for (const Json& id : whole.find("choices")->as_array().front().find("token_ids")->as_array()) {
    ids.push_back(id.as_int());
  }
  ptrdiff_t end = 4;  // a token that did not come before
  while (std::find(ids.begin(), ids.begin() + end, ids[static_cast<size_t>(end)]) != ids.begin() + end) ++end;
  const int64_t stop_id = ids[static_cast<size_t>(end)];
  const std::string last = engine_->tokenizer()->token_bytes(static_cast<int32_t>(ids[static_cast<size_t>(end - 1)]));
  const int64_t expected = end + 1;
  for (const std::string& stop : {std::string("zzz"), last + "zzz"}) {
    const std::string body =
        str(kStory, R"(, "stop_token_ids": [)", stop_id, R"(], "return_token_ids": true, "stop": )", Json(stop).dump());
    const Json answer = finished(call(kCompletions, body + "}"));
    const Json& choice = answer.find("choices")->as_array().front();
    EXPECT_EQ(choice.find("finish_reason")->as_string(), "stop");
    EXPECT_EQ(std::ssize(choice.find("token_ids")->as_array()), end);
    EXPECT_EQ(answer.find("usage")->find("completion_tokens")->as_int(), expected) << stop;
    EXPECT_EQ(answer.find("timings")->find("predicted_n")->as_int(), expected) << stop;
    const auto wire = call(kCompletions, body + R"(, "stream": true, "stream_options": {"include_usage": true}})");
    finished(wire);
    EXPECT_EQ(wire->events().back().find("usage")->dump(), answer.find("usage")->dump()) << stop;
  }
}

TEST_F(ApiTest, StreamsEveryTokenId) {
  open();
  // The first byte of a character, again and again: the first token gives no text.
  int32_t id = 0;
  while (engine_->tokenizer()->token_bytes(id) != "\xc3") ++id;
  for (const bool chat : {false, true}) {
    const std::shared_ptr<Wire> wire =
        call(chat ? "/v1/chat/completions" : kCompletions,
             str(R"({"messages": [{"role": "user", "content": "a"}], "prompt": "a", "max_tokens": 5, "temperature": 0,
                     "stream": true, "return_token_ids": true, "logit_bias": {")",
                 id,
                 R"(": 100}})"));
    finished(wire);
    std::vector<int64_t> ids;
    for (const Json& event : wire->events()) {
      const Json* some = event.find("choices")->as_array().front().find("token_ids");
      if (some == nullptr) continue;
      for (const Json& one : some->as_array()) ids.push_back(one.as_int());
    }
    EXPECT_EQ(ids, std::vector<int64_t>(5, id)) << "chat: " << chat;
  }
}

TEST_F(ApiTest, RefusesBadRequestsWithoutTheEngine) {
  open();
  const std::shared_ptr<Wire> wire = call(kCompletions, R"({"prompt": "a", "n": 0})");
  const Json error = finished(wire);
  EXPECT_EQ(wire->answer->status, 400);
  EXPECT_EQ(error.find("error")->find("param")->as_string(), "n");
  EXPECT_EQ(service_->stats().steps, 0);
}

TEST_F(ApiTest, MoreThanMayWaitIsTooMuch) {
  open({.max_queue = 2}, /*max_running=*/1);
  const std::string body = R"({"prompt": "The king", "max_tokens": 100, "ignore_eos": true})";
  const auto first = call(kCompletions, body);
  const auto second = call(kCompletions, body);
  const auto third = call(kCompletions, body);
  ASSERT_TRUE(third->answer.has_value());
  EXPECT_EQ(third->answer->status, 429);
  EXPECT_THAT(third->answer->headers, ::testing::Contains(::testing::Pair("Retry-After", ::testing::_)));
  finished(first);
  finished(second);
  EXPECT_EQ(first->answer->status, 200);
  EXPECT_EQ(second->answer->status, 200);
  const auto fourth = call(kCompletions, body);
  finished(fourth);
  EXPECT_EQ(fourth->answer->status, 200);
}

TEST_F(ApiTest, AClientThatLeavesFreesWhatItHad) {
  open();
  const auto wire =
      call(kCompletions, R"({"prompt": "The king", "max_tokens": 400, "ignore_eos": true, "stream": true})");
  run_until([&] { return !wire->bytes.empty(); });
  wire->on_closed();
  const size_t before = wire->bytes.size();
  const Json next = finished(call(kCompletions, R"({"prompt": "a", "max_tokens": 1})"));
  EXPECT_EQ(next.find("choices")->as_array().size(), 1U);
  EXPECT_EQ(wire->bytes.size(), before);
  EXPECT_EQ(api_->metrics().disconnects, 1U);
  EXPECT_EQ(api_->metrics().finished["abort"], 1U);
  const EngineStats stats = service_->stats();
  EXPECT_EQ(stats.running, 0);
  EXPECT_LT(stats.generated_tokens, 400);
}

TEST_F(ApiTest, ASlowClientGetsItsAnswerInFewLargeEvents) {
  open();
  const std::string body = str(kStory, R"(, "stream": true, "n": 2, "logprobs": 20})");
  const auto wire = std::make_shared<Wire>();
  wire->waiting = kHighWater + 1;
  call(kCompletions, body, wire);
  // The engine does all of it; nothing is written meanwhile.
  run_until([&] { return service_->stats().generated_tokens == 24; });
  EXPECT_TRUE(wire->bytes.empty());
  wire->waiting = 0;
  wire->on_drained();
  finished(wire);
  EXPECT_LE(wire->events().size(), 6U);
  std::string text;
  for (const Json& event : wire->events()) {
    const Json& choice = event.find("choices")->as_array().front();
    if (choice.find("index")->as_int() == 1) text += choice.find("text")->as_string();
  }
  EXPECT_EQ(text, text_of(*finished(call(kCompletions, str(kStory, "}"))).find("choices")));
}

TEST_F(ApiTest, DrainingEndsWhatRunsAndRefusesTheRest) {
  open();
  const auto running = call(kCompletions, str(kStory, "}"));
  bool idle = false;
  api_->drain([&] { idle = true; });
  EXPECT_FALSE(idle);
  for (const char* path : {kCompletions, "/v1/chat/completions", "/tokenize"}) {
    const auto late = call(path, str(kStory, "}"));
    ASSERT_TRUE(late->answer.has_value()) << path;
    EXPECT_EQ(late->answer->status, 503) << path;
  }
  EXPECT_EQ(call("/health")->answer->status, 503);
  finished(running);
  EXPECT_EQ(running->answer->status, 200);
  EXPECT_TRUE(idle);
}

TEST_F(ApiTest, AbortEndsStreamsWithAnError) {
  open();
  const auto wire =
      call(kCompletions, R"({"prompt": "The king", "max_tokens": 400, "ignore_eos": true, "stream": true})");
  run_until([&] { return !wire->bytes.empty(); });
  bool idle = false;
  api_->drain([&] { idle = true; });
  api_->abort_all();
  EXPECT_TRUE(wire->ended);
  EXPECT_TRUE(idle);
  EXPECT_THAT(wire->bytes, HasSubstr("the server is shutting down"));
  EXPECT_THAT(wire->bytes, ::testing::Not(HasSubstr("[DONE]")));
}

TEST_F(ApiTest, AnswersTheSmallEndpoints) {
  open({.version = "1.2"});
  EXPECT_EQ(call("/version")->answer->body, R"({"version":"1.2"})");
  EXPECT_EQ(call("/health")->answer->body, R"({"status":"ok"})");
  EXPECT_EQ(parse_json(call("/v1/models")->answer->body)->find("data")->as_array().front().find("id")->as_string(),
            "story");
  EXPECT_EQ(call("/v1/models/sto%72y")->answer->status, 200);
  EXPECT_EQ(call("/v1/models/other")->answer->status, 404);
  EXPECT_THAT(call("/metrics")->answer->body, HasSubstr("lathe:num_requests_running"));
  const Json ids = finished(call("/tokenize", R"({"prompt": "a king", "add_special_tokens": false})"));
  const Json text = finished(call("/detokenize", str(R"({"tokens": )", ids.find("tokens")->dump(), "}")));
  EXPECT_EQ(text.find("content")->as_string(), "a king");
}

}  // namespace
}  // namespace lathe::server
