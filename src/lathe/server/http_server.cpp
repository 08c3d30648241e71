// Boost.Asio and Boost.Beast appear in this file only.
#include "lathe/server/http_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>
#include <unordered_set>
#include <utility>

#include "lathe/base/log.h"
#include "lathe/server/api.h"
#include "lathe/server/request_log.h"
#include "lathe/server/systemd.h"

namespace lathe::server {

namespace {

namespace net = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using Tcp = net::ip::tcp;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kMaxHeaderBytes = 32 * 1024;
constexpr size_t kMaxTargetBytes = size_t{8} * 1024;
constexpr size_t kMaxHeaders = 100;
constexpr size_t kMaxBuffer = size_t{64} * 1024;  // what may be read ahead
constexpr size_t kReadSize = 4096;                // while waiting for a request or a goodbye
constexpr uint64_t kMaxBodiesAtOnce = 16;         // times the largest body, of all connections together
constexpr double kLingerSeconds = 2.0;            // for a client to read an answer before its connection ends
constexpr size_t kMaxLingerBytes = 4 << 20;       // and what it may still send meanwhile
constexpr double kForcedStopSeconds = 2.0;        // after the time to drain

Clock::duration seconds(double s) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

std::string_view reason_of(int status) {
  const boost::string_view reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(status)));
  return {reason.data(), reason.size()};
}

// What a request that cannot be read gets as an answer; nothing: the connection is just gone.
std::optional<ApiError> parse_error(const error_code& error, uint64_t max_body) {
  if (error == http::error::body_limit) return too_large(max_body);
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return ApiError{.status = 431, .message = str("header: expected at most ", kMaxHeaderBytes, " bytes, found more")};
  }
  if (error == http::error::bad_version) {
    return ApiError{.status = 505, .message = "HTTP version: expected 1.0 or 1.1"};
  }
  if (error == http::error::end_of_stream || error == http::error::partial_message) return {};
  if (error.category() == http::make_error_code(http::error::bad_method).category()) {
    return ApiError{.message = str("request: not HTTP: ", error.message())};
  }
  return {};
}

}  // namespace

namespace {
class Session;
}  // namespace

struct HttpServer::State {
  HttpOptions options;
  Access access;
  // Before the context, whose end takes the sessions along.
  std::unordered_set<Session*> sessions;
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

  Status open();
  void accept();
  void on_accept(const error_code& error, Tcp::socket socket);
  void wait_for_signal();
  void on_signal(int number);
  void stop_when_idle();
};

namespace {

// One connection: requests one after the other, each answered before the next is looked at.
class Session final : public Exchange, public std::enable_shared_from_this<Session> {
 public:
  Session(HttpServer::State& server, Tcp::socket socket)
      : server_(server), socket_(std::move(socket)), timer_(server.io), buffer_(kMaxBuffer) {
    error_code ignored;
    socket_.set_option(Tcp::no_delay(true), ignored);
    const Tcp::endpoint peer = socket_.remote_endpoint(ignored);
    client_ = peer.address().to_string(ignored);
    server_.sessions.insert(this);
    server_.api->metrics().connections = std::ssize(server_.sessions);
  }

  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  ~Session() override {
    server_.sessions.erase(this);
    if (server_.api != nullptr) server_.api->metrics().connections = std::ssize(server_.sessions);
  }

  void start() {
    deadline_ = Clock::now() + seconds(server_.options.idle_timeout_s);
    arm_timer();
    next_request();
  }

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
  std::optional<ApiError> check_request(const Route*& route);
  std::optional<ApiError> check_body_headers();
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

