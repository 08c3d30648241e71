#include "lathe/server/service.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <thread>
#include <utility>

#include "lathe/base/clock.h"
#include "lathe/base/log.h"

namespace lathe::server {

namespace {

constexpr int kPreparingThreads = 2;

size_t bytes_of(const Update& update) {
  size_t bytes = sizeof(Update) + update.text.size();
  for (const SampledToken& token : update.tokens) {
    bytes += sizeof(SampledToken) + token.top.size() * sizeof(TokenLogprob);
  }
  return bytes;
}

// Updates of one answer become one, so that a reader who is late gets few large ones.
void join(std::vector<Update>& into, std::vector<Update> updates) {
  for (Update& update : updates) {
    const auto same = std::ranges::find_if(into, [&](const Update& u) { return u.choice == update.choice; });
    if (same == into.end()) {
      into.push_back(std::move(update));
      continue;
    }
    same->text += update.text;
    if (update.prompt) same->prompt = update.prompt;
    same->at = update.at;
    if (same->tokens.empty()) same->first_at = update.first_at;
    std::ranges::move(update.tokens, std::back_inserter(same->tokens));
    std::ranges::move(update.prompt_logprobs, std::back_inserter(same->prompt_logprobs));
    if (update.finished) same->finished = std::move(update.finished);
  }
}

}  // namespace

Job::Job(std::vector<Request> requests, std::function<void()> on_news, size_t max_waiting_bytes)
    : requests_(std::move(requests)), on_news_(std::move(on_news)), max_waiting_bytes_(max_waiting_bytes) {}

std::vector<Update> Job::take() {
  const std::lock_guard lock(mutex_);
  waiting_bytes_ = 0;
  return std::exchange(waiting_, {});
}

void Job::publish(std::vector<Update> updates) {
  bool was_empty = false;
  {
    const std::lock_guard lock(mutex_);
    was_empty = waiting_.empty();
    for (const Update& update : updates) waiting_bytes_ += bytes_of(update);
    join(waiting_, std::move(updates));
    if (waiting_bytes_ > max_waiting_bytes_) {
      // Takes effect with the next token.
      overflowed_ = true;
      cancelled_ = true;
    }
  }
  if (was_empty) on_news_();
}

struct Service::State {
  std::unique_ptr<Engine> engine;

  std::mutex mutex;  // of what follows
  std::condition_variable engine_wakes;
  std::condition_variable preparers_wake;
  bool stopping = false;
  std::deque<std::shared_ptr<Job>> submitted;
  std::deque<std::shared_ptr<Job>> cancelled;
  std::deque<std::function<void()>> tasks;
  EngineStats stats;

  std::vector<std::shared_ptr<Job>> fresh_jobs;  // have news of this step; engine's thread only
  std::thread engine_thread;
  std::vector<std::thread> preparing_threads;

