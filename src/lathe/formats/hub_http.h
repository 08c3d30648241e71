// HTTP for the hub client: one request at a time over a kept connection, redirects followed by rules of our own, and
// the token sent to the endpoint's origin only. libcurl stays inside hub_http.cpp.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/formats/hub.h"

namespace lathe {

// Ends all work of one pull: set by the first file that fails for good, or by the caller's HubSettings::cancel.
class HubStop {
 public:
  explicit HubStop(const std::atomic<bool>* cancel) : cancel_(cancel) {}

  void request() { own_.store(true, std::memory_order_relaxed); }

  bool requested() const { return own_.load(std::memory_order_relaxed) || cancelled(); }

  bool cancelled() const { return cancel_ != nullptr && cancel_->load(std::memory_order_relaxed); }

  // Sleeps in small steps; false when it was cut short.
  bool sleep(double seconds) const;

 private:
  const std::atomic<bool>* cancel_;
  std::atomic<bool> own_{false};
};

// scheme://host:port of a URL, lower case, with the default port filled in. What decides who gets the token.
struct HubOrigin {
  std::string scheme;
  std::string host;
  std::string port;

  friend bool operator==(const HubOrigin&, const HubOrigin&) = default;
  std::string text() const;      // for messages: without the port where it is the usual one
  bool is_this_machine() const;  // localhost, 127.x.x.x or ::1
};

// Errors for anything but http(s)://HOST[:PORT]/..., and for user names in URLs. The message leaves out query strings,
// which carry signatures.
Result<HubOrigin> hub_origin(const std::string& url);

// The absolute URL that `location` names, seen from `url`. Refuses other schemes and the step from https to http.
Result<std::string> hub_redirect_target(const std::string& url, const std::string& location);

// Percent-encodes everything but unreserved characters; '/' too unless it separates path components.
std::string percent_encode(std::string_view text, bool keep_slashes);

struct HubReply {
  enum class End {
    kComplete,  // an answer arrived whole; `status` tells what it says
    kBroken,    // the connection failed, broke or stalled: worth another try
    kRefused,   // the sink did not want the answer and knows why
    kStopped,   // HubStop
    kFatal,     // another try would end the same way: certificate, redirect rules, ...
  };
  End end = End::kFatal;
  std::string problem;  // why, unless kComplete; without query strings and tokens
  int status = 0;
  std::string origin;                                        // who gave the last answer
  std::vector<std::pair<std::string, std::string>> headers;  // of the last answer, names in lower case
  std::string body;                                          // of an answer that is not 2xx, cut at 64 KiB

  std::string_view header(std::string_view name) const;  // empty when absent
  // Seconds that the hub asks to wait: Retry-After (a number or a date), or the reset time of an exhausted rate limit.
  std::optional<double> wanted_wait() const;

  bool ok() const { return end == End::kComplete && status >= 200 && status < 300; }
};

// Takes the body of a 2xx answer.
class HubSink {
 public:
  virtual ~HubSink() = default;
  virtual bool begin(const HubReply& head) = 0;  // false: refuse
  virtual bool write(std::string_view bytes) = 0;
};

struct HubRequest {
  std::string url;
  bool head = false;         // HEAD; a redirect to another origin is then the answer, not followed
  uint64_t range_begin = 0;  // above 0: Range: bytes=N-
  HubSink* sink = nullptr;   // null: the body of a 2xx answer is dropped
};

// One connection's worth of state; not thread safe, one per thread.
class HubClient {
 public:
  // `settings` and `stop` must outlive the client.
  static Result<HubClient> create(const HubSettings& settings, const HubStop& stop);
  HubClient(HubClient&&) noexcept;
  HubClient& operator=(HubClient&&) noexcept;
  ~HubClient();

  // Sends the request and follows at most 10 redirects. The token goes along while the origin is the endpoint's and the
  // connection is https or stays on this machine; once a redirect has left the endpoint it is not sent again.
  HubReply perform(const HubRequest& request);

 private:
  struct State;
  explicit HubClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace lathe
