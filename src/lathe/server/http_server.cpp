#include "lathe/server/http_server.h"

#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <iterator>
#include <string_view>

#include "lathe/base/log.h"
#include "lathe/server/api.h"
#include "lathe/server/http_server_state.h"
#include "lathe/server/http_session.h"
#include "lathe/server/request_log.h"
#include "lathe/server/systemd.h"

namespace lathe::server {

namespace {

constexpr double kForcedStopSeconds = 2.0;  // after the time to drain

}  // namespace

Status HttpServer::State::open() {
  error_code error;
  const std::string address = options.host == "localhost" ? "127.0.0.1" : options.host;
  const net::ip::address ip = net::ip::make_address(address, error);
  if (error) {
    return Error{Errc::kInvalidArgument, str("--host: expected an IP address or localhost, found ", quoted(address))};
  }
  const Tcp::endpoint endpoint(ip, options.port);
  const auto fail = [&](std::string_view what) {
    return Error{Errc::kIo, str(options.host, ":", options.port, ": ", what, ": ", error.message())};
  };
  acceptor.open(endpoint.protocol(), error);
  if (error) return fail("open");
  acceptor.set_option(net::socket_base::reuse_address(true), error);
  acceptor.bind(endpoint, error);
  if (error) return fail("bind");
  acceptor.listen(net::socket_base::max_listen_connections, error);
  if (error) return fail("listen");
  return {};
}

void HttpServer::State::accept() {
  acceptor.async_accept([this](const error_code& error, Tcp::socket socket) { on_accept(error, std::move(socket)); });
}

void HttpServer::State::on_accept(const error_code& error, Tcp::socket socket) {
  if (error == net::error::operation_aborted) return;
  if (error) {
    // Out of descriptors, most likely: some come back when connections end.
    retry.expires_after(std::chrono::milliseconds(100));
    retry.async_wait([this](const error_code& e) {
      if (!e) accept();
    });
    return;
  }
  if (std::ssize(sessions) < options.max_connections) {
    std::make_shared<HttpSession>(*this, std::move(socket))->start();
  } else {
    constexpr std::string_view kFull =
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    error_code ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(net::buffer(kFull.data(), kFull.size()), ignored);
  }
  accept();
}

void HttpServer::State::wait_for_signal() {
  signals.async_wait([this](const error_code& error, int number) {
    if (error) return;
    wait_for_signal();
    on_signal(number);
  });
}

void HttpServer::State::on_signal(int number) {
  if (draining) {
    forced = number;
    io.stop();
    return;
  }
  draining = true;
  log_info("shutting down: ", busy, " requests under way, up to ", options.drain_s, " s for them");
  notify_service_manager("STOPPING=1");
  const std::unordered_set<HttpSession*> all = sessions;
  api->drain([this] {
    api_idle = true;
    stop_when_idle();
  });
  for (HttpSession* session : all) {
    if (sessions.contains(session)) session->stop_if_idle();
  }
  drain_timer.expires_after(std::chrono::seconds(options.drain_s));
  drain_timer.async_wait([this](const error_code& error) {
    if (error) return;
    log_warning("shutting down: giving up ", busy, " requests");
    api->abort_all();
    drain_timer.expires_after(seconds(kForcedStopSeconds));
    drain_timer.async_wait([this](const error_code& e) {
      if (!e) io.stop();
    });
  });
  stop_when_idle();
}

// Answers are sent: only then is the work done.
void HttpServer::State::stop_when_idle() {
  if (draining && api_idle && busy == 0) io.stop();
}

HttpServer::HttpServer() = default;

HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::listen(HttpOptions options, Access access) {
  std::unique_ptr<HttpServer> server(new HttpServer());
  server->state_ = std::make_unique<State>(std::move(options), std::move(access));
  LATHE_TRY(server->state_->open());
  // As many connections as the system lets this process have.
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
  }
  return server;
}

std::string HttpServer::url() const {
  error_code ignored;
  const Tcp::endpoint endpoint = state_->acceptor.local_endpoint(ignored);
  const std::string address = endpoint.address().to_string(ignored);
  return str("http://", endpoint.address().is_v6() ? str("[", address, "]") : address, ":", endpoint.port());
}

Post HttpServer::post() {
  return [this](std::function<void()> function) { net::post(state_->io, std::move(function)); };
}

int HttpServer::run(Api& api) {
  State& s = *state_;
  s.api = &api;
  s.accept();
  s.wait_for_signal();
  while (!s.io.stopped()) {
    // Handlers of connections catch what they meet; this is for the rest, above all memory that ran out.
    try {
      s.io.run();
    } catch (const std::exception& e) {
      log_internal_error(e.what());
    }
  }
  // What is left was given up: its owners are told.
  const std::unordered_set<HttpSession*> left = s.sessions;
  for (HttpSession* session : left) {
    if (s.sessions.contains(session)) session->close();
  }
  s.api = nullptr;
  return s.forced;
}

}  // namespace lathe::server
