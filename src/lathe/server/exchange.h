// Exchange: one request and the way to answer it, as the API sees HTTP. Everything happens on the event loop's thread.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace lathe::server {

// Runs a function on the event loop's thread, soon. Any thread.
using Post = std::function<void(std::function<void()>)>;

struct Reply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  // The whole answer, once.
  virtual void reply(Reply reply) = 0;
  // Or a stream of events: its head, pieces, its end.
  virtual void begin_stream() = 0;
  virtual void write(std::string bytes) = 0;
  virtual void end_stream() = 0;
  // Bytes of write() that the client has not taken yet.
  virtual size_t unsent() const = 0;

  // Called when the client has gone away before the end; then nothing more is to be done. At most once.
  std::function<void()> on_closed;
  // Called when unsent() has become small.
  std::function<void()> on_drained;
};

// A stream takes no more than this before on_drained.
inline constexpr size_t kHighWater = size_t{256} * 1024;
inline constexpr size_t kLowWater = size_t{32} * 1024;

}  // namespace lathe::server
