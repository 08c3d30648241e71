// HttpServer::State: what the connections of a server share.
#pragma once

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <memory>
#include <unordered_set>
#include <utility>

#include "lathe/server/http_asio.h"
#include "lathe/server/http_server.h"

namespace lathe::server {

using Clock = std::chrono::steady_clock;

inline Clock::duration seconds(double s) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

class HttpSession;

// Lives on the event loop's thread, apart from `body_bytes` and what posts to `io`.
struct HttpServer::State {
  HttpOptions options;
  Access access;
  // Before the context, whose end takes the sessions along.
  std::unordered_set<HttpSession*> sessions;
  std::shared_ptr<std::atomic<uint64_t>> body_bytes = std::make_shared<std::atomic<uint64_t>>(0);  // read or prepared
  net::io_context io{1};
  Tcp::acceptor acceptor{io};
  net::steady_timer retry{io};
  net::steady_timer drain_timer{io};
  net::signal_set signals{io, SIGINT, SIGTERM};
  Api* api = nullptr;
  int64_t busy = 0;  // sessions that have a request
  bool draining = false;
  bool api_idle = false;
  int forced = 0;

  explicit State(HttpOptions o, Access a) : options(std::move(o)), access(std::move(a)) {}

  // Binds and listens.
  Status open();
  // Waits for the next connection.
  void accept();
  // One has come, or cannot: what is above the limit of connections gets a 503.
  void on_accept(const error_code& error, Tcp::socket socket);
  // Waits for SIGINT or SIGTERM.
  void wait_for_signal();
  // Begins to drain; the second time, stops.
  void on_signal(int number);
  // Ends run() when the server drains and its last answer is sent.
  void stop_when_idle();
};

}  // namespace lathe::server
