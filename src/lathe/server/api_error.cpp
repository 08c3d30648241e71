#include "lathe/server/api_error.h"

#include "lathe/base/str.h"

namespace lathe::server {

ApiError invalid_field(std::string_view param, std::string_view message) {
  return {.message = str(param, ": ", message), .param = std::string(param)};
}

ApiError too_large(uint64_t most) {
  return {.status = 413,
          .message = str("body: expected at most ", most, " bytes, found more"),
          .code = "request_too_large"};
}

ApiError queue_full() {
  return {.status = 429,
          .message = "the queue is full: too many requests wait for their first token",
          .type = "rate_limit_error",
          .code = "queue_full",
          .retry_after_s = 1};
}

ApiError unavailable(std::string_view message) {
  return {.status = 503,
          .message = std::string(message),
          .type = "unavailable_error",
          .code = "unavailable",
          .retry_after_s = 5};
}

ApiError not_found(std::string_view message, std::string_view code) {
  return {.status = 404, .message = std::string(message), .type = "not_found_error", .code = std::string(code)};
}

ApiError internal_error() {
  return {.status = 500, .message = "the server failed to answer this request", .type = "server_error"};
}

ApiError from_error(const Error& error) {
  switch (error.code) {
    case Errc::kInvalidArgument:
    case Errc::kInvalidData:
    case Errc::kNotFound:
    case Errc::kUnsupported:
      return {.message = error.message};
    case Errc::kResourceExhausted: {
      ApiError out = unavailable(error.message);
      out.code = "out_of_memory";
      return out;
    }
    default:
      return internal_error();
  }
}

Json to_json(const ApiError& error) {
  const auto text_or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  Json inner = Json::object();
  inner.set("message", error.message);
  inner.set("type", error.type);
  inner.set("param", text_or_null(error.param));
  inner.set("code", text_or_null(error.code));
  Json out = Json::object();
  out.set("error", std::move(inner));
  return out;
}

}  // namespace lathe::server
