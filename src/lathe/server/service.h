// Service: the engine behind a queue. One thread drives Engine::step(); jobs and cancellations reach it through the
// queue, and what it makes waits in the job until its owner takes it. A few more threads do the slow part of requests
// (JSON, templates, tokenizing), so that neither the network nor the engine waits for it. Knows neither HTTP nor JSON.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lathe/runtime/engine.h"

namespace lathe::server {

// News of one answer of a job.
struct Update {
  size_t choice = 0;  // index into Job::requests
  std::vector<SampledToken> tokens = {};
  std::vector<SampledToken> prompt_logprobs = {};  // with the first token of a request that wants them
  std::string text = {};
  std::optional<PromptEvent> prompt = {};           // how much of the prompt is read
  double first_at = 0.0;                            // when the first of the tokens came: seconds on the steady clock
  double at = 0.0;                                  // and the last
  std::optional<Result<Completion>> finished = {};  // nothing follows for this answer
};

// Requests that belong together: all answers to one HTTP request.
class Job {
 public:
  // `on_news` is called by the engine's thread when something waits to be taken after nothing did; it must be quick.
  // When more than `max_waiting_bytes` wait, the job is cancelled.
  Job(std::vector<Request> requests, std::function<void()> on_news, size_t max_waiting_bytes = kMaxWaitingBytes);

  // What has arrived since the last call; updates of one answer are joined. Any thread.
  std::vector<Update> take();

  // More waited to be taken than may: the job was cancelled.
  bool overflowed() const { return overflowed_; }

  static constexpr size_t kMaxWaitingBytes = 4 << 20;

 private:
  friend class Service;
  void publish(std::vector<Update> updates);

  std::vector<Request> requests_;  // moved to the engine
  std::function<void()> on_news_;
  size_t max_waiting_bytes_;
  std::vector<RequestId> ids_;  // the engine's; its thread only
  std::vector<Update> fresh_;   // made in this step; engine's thread only
  std::atomic<bool> cancelled_ = false;
  std::atomic<bool> overflowed_ = false;
  std::mutex mutex_;
  std::vector<Update> waiting_;
  size_t waiting_bytes_ = 0;
};

class Service {
 public:
  // Starts the threads. The engine is used by them alone until stop().
  explicit Service(std::unique_ptr<Engine> engine);
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;
  ~Service();  // stop()

  // Queues a job for the engine. Any thread.
  void submit(std::shared_ptr<Job> job);
  // Ends what a job still does, within one step. Its answers finish as kCancelled. Any thread.
  void cancel(const std::shared_ptr<Job>& job);
  // Runs `task` on a thread that may take its time. Any thread.
  void prepare(std::function<void()> task);
  // The engine's counters after its last step. Any thread.
  EngineStats stats() const;
  // Cancels everything and joins the threads. Tasks and jobs that wait are dropped.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe::server