  void run_engine();
  bool take_commands(bool wait);
  void start(const std::shared_ptr<Job>& job);
  void add(const std::shared_ptr<Job>& job, Update update);
  void publish();
  void run_tasks();
};

// Collects news; they are handed on when the step is over, so that a job is woken once per step.
void Service::State::add(const std::shared_ptr<Job>& job, Update update) {
  if (job->fresh_.empty()) fresh_jobs.push_back(job);
  std::vector<Update> one;
  one.push_back(std::move(update));
  join(job->fresh_, std::move(one));
}

void Service::State::publish() {
  {
    // Before anybody hears of what happened.
    const std::lock_guard lock(mutex);
    stats = engine->stats();
  }
  for (const std::shared_ptr<Job>& job : std::exchange(fresh_jobs, {})) job->publish(std::exchange(job->fresh_, {}));
}

void Service::State::start(const std::shared_ptr<Job>& job) {
  for (size_t choice = 0; choice < job->requests_.size(); ++choice) {
    Request& request = job->requests_[choice];
    if (job->cancelled_) {
      Completion nothing;
      nothing.finish_reason = FinishReason::kCancelled;
      add(job, {.choice = choice, .finished = std::move(nothing)});
      continue;
    }
    // The engine holds these callbacks no longer than the request.
    request.on_prompt = [this, job, choice](const PromptEvent& event) {
      add(job, {.choice = choice, .prompt = event, .at = now_seconds()});
      return !job->cancelled_;
    };
    request.on_token = [this, job, choice, first = true](const TokenEvent& event) mutable {
      const double now = now_seconds();
      Update update{.choice = choice, .text = std::string(event.text), .first_at = now, .at = now};
      if (!event.is_stop_token) update.tokens.push_back(event.token);
      if (std::exchange(first, false)) {
        update.prompt_logprobs.assign(event.prompt_logprobs.begin(), event.prompt_logprobs.end());
      }
      add(job, std::move(update));
      return !job->cancelled_;
    };
    auto on_finished = [this, job, choice](RequestId, Result<Completion> result) {
      add(job, {.choice = choice, .at = now_seconds(), .finished = std::move(result)});
    };
    Result<RequestId> id = engine->submit(std::move(request), std::move(on_finished));
    if (id) {
      job->ids_.push_back(*id);
    } else {
      add(job, {.choice = choice, .at = now_seconds(), .finished = std::move(id).error()});
    }
  }
  job->requests_.clear();
}

// False when it is time to end.
bool Service::State::take_commands(bool wait) {
  std::deque<std::shared_ptr<Job>> starting;
  std::deque<std::shared_ptr<Job>> ending;
  {
    std::unique_lock lock(mutex);
    if (wait) engine_wakes.wait(lock, [this] { return stopping || !submitted.empty() || !cancelled.empty(); });
    if (stopping) return false;
    starting.swap(submitted);
    ending.swap(cancelled);
  }
  for (const std::shared_ptr<Job>& job : starting) start(job);
  for (const std::shared_ptr<Job>& job : ending) {
    for (const RequestId id : job->ids_) engine->cancel(id);
  }
  publish();
  return true;
}

void Service::State::run_engine() {
  bool busy = false;
  while (take_commands(/*wait=*/!busy)) {
    busy = engine->step();
    publish();
  }
}

void Service::State::run_tasks() {
  while (true) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex);
      preparers_wake.wait(lock, [this] { return stopping || !tasks.empty(); });
      if (stopping) return;
      task = std::move(tasks.front());
      tasks.pop_front();
    }
    task();
  }
}

Service::Service(std::unique_ptr<Engine> engine) : state_(std::make_unique<State>()) {
  state_->engine = std::move(engine);
  state_->stats = state_->engine->stats();
  state_->engine_thread = std::thread([state = state_.get()] { state->run_engine(); });
  for (int i = 0; i < kPreparingThreads; ++i) {
    state_->preparing_threads.emplace_back([state = state_.get()] { state->run_tasks(); });
  }
}

Service::~Service() {
  stop();
}

void Service::submit(std::shared_ptr<Job> job) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->submitted.push_back(std::move(job));
  }
  state_->engine_wakes.notify_one();
}

void Service::cancel(const std::shared_ptr<Job>& job) {
  if (job->cancelled_.exchange(true)) return;
  {
    const std::lock_guard lock(state_->mutex);
    state_->cancelled.push_back(job);
  }
  state_->engine_wakes.notify_one();
}

void Service::prepare(std::function<void()> task) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->tasks.push_back(std::move(task));
  }
  state_->preparers_wake.notify_one();
}

EngineStats Service::stats() const {
  const std::lock_guard lock(state_->mutex);
  return state_->stats;
}

void Service::stop() {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->stopping) return;
    state_->stopping = true;
  }
  state_->engine_wakes.notify_all();
  state_->preparers_wake.notify_all();
  state_->engine_thread.join();
  for (std::thread& thread : state_->preparing_threads) thread.join();
}

}  // namespace lathe::server
