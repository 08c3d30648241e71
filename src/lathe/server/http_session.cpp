#include "lathe/server/http_session.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <functional>
#include <iterator>

#include "lathe/server/api.h"

namespace lathe::server {

namespace {

constexpr size_t kMaxBuffer = size_t{64} * 1024;  // what may be read ahead
constexpr size_t kReadSize = 4096;                // while waiting for a request or a goodbye
constexpr uint64_t kMaxBodiesAtOnce = 16;         // times the largest body, of all connections together
constexpr double kLingerSeconds = 2.0;            // for a client to read an answer before its connection ends
constexpr size_t kMaxLingerBytes = 4 << 20;       // and what it may still send meanwhile

std::string_view reason_of(int status) {
  const boost::string_view reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(status)));
  return {reason.data(), reason.size()};
}

}  // namespace

HttpSession::HttpSession(HttpServer::State& server, Tcp::socket socket)
    : server_(server), socket_(std::move(socket)), timer_(server.io), buffer_(kMaxBuffer) {
  error_code ignored;
  socket_.set_option(Tcp::no_delay(true), ignored);
  const Tcp::endpoint peer = socket_.remote_endpoint(ignored);
  client_ = peer.address().to_string(ignored);
  server_.sessions.insert(this);
  server_.api->metrics().connections = std::ssize(server_.sessions);
}

HttpSession::~HttpSession() {
  server_.sessions.erase(this);
  if (server_.api != nullptr) server_.api->metrics().connections = std::ssize(server_.sessions);
}

void HttpSession::start() {
  deadline_ = Clock::now() + seconds(server_.options.idle_timeout_s);
  arm_timer();
  next_request();
}

void HttpSession::set_busy(bool busy) {
  if (busy_ == busy) return;
  busy_ = busy;
  server_.busy += busy ? 1 : -1;
  if (!busy) server_.stop_when_idle();
}

// One timer per connection; most deadlines move on before it runs out, so it is only set anew when one comes closer.
void HttpSession::arm_timer() {
  timer_.expires_at(deadline_);
  timer_.async_wait(guarded([this](const error_code& error) {
    if (error == net::error::operation_aborted) return;
    if (Clock::now() < deadline_) return arm_timer();
    on_deadline();
  }));
}

void HttpSession::set_deadline(double s) {
  const Clock::time_point before = timer_.expiry();
  deadline_ = Clock::now() + seconds(s);
  if (deadline_ < before) arm_timer();
}

void HttpSession::on_deadline() {
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

void HttpSession::close() {
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

void HttpSession::next_request() {
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
void HttpSession::read_some() {
  const size_t room = buffer_.max_size() - buffer_.size();
  if (room == 0) return close();  // far more sent early than anybody needs
  reading_ = true;
  socket_.async_read_some(buffer_.prepare(std::min(room, kReadSize)),
                          guarded([this](const error_code& error, size_t bytes) { on_read(error, bytes); }));
}

void HttpSession::on_read(const error_code& error, size_t bytes) {
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

void HttpSession::read_header() {
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

void HttpSession::on_header(const error_code& error) {
  reading_ = false;
  if (phase_ != Phase::kHeader) return close();  // it came after its time
  if (error) {
    const std::optional<ApiError> answer = parse_error(error, server_.options.max_body);
    return answer ? refuse(*answer) : close();
  }
  const auto& request = parser_->get();
  head_only_ = request.method() == http::verb::head;
  Admitted admitted;
  if (const std::optional<ApiError> wrong = check_request(request, server_.access, admitted)) return refuse(*wrong);
  if (request.method() == http::verb::options) return answer_options(admitted.route);
  key_ = admitted.key;
  if (admitted.route->post) return read_body(*admitted.route);
  // A body that nobody expects is not read: the connection ends after the answer.
  keep_alive_ = parser_->is_done() && parser_->keep_alive();
  hand_over(*admitted.route, {}, {});
}

// Bodies of all connections together are bounded, so that many large ones do not add up.
std::shared_ptr<void> HttpSession::lease_body(uint64_t bytes) {
  const uint64_t most = kMaxBodiesAtOnce * std::max<uint64_t>(server_.options.max_body, 1 << 20);
  const std::shared_ptr<std::atomic<uint64_t>> total = server_.body_bytes;
  if (total->load() + bytes > most) return nullptr;
  *total += bytes;
  // The last holder may be a thread that prepares.
  return {total.get(), [bytes, total](void*) { *total -= bytes; }};
}

void HttpSession::read_body(const Route& route) {
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

void HttpSession::hand_over(const Route& route, std::string body, std::shared_ptr<void> lease) {
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
void HttpSession::refuse(const ApiError& error) {
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
void HttpSession::answer_options(const Route* route) {
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

std::string HttpSession::head(int status,
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

void HttpSession::reply(Reply reply) {
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

void HttpSession::begin_stream() {
  if (phase_ == Phase::kClosed) return;
  if (server_.draining) keep_alive_ = false;
  phase_ = Phase::kStream;
  chunked_ = parser_->get().version() >= 11;
  if (!chunked_) keep_alive_ = false;
  const Reply extra{.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}};
  send(head(200, "text/event-stream", &extra, std::nullopt));
}

void HttpSession::write(std::string bytes) {
  if (phase_ != Phase::kStream || bytes.empty()) return;
  if (!chunked_) return send(std::move(bytes));
  char size[24];
  const int digits = std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
  bytes.insert(0, size, static_cast<size_t>(digits));
  bytes += "\r\n";
  send(std::move(bytes));
}

void HttpSession::end_stream() {
  if (phase_ != Phase::kStream) return;
  phase_ = Phase::kFlush;
  if (chunked_) return send("0\r\n\r\n");
  if (!writing_) on_flushed();
}

void HttpSession::send(std::string bytes) {
  if (unsent_ == 0) last_progress_ = Clock::now();
  unsent_ += bytes.size();
  if (pending_.empty()) {
    pending_ = std::move(bytes);
  } else {
    pending_ += bytes;
  }
  if (!writing_) write_some();
}

void HttpSession::write_some() {
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

void HttpSession::on_write(const error_code& error, size_t bytes) {
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

void HttpSession::on_flushed() {
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

}  // namespace lathe::server
