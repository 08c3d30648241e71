#include "lathe/server/http_request.h"

#include <cstddef>
#include <iterator>
#include <string>

namespace lathe::server {

namespace {

constexpr size_t kMaxTargetBytes = size_t{8} * 1024;
constexpr size_t kMaxHeaders = 100;

std::string_view value_at(const HttpRequest& request, const HttpRequest::const_iterator& at) {
  return at == request.end() ? std::string_view() : std::string_view(at->value().data(), at->value().size());
}

std::optional<ApiError> check_body_headers(const HttpRequest& request) {
  if (!request.chunked() && !request.has_content_length()) {
    return ApiError{.status = 411, .message = "Content-Length: expected it, or a chunked body"};
  }
  const std::string_view encoding = field_of(request, http::field::content_encoding);
  if (!encoding.empty() && encoding != "identity") {
    return ApiError{.status = 415, .message = "Content-Encoding: expected identity"};
  }
  const std::string_view type = field_of(request, http::field::content_type);
  if (type.starts_with("multipart/") || type.starts_with("image/") || type.starts_with("audio/")) {
    return ApiError{.status = 415, .message = "Content-Type: expected application/json"};
  }
  const std::string_view expect = field_of(request, http::field::expect);
  if (!expect.empty() && expect != "100-continue") {
    return ApiError{.status = 417, .message = "Expect: expected 100-continue"};
  }
  return {};
}

}  // namespace

std::string_view field_of(const HttpRequest& request, http::field name) {
  return value_at(request, request.find(name));
}

// Everything that can be said before the body is read. The key comes first of what a stranger could learn from.
std::optional<ApiError> check_request(const HttpRequest& request, const Access& access, Admitted& admitted) {
  const std::string_view target(request.target().data(), request.target().size());
  if (target.size() > kMaxTargetBytes) return ApiError{.status = 414, .message = "URL: too long"};
  if (std::distance(request.begin(), request.end()) > static_cast<ptrdiff_t>(kMaxHeaders)) {
    return ApiError{.status = 431, .message = str("header: expected at most ", kMaxHeaders, " fields, found more")};
  }
  const auto hosts = request.count(http::field::host);
  if (hosts > 1 || (hosts == 0 && request.version() >= 11)) {
    return ApiError{.message = "Host: expected it once"};
  }
  const std::string_view host = field_of(request, http::field::host);
  if (!access.allows_host(host)) {
    return ApiError{.status = 403,
                    .message = "Host: expected this server's own name (--allow-host names more)",
                    .type = "permission_error",
                    .code = "host_not_allowed"};
  }
  const std::string_view origin = field_of(request, http::field::origin);
  const bool preflight = request.method() == http::verb::options;
  if (!preflight && !access.allows_origin(origin, host)) {
    return ApiError{.status = 403,
                    .message = "Origin: pages of other origins may not call (--cors-origin names those that may)",
                    .type = "permission_error",
                    .code = "origin_not_allowed"};
  }
  const Route* route = admitted.route = find_route(target.substr(0, target.find('?')));
  if (preflight) return {};
  if (route == nullptr || !route->open) {
    const std::optional<uint64_t> key =
        access.find_key(field_of(request, http::field::authorization), value_at(request, request.find("X-Api-Key")));
    if (!key) {
      return ApiError{.status = 401,
                      .message = "API key: expected a valid one as \"Authorization: Bearer KEY\"",
                      .type = "authentication_error",
                      .code = "invalid_api_key"};
    }
    admitted.key = *key;
  }
  if (route == nullptr) return not_found("path: no such endpoint", "unknown_path");
  const bool reading = request.method() == http::verb::get || request.method() == http::verb::head;
  if (route->post ? request.method() != http::verb::post : !reading) {
    const std::string_view allow = methods_of(*route);
    return ApiError{.status = 405, .message = str("method: expected ", allow), .allow = std::string(allow)};
  }
  if (route->post) return check_body_headers(request);
  return {};
}

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

}  // namespace lathe::server
