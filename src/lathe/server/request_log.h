// Log lines of the server.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lathe::server {

struct RequestLine {
  std::string client;
  std::string method;
  std::string path;
  int status = 0;  // 499: the client went away
  double seconds = 0.0;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
};

// One line per request, at level info.
void log_request(const RequestLine& line);

// Something failed that should not have; the client only learns that it did.
void log_internal_error(std::string_view what);

}  // namespace lathe::server
