// HttpServer: HTTP/1.1 for the API on one thread. Connections that are idle or slow cost a few hundred bytes and a
// timer. What a connection may do is bounded: header and body sizes, time for each, unread output. Boost.Beast parses;
// it and Boost.Asio appear in the http_* sources only (http_asio.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lathe/base/result.h"
#include "lathe/server/access.h"
#include "lathe/server/exchange.h"

namespace lathe::server {

class Api;

struct HttpOptions {
  std::string host = "127.0.0.1";  // an address, or "localhost"
  uint16_t port = 8080;            // 0: any free one
  uint64_t max_body = uint64_t{8} << 20;
  int64_t max_connections = 4096;
  int64_t drain_s = 30;  // on SIGTERM: time for what is under way
  // In seconds.
  double header_timeout_s = 10.0;
  double body_timeout_s = 60.0;
  double idle_timeout_s = 75.0;
  double write_timeout_s = 60.0;  // without progress of a client that has something to read
  double ping_s = 15.0;           // a stream that has nothing to say for so long says so
};

class HttpServer {
 public:
  // Binds and listens; connections wait until run().
  static Result<std::unique_ptr<HttpServer>> listen(HttpOptions options, Access access);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer();

  // "http://127.0.0.1:8080".
  std::string url() const;

  // For other threads.
  Post post();

  // Serves until SIGINT or SIGTERM: then refuses new work, waits for what is under way as long as `drain_s` says, and
  // returns 0. A second signal ends at once: its number is returned.
  int run(Api& api);

  struct State;  // internal

 private:
  HttpServer();
  std::unique_ptr<State> state_;
};

}  // namespace lathe::server