  std::string_view field(http::field name) const {
    const auto at = parser_->get().find(name);
    return at == parser_->get().end() ? std::string_view() : std::string_view(at->value().data(), at->value().size());
  }

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
  std::optional<http::request_parser<http::string_body>> parser_;
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

void Session::set_busy(bool busy) {
  if (busy_ == busy) return;
  busy_ = busy;
  server_.busy += busy ? 1 : -1;
  if (!busy) server_.stop_when_idle();
}

// One timer per connection; most deadlines move on before it runs out, so it is only set anew when one comes closer.
void Session::arm_timer() {
  timer_.expires_at(deadline_);
  timer_.async_wait(guarded([this](const error_code& error) {
    if (error == net::error::operation_aborted) return;
    if (Clock::now() < deadline_) return arm_timer();
    on_deadline();
  }));
}

void Session::set_deadline(double s) {
  const Clock::time_point before = timer_.expiry();
  deadline_ = Clock::now() + seconds(s);
  if (deadline_ < before) arm_timer();
}

void Session::on_deadline() {
  const bool stuck = unsent_ > 0 && Clock::now() - last_progress_ >= seconds(server_.options.write_timeout_s);
  switch (phase_) {
    case Phase::kBody:
    case Phase::kHeader:
      refuse({.status = 408, .message = "request: expected it whole in time", .code = "request_timeout"});
      break;
    case Phase::kStream:
      if (stuck) return close();
      if (unsent_ == 0 && Clock::now() - last_progress_ >= seconds(server_.options.ping_s)) {
        write(std::string(kStreamPing));
      }
      set_deadline(server_.options.ping_s);
      break;
    case Phase::kWorking:
      set_deadline(server_.options.ping_s);
      break;
    case Phase::kFlush:
      if (stuck) return close();
      set_deadline(server_.options.write_timeout_s / 4);
      break;
    default:
      return close();
  }
  arm_timer();
}

void Session::close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  timer_.cancel();
  error_code ignored;
  socket_.close(ignored);
  const std::function<void()> tell = std::exchange(on_closed, {});
  on_drained = {};
  set_busy(false);
  if (tell) tell();
}

void Session::next_request() {
  phase_ = Phase::kIdle;
  parser_.reset();
  if (buffer_.size() == 0) {
    set_deadline(server_.options.idle_timeout_s);
    // A read that watched for the client's goodbye during the last answer may still be out; it serves as well.
    if (!reading_) read_some();
    return;
  }
  if (!reading_) return read_header();
  // The next request is here already: the read that watches is in the way and ends with an error, which on_read knows.
  error_code ignored;
  socket_.cancel(ignored);
}

// Reads whatever comes: the beginning of a request, one sent early, or the end of the connection.
void Session::read_some() {
  const size_t room = buffer_.max_size() - buffer_.size();
  if (room == 0) return close();  // far more sent early than anybody needs
  reading_ = true;
  socket_.async_read_some(buffer_.prepare(std::min(room, kReadSize)),
                          guarded([this](const error_code& error, size_t bytes) { on_read(error, bytes); }));
}

void Session::on_read(const error_code& error, size_t bytes) {
  reading_ = false;
  if (error == net::error::operation_aborted && phase_ == Phase::kIdle && buffer_.size() > 0) return read_header();
  if (error) return close();
  buffer_.commit(bytes);
  switch (phase_) {
    case Phase::kIdle:
      return read_header();
    case Phase::kWorking:
    case Phase::kStream:
    case Phase::kFlush:
      return read_some();
    case Phase::kLinger:
      buffer_.consume(buffer_.size());
      lingered_ += bytes;
      if (lingered_ > kMaxLingerBytes) return close();
      return read_some();
    default:
      return;
  }
}

void Session::read_header() {
  phase_ = Phase::kHeader;
  set_busy(true);
  parser_.emplace();
  parser_->header_limit(kMaxHeaderBytes);
  parser_->body_limit(server_.options.max_body);
  keep_alive_ = false;
  head_only_ = false;
  key_ = 0;
  set_deadline(server_.options.header_timeout_s);
  reading_ = true;
  http::async_read_header(
      socket_, buffer_, *parser_, guarded([this](const error_code& error, size_t) { on_header(error); }));
}

void Session::on_header(const error_code& error) {
  reading_ = false;
  if (phase_ != Phase::kHeader) return close();  // it came after its time
  if (error) {
    const std::optional<ApiError> answer = parse_error(error, server_.options.max_body);
    return answer ? refuse(*answer) : close();
  }
  const auto& request = parser_->get();
  head_only_ = request.method() == http::verb::head;
  const Route* route = nullptr;
  if (const std::optional<ApiError> wrong = check_request(route)) return refuse(*wrong);
  if (request.method() == http::verb::options) return answer_options(route);
  if (route->post) return read_body(*route);
  // A body that nobody expects is not read: the connection ends after the answer.
  keep_alive_ = parser_->is_done() && parser_->keep_alive();
  hand_over(*route, {}, {});
}

// Everything that can be said before the body is read. The key comes first of what a stranger could learn from.
std::optional<ApiError> Session::check_request(const Route*& route) {
  const auto& request = parser_->get();
  const std::string_view target(request.target().data(), request.target().size());
  if (target.size() > kMaxTargetBytes) return ApiError{.status = 414, .message = "URL: too long"};
  if (std::distance(request.begin(), request.end()) > static_cast<ptrdiff_t>(kMaxHeaders)) {
    return ApiError{.status = 431, .message = str("header: expected at most ", kMaxHeaders, " fields, found more")};
  }
  const auto hosts = request.count(http::field::host);
  if (hosts > 1 || (hosts == 0 && request.version() >= 11)) {
    return ApiError{.message = "Host: expected it once"};
  }
  const std::string_view host = field(http::field::host);
  if (!server_.access.allows_host(host)) {
    return ApiError{.status = 403,
                    .message = "Host: expected this server's own name (--allow-host names more)",
                    .type = "permission_error",
                    .code = "host_not_allowed"};
  }
  const std::string_view origin = field(http::field::origin);
  const bool preflight = request.method() == http::verb::options;
  if (!preflight && !server_.access.allows_origin(origin, host)) {
    return ApiError{.status = 403,
                    .message = "Origin: pages of other origins may not call (--cors-origin names those that may)",
                    .type = "permission_error",
                    .code = "origin_not_allowed"};
  }
  route = find_route(target.substr(0, target.find('?')));
  if (preflight) return {};
  if (route == nullptr || !route->open) {
    const auto x_api_key = request.find("X-Api-Key");
    const std::optional<uint64_t> key = server_.access.find_key(
        field(http::field::authorization),
        x_api_key == request.end() ? std::string_view()
                                   : std::string_view(x_api_key->value().data(), x_api_key->value().size()));
    if (!key) {
      return ApiError{.status = 401,
                      .message = "API key: expected a valid one as \"Authorization: Bearer KEY\"",
                      .type = "authentication_error",
                      .code = "invalid_api_key"};
    }
    key_ = *key;
  }
  if (route == nullptr) return not_found("path: no such endpoint", "unknown_path");
  const bool reading = request.method() == http::verb::get || request.method() == http::verb::head;
  if (route->post ? request.method() != http::verb::post : !reading) {
    const std::string_view allow = methods_of(*route);
    return ApiError{.status = 405, .message = str("method: expected ", allow), .allow = std::string(allow)};
  }
  if (route->post) return check_body_headers();
  return {};
}

std::optional<ApiError> Session::check_body_headers() {
  if (!parser_->chunked() && !parser_->content_length()) {
    return ApiError{.status = 411, .message = "Content-Length: expected it, or a chunked body"};
  }
  const std::string_view encoding = field(http::field::content_encoding);
  if (!encoding.empty() && encoding != "identity") {
    return ApiError{.status = 415, .message = "Content-Encoding: expected identity"};
  }
  const std::string_view type = field(http::field::content_type);
  if (type.starts_with("multipart/") || type.starts_with("image/") || type.starts_with("audio/")) {
    return ApiError{.status = 415, .message = "Content-Type: expected application/json"};
  }
  const std::string_view expect = field(http::field::expect);
  if (!expect.empty() && expect != "100-continue") {
    return ApiError{.status = 417, .message = "Expect: expected 100-continue"};
  }
  return {};
}

// Bodies of all connections together are bounded, so that many large ones do not add up.
std::shared_ptr<void> Session::lease_body(uint64_t bytes) {
  const uint64_t most = kMaxBodiesAtOnce * std::max<uint64_t>(server_.options.max_body, 1 << 20);
  const std::shared_ptr<std::atomic<uint64_t>> total = server_.body_bytes;
  if (total->load() + bytes > most) return nullptr;
  *total += bytes;
  // The last holder may be a thread that prepares.
  return {total.get(), [bytes, total](void*) { *total -= bytes; }};
}

void Session::read_body(const Route& route) {
  const boost::optional<uint64_t> length = parser_->content_length();
  std::shared_ptr<void> lease = lease_body(length ? *length : server_.options.max_body);
  if (lease == nullptr) return refuse(unavailable("the memory for requests is in use"));
  phase_ = Phase::kBody;
  set_deadline(server_.options.body_timeout_s);
  reading_ = true;
  if (!field(http::field::expect).empty()) send("HTTP/1.1 100 Continue\r\n\r\n");
  http::async_read(socket_, buffer_, *parser_, guarded([this, lease, &route](const error_code& error, size_t) mutable {
                     reading_ = false;
                     if (phase_ != Phase::kBody) return close();  // it came after its time
                     if (error) {
                       const std::optional<ApiError> answer = parse_error(error, server_.options.max_body);
                       return answer ? refuse(*answer) : close();
                     }
                     keep_alive_ = parser_->keep_alive();
                     hand_over(route, std::move(parser_->get().body()), std::move(lease));
                   }));
}

void Session::hand_over(const Route& route, std::string body, std::shared_ptr<void> lease) {
  const auto& request = parser_->get();
  const std::string_view method(request.method_string().data(), request.method_string().size());
  const std::string_view target(request.target().data(), request.target().size());
  phase_ = Phase::kWorking;
  set_deadline(server_.options.ping_s);
  // While the answer is made, a read tells when the client goes away.
  if (!reading_) read_some();
  if (phase_ == Phase::kClosed) return;
  server_.api->handle(route,
                      {.method = std::string(method),
                       .path = std::string(target.substr(0, target.find('?'))),
                       .body = std::move(body),
                       .if_none_match = std::string(field(http::field::if_none_match)),
                       .client = client_,
                       .key = key_,
                       .lease = std::move(lease)},
                      shared_from_this());
}

// An answer without the API, after which the connection ends: what follows on it cannot be trusted.
void Session::refuse(const ApiError& error) {
  keep_alive_ = false;
  phase_ = Phase::kWorking;
  const auto* request = parser_ && parser_->is_header_done() ? &parser_->get() : nullptr;
  log_request({.client = client_,
               .method = request != nullptr ? std::string(request->method_string()) : "-",
               .path = request != nullptr ? std::string(request->target().substr(0, 200)) : "-",
               .status = error.status});
  server_.api->metrics().count_response("refused", error.status);
  reply(error_reply(error));
}

// CORS preflight, and OPTIONS in general.
void Session::answer_options(const Route* route) {
  const std::string methods(route != nullptr ? methods_of(*route) : "GET, HEAD, POST, OPTIONS");
  keep_alive_ = parser_->is_done() && parser_->keep_alive();
  phase_ = Phase::kWorking;
  Reply answer{.status = 204, .content_type = {}};
  answer.headers.emplace_back("Allow", methods);
  if (!server_.access.allowed_origin(field(http::field::origin)).empty()) {
    answer.headers.emplace_back("Access-Control-Allow-Methods", methods);
    answer.headers.emplace_back("Access-Control-Allow-Headers",
                                Access::allowed_headers(field(http::field::access_control_request_headers)));
    answer.headers.emplace_back("Access-Control-Max-Age", "600");
  }
  reply(std::move(answer));
}

std::string Session::head(int status,
                          std::string_view content_type,
                          const Reply* reply,
                          std::optional<size_t> length) const {
  std::string out = str("HTTP/1.1 ", status, " ", reason_of(status), "\r\n");
  if (!content_type.empty()) out += str("Content-Type: ", content_type, "\r\n");
  if (length) out += str("Content-Length: ", *length, "\r\n");
  if (!length && chunked_) out += "Transfer-Encoding: chunked\r\n";
  out += keep_alive_ ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
  out += "X-Content-Type-Options: nosniff\r\n";
  if (parser_ && parser_->is_header_done()) {
    const std::string origin = server_.access.allowed_origin(field(http::field::origin));
    if (!origin.empty()) {
      out += str("Access-Control-Allow-Origin: ", origin, "\r\nVary: Origin\r\n");
      out += "Access-Control-Expose-Headers: Retry-After\r\n";
    }
  }
  if (reply != nullptr) {
    for (const auto& [name, value] : reply->headers) out += str(name, ": ", value, "\r\n");
  }
  return out + "\r\n";
}

void Session::reply(Reply reply) {
  if (phase_ == Phase::kClosed) return;
  if (server_.draining) keep_alive_ = false;
  std::string bytes =
      head(reply.status,
           reply.content_type,
           &reply,
           reply.status == 204 || reply.status == 304 ? std::nullopt : std::optional(reply.body.size()));
  if (!head_only_) bytes += reply.body;
  phase_ = Phase::kFlush;
  set_deadline(server_.options.write_timeout_s / 4);
  send(std::move(bytes));
}

void Session::begin_stream() {
  if (phase_ == Phase::kClosed) return;
  if (server_.draining) keep_alive_ = false;
  phase_ = Phase::kStream;
  chunked_ = parser_->get().version() >= 11;
  if (!chunked_) keep_alive_ = false;
  const Reply extra{.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}};
  send(head(200, "text/event-stream", &extra, std::nullopt));
}

