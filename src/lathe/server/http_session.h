// HttpSession: one connection of an HttpServer: requests one after the other, each answered before the next is looked
// at.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "lathe/server/exchange.h"
#include "lathe/server/http_request.h"
#include "lathe/server/http_server_state.h"
#include "lathe/server/request_log.h"

namespace lathe::server {

class HttpSession final : public Exchange, public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(HttpServer::State& server, Tcp::socket socket);
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;
  ~HttpSession() override;

  // Reads the first request; from here on the session's handlers keep it alive.
  void start();

  // Whatever it does.
  void close();

  // A connection that waits for a request when the server drains has nothing to wait for.
  void stop_if_idle() {
    if (phase_ == Phase::kIdle) close();
  }

  void reply(Reply reply) override;
  void begin_stream() override;
  void write(std::string bytes) override;
  void end_stream() override;

  size_t unsent() const override { return unsent_; }

 private:
  enum class Phase {
    kIdle,     // between requests
    kHeader,   // reading a request's header
    kBody,     // and its body
    kWorking,  // the API has it
    kStream,   // a stream has begun
    kFlush,    // the answer is complete, not all of it is sent
    kLinger,   // all is sent, and the connection ends
    kClosed,
  };

  void next_request();
  void read_header();
  void on_header(const error_code& error);
  void read_body(const Route& route);
  void hand_over(const Route& route, std::string body, std::shared_ptr<void> lease);
  void refuse(const ApiError& error);
  void answer_options(const Route* route);
  std::shared_ptr<void> lease_body(uint64_t bytes);

  void read_some();
  void on_read(const error_code& error, size_t bytes);
  void send(std::string bytes);
  void write_some();
  void on_write(const error_code& error, size_t bytes);
  void on_flushed();
  std::string head(int status, std::string_view content_type, const Reply* reply, std::optional<size_t> length) const;

  void arm_timer();
  void set_deadline(double s);
  void on_deadline();
  void set_busy(bool busy);

  std::string_view field(http::field name) const { return field_of(parser_->get(), name); }

  // A handler that keeps the session alive, and lets no exception out: the connection that met it ends.
  template <class Function>
  auto guarded(Function function) {
    return [self = shared_from_this(), function = std::move(function)](auto&&... arguments) mutable {
      try {
        if (self->phase_ != Phase::kClosed) function(std::forward<decltype(arguments)>(arguments)...);
      } catch (const std::exception& e) {
        log_internal_error(e.what());
        self->close();
      }
    };
  }

  HttpServer::State& server_;
  Tcp::socket socket_;
  net::steady_timer timer_;
  boost::beast::flat_buffer buffer_;
  std::optional<http::request_parser<HttpRequest::body_type>> parser_;
  std::string client_;
  Phase phase_ = Phase::kIdle;
  Clock::time_point deadline_;
  Clock::time_point last_progress_;
  std::string pending_;  // to be sent
  std::string sending_;  // being sent, from sent_ on
  size_t sent_ = 0;
  size_t unsent_ = 0;
  size_t lingered_ = 0;
  uint64_t key_ = 0;
  bool reading_ = false;
  bool writing_ = false;
  bool busy_ = false;
  bool head_only_ = false;
  bool chunked_ = false;
  bool keep_alive_ = false;
};

}  // namespace lathe::server
