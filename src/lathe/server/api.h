// Api: the endpoints. Takes calls whose path, method, key and size have been checked, and answers them.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "lathe/server/exchange.h"
#include "lathe/server/generation.h"
#include "lathe/server/routes.h"

namespace lathe::server {

struct ApiOptions {
  int64_t max_queue = 256;
  bool log_requests = true;
  std::string metrics_prefix = "lathe";
  std::string version = {};
};

// All members are for the event loop's thread.
class Api {
 public:
  Api(const ServedModel& model, Service& service, Post post, ApiOptions options);
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  // Answers at once or later.
  void handle(const Route& route, Call call, std::shared_ptr<Exchange> exchange);

  // From now on new work is refused (503). `on_idle` is called when what was under way has ended.
  void drain(std::function<void()> on_idle);
  // Ends what is under way with an error.
  void abort_all();

  bool draining() const { return state_.draining; }

  Metrics& metrics() { return state_.metrics; }

 private:
  void generate(bool chat, Call call, std::shared_ptr<Exchange> exchange);
  void answer_later(Endpoint endpoint, Call call, std::shared_ptr<Exchange> exchange);
  void respond(const Call& call, Exchange& exchange, Reply reply);
  Reply models_reply(const Call& call, Endpoint endpoint) const;
  void check_idle();

  const ServedModel& model_;
  ApiOptions options_;
  ServerState state_;
  std::set<std::shared_ptr<Generation>> active_;
  int64_t pending_ = 0;  // answer_later under way
  std::function<void()> on_idle_;
};

// The reply that tells an error.
Reply error_reply(const ApiError& error);

}  // namespace lathe::server