void Session::write(std::string bytes) {
  if (phase_ != Phase::kStream || bytes.empty()) return;
  if (!chunked_) return send(std::move(bytes));
  char size[24];
  const int digits = std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
  bytes.insert(0, size, static_cast<size_t>(digits));
  bytes += "\r\n";
  send(std::move(bytes));
}

void Session::end_stream() {
  if (phase_ != Phase::kStream) return;
  phase_ = Phase::kFlush;
  if (chunked_) return send("0\r\n\r\n");
  if (!writing_) on_flushed();
}

void Session::send(std::string bytes) {
  if (unsent_ == 0) last_progress_ = Clock::now();
  unsent_ += bytes.size();
  if (pending_.empty()) {
    pending_ = std::move(bytes);
  } else {
    pending_ += bytes;
  }
  if (!writing_) write_some();
}

void Session::write_some() {
  if (sent_ == sending_.size()) {
    sending_ = std::exchange(pending_, {});
    sent_ = 0;
  }
  if (sending_.empty()) {
    if (phase_ == Phase::kFlush) on_flushed();
    return;
  }
  writing_ = true;
  socket_.async_write_some(net::buffer(sending_.data() + sent_, sending_.size() - sent_),
                           guarded([this](const error_code& error, size_t bytes) { on_write(error, bytes); }));
}

