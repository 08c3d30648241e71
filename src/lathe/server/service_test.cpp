#include "lathe/server/service.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <iterator>
#include <mutex>
#include <thread>

namespace lathe::server {
namespace {

std::unique_ptr<Engine> open_storyteller(EngineOptions options = {}) {
  options.model = std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller";
  options.threads = 1;
  Result<std::unique_ptr<Engine>> engine = Engine::open(options);
  EXPECT_TRUE(engine.has_value()) << (engine ? "" : engine.error().message);
  return *std::move(engine);
}

Request story(const Engine& engine, const std::string& text, int64_t max_tokens) {
  return {.prompt = engine.tokenizer()->encode(text, AddedTokens::kText), .max_tokens = max_tokens, .ignore_eos = true};
}

// Waits for a job's news until all its answers have ended.
class Reader {
 public:
  explicit Reader(size_t answers) : answers_(answers) {}

  std::function<void()> on_news() {
    return [this] {
      const std::lock_guard lock(mutex_);
      ++news_;
      wakes_.notify_one();
    };
  }

  // Each answer as one update.
  std::vector<Update> read(Job& job) {
    std::vector<Update> out(answers_);
    size_t ended = 0;
    while (true) {
      for (Update& update : job.take()) {
        Update& all = out[update.choice];
        EXPECT_FALSE(all.finished.has_value()) << "news after the end";
        all.text += update.text;
        std::ranges::move(update.tokens, std::back_inserter(all.tokens));
        if (!update.finished) continue;
        all.finished = std::move(update.finished);
        ++ended;
      }
      if (ended == answers_ || ::testing::Test::HasFatalFailure()) return out;
      wait();
    }
  }

  void wait() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(wakes_.wait_for(lock, std::chrono::seconds(60), [this] { return news_ > 0; })) << "no news";
    news_ = 0;
  }

 private:
  size_t answers_;
  std::mutex mutex_;
  std::condition_variable wakes_;
  int news_ = 0;
};

TEST(Service, AnswersAJobLikeTheEngineAlone) {
  const std::unique_ptr<Engine> alone = open_storyteller();
  const std::vector<std::string> texts = {"The king", "A little dog", "One day"};
  std::unique_ptr<Engine> engine = open_storyteller();
  std::vector<Request> requests;
  for (const std::string& text : texts) requests.push_back(story(*engine, text, 20));
  Service service(std::move(engine));
  Reader reader(texts.size());
  const auto job = std::make_shared<Job>(std::move(requests), reader.on_news());
  service.submit(job);
  const std::vector<Update> updates = reader.read(*job);
  for (size_t i = 0; i < texts.size(); ++i) {
    const Result<Completion> expected = alone->generate(story(*alone, texts[i], 20));
    ASSERT_TRUE(expected.has_value() && updates[i].finished->has_value());
    EXPECT_EQ(updates[i].text, expected->text);
    EXPECT_EQ(updates[i].tokens.size(), expected->tokens.size());
    EXPECT_EQ((*updates[i].finished)->text, expected->text);
  }
  EXPECT_TRUE(job->take().empty());
}

TEST(Service, TellsWhatTheEngineRefuses) {
  Service service(open_storyteller());
  Reader reader(1);
  std::vector<Request> requests(1);
  requests[0].prompt = {1 << 30};
  const auto job = std::make_shared<Job>(std::move(requests), reader.on_news());
  service.submit(job);
  const std::vector<Update> updates = reader.read(*job);
  ASSERT_FALSE(updates[0].finished->has_value());
  EXPECT_EQ(updates[0].finished->error().code, Errc::kInvalidArgument);
}

TEST(Service, CancelEndsWhatRunsAndWhatWaits) {
  std::unique_ptr<Engine> engine = open_storyteller({.max_running = 1});
  const auto make = [&](Reader& reader) {
    std::vector<Request> requests;
    for (int i = 0; i < 2; ++i) requests.push_back(story(*engine, "The king", 400));
    return std::make_shared<Job>(std::move(requests), reader.on_news());
  };
  Reader first_reader(2);
  Reader second_reader(2);
  const std::shared_ptr<Job> first = make(first_reader);
  const std::shared_ptr<Job> second = make(second_reader);
  Service service(std::move(engine));
  service.submit(first);
  first_reader.wait();  // it has begun
  service.submit(second);
  service.cancel(second);
  service.cancel(first);
  for (Update& update : first_reader.read(*first)) {
    ASSERT_TRUE(update.finished->has_value());
    EXPECT_EQ((*update.finished)->finish_reason, FinishReason::kCancelled);
  }
  for (Update& update : second_reader.read(*second)) {
    ASSERT_TRUE(update.finished->has_value());
    EXPECT_EQ((*update.finished)->finish_reason, FinishReason::kCancelled);
    EXPECT_TRUE(update.tokens.empty());
  }
  const EngineStats stats = service.stats();
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.free_pages, stats.pages);
}

// A reader that never takes its news gets no unbounded heap of them.
TEST(Service, GivesUpAJobThatNobodyReads) {
  std::unique_ptr<Engine> engine = open_storyteller({.ctx_size = 512, .cache_tokens = 4 * 512, .max_running = 4});
  std::vector<Request> requests;
  for (int i = 0; i < 4; ++i) {
    requests.push_back(story(*engine, "The king", 500));
    requests.back().sampling.logprobs = 20;
  }
  const int64_t asked = std::ssize(requests) * 500;
  Service service(std::move(engine));
  Reader reader(4);
  const auto job = std::make_shared<Job>(std::move(requests), reader.on_news(), /*max_waiting_bytes=*/32 << 10);
  service.submit(job);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(100);
  while (!job->overflowed() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_TRUE(job->overflowed());
  int64_t tokens = 0;
  for (const Update& update : reader.read(*job)) tokens += std::ssize(update.tokens);
  EXPECT_GT(tokens, 0);
  EXPECT_LT(tokens, asked);
}

TEST(Service, PreparesTasksAndDropsThemAtTheEnd) {
  Service service(open_storyteller());
  std::mutex mutex;
  std::condition_variable wakes;
  int done = 0;
  for (int i = 0; i < 10; ++i) {
    service.prepare([&] {
      const std::lock_guard lock(mutex);
      ++done;
      wakes.notify_one();
    });
  }
  {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(wakes.wait_for(lock, std::chrono::seconds(60), [&] { return done == 10; }));
  }
  service.stop();
  service.prepare([&] { ++done; });
  service.stop();  // twice is once
  EXPECT_EQ(done, 10);
}

}  // namespace
}  // namespace lathe::server
