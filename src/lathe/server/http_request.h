// What the header of a request says: whatever is wrong with it is answered before a body is read.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "lathe/server/access.h"
#include "lathe/server/api_error.h"
#include "lathe/server/http_asio.h"
#include "lathe/server/routes.h"

namespace lathe::server {

using HttpRequest = http::request<http::string_body>;

inline constexpr uint32_t kMaxHeaderBytes = 32 * 1024;

// The value of a field, empty where there is none.
std::string_view field_of(const HttpRequest& request, http::field name);

// Who asks for what.
struct Admitted {
  const Route* route = nullptr;  // none only of a preflight
  uint64_t key = 0;              // Access::find_key
};

// What is wrong with a header; nothing: `admitted` holds what it asks for.
std::optional<ApiError> check_request(const HttpRequest& request, const Access& access, Admitted& admitted);

// What a request that cannot be read gets as an answer; nothing: the connection is just gone.
std::optional<ApiError> parse_error(const error_code& error, uint64_t max_body);

}  // namespace lathe::server
