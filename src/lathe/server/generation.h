// Generation: one request for text on its way: prepared by a thread that may take its time, computed by the service,
// answered through its exchange. Lives on the event loop's thread and keeps itself alive until its end.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lathe/server/answer.h"
#include "lathe/server/exchange.h"
#include "lathe/server/metrics.h"
#include "lathe/server/served_model.h"
#include "lathe/server/service.h"

namespace lathe::server {

// A request as the network delivered it.
struct Call {
  std::string method = {};
  std::string path = {};
  std::string body = {};
  std::string if_none_match = {};    // the header
  std::string client = {};           // address, for the log
  uint64_t key = 0;                  // number of the API key; 0: none are in use
  std::shared_ptr<void> lease = {};  // held while the body is in memory
};

// What all requests share. Used on the event loop's thread only, but for `service`, `model` and `post`.
struct ServerState {
  const ServedModel& model;
  Service& service;
  Post post;
  int64_t max_queue = 256;  // requests without a first token
  bool log_requests = true;
  Metrics metrics = {};
  int64_t waiting = 0;  // requests (answers, once their number is known) without a first token
  bool draining = false;
};

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(ServerState& state, std::shared_ptr<Exchange> exchange) : state_(state), exchange_(std::move(exchange)) {}

  // Starts the work; `on_ended` is called once, when all is over.
  void start(bool chat, Call call, std::function<void()> on_ended);
  // Ends it early with an error for the client.
  void abort(const ApiError& error);

 private:
  // What the preparing thread made of a body.
  struct Prepared {
    GenerationRequest request;
    PreparedRequest engine;
  };

  static std::variant<Prepared, ApiError> prepare_body(const ServedModel& model, bool chat, const std::string& body);
  void on_prepared(std::variant<Prepared, ApiError> result);
  void pump();
  void record(const std::vector<Update>& updates);
  void fail(const ApiError& error);
  void complete();
  void client_left();
  void end(int status);

  ServerState& state_;
  std::shared_ptr<Exchange> exchange_;
  std::function<void()> on_ended_;
  std::string path_;
  std::string client_;
  uint64_t key_ = 0;
  std::shared_ptr<Job> job_;
  std::optional<Answer> answer_;
  std::vector<double> last_token_at_;  // by choice; 0: none yet
  std::vector<bool> finished_;         // by choice
  int64_t waiting_share_ = 0;          // of ServerState::waiting
  int64_t n_ = 1;
  double started_at_ = 0.0;
  bool stream_ = false;
  bool stream_begun_ = false;
  bool ended_ = false;
};

}  // namespace lathe::server
