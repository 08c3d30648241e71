#include "lathe/server/request_log.h"

#include "lathe/base/json.h"
#include "lathe/base/log_fields.h"

namespace lathe::server {

void log_request(const RequestLine& line) {
  std::string text =
      str(line.client, " ", line.method, " ", line.path, " ", line.status, ", ", fixed(line.seconds, 3), " s");
  if (line.prompt_tokens > 0) {
    text += str(
        ", ", line.prompt_tokens, " prompt tokens (", line.cached_tokens, " cached), ", line.completion_tokens, " new");
  }
  Json fields = Json::object();
  fields.set("client", line.client);
  fields.set("method", line.method);
  fields.set("path", line.path);
  fields.set("status", line.status);
  fields.set("seconds", line.seconds);
  if (line.prompt_tokens > 0) {
    fields.set("prompt_tokens", line.prompt_tokens);
    fields.set("cached_tokens", line.cached_tokens);
    fields.set("completion_tokens", line.completion_tokens);
  }
  log_fields(LogLevel::kInfo, text, fields);
}

void log_internal_error(std::string_view what) {
  log_error("request: internal: ", what);
}

}  // namespace lathe::server