void Session::on_write(const error_code& error, size_t bytes) {
  writing_ = false;
  if (error) return close();
  sent_ += bytes;
  unsent_ -= bytes;
  last_progress_ = Clock::now();
  const bool drained = unsent_ <= kLowWater && unsent_ + bytes > kLowWater;
  write_some();
  // What waits because the client was slow can go on. The callback may end the exchange: it is held meanwhile.
  if (drained && on_drained) {
    const std::function<void()> tell = on_drained;
    tell();
  }
}

void Session::on_flushed() {
  if (phase_ == Phase::kClosed) return;
  if (keep_alive_ && !(server_.draining && buffer_.size() == 0)) {
    set_busy(false);
    return next_request();
  }
  // Closing at once could make the system throw away what the client has not read yet.
  phase_ = Phase::kLinger;
  set_busy(false);
  if (phase_ == Phase::kClosed) return;
  error_code ignored;
  socket_.shutdown(Tcp::socket::shutdown_send, ignored);
  set_deadline(kLingerSeconds);
  buffer_.consume(buffer_.size());
  if (!reading_) read_some();
}

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
    std::make_shared<Session>(*this, std::move(socket))->start();
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
  const std::unordered_set<Session*> all = sessions;
  api->drain([this] {
    api_idle = true;
    stop_when_idle();
  });
  for (Session* session : all) {
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
  const std::unordered_set<Session*> left = s.sessions;
  for (Session* session : left) {
    if (s.sessions.contains(session)) session->close();
  }
  s.api = nullptr;
  return s.forced;
}

}  // namespace lathe::server
