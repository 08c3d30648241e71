// ApiError: what went wrong with a request, in the terms of OpenAI's clients: an HTTP status and an error object.
#pragma once

#include <string>
#include <string_view>

#include "lathe/base/json.h"
#include "lathe/base/result.h"

namespace lathe::server {

struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param = {};  // field that is wrong; empty: null
  std::string code = {};   // machine-readable reason; empty: null
  int retry_after_s = 0;   // with 429 and 503: when to come back
  std::string allow = {};  // with 405: the methods there are
};

// A field is wrong: 400. The message begins with the field's name.
ApiError invalid_field(std::string_view param, std::string_view message);

// 413: more bytes than a request may have.
ApiError too_large(uint64_t most);

// 429: too many requests wait.
ApiError queue_full();

// 503: the server shuts down, or the memory for requests is in use.
ApiError unavailable(std::string_view message);

// 404: no such endpoint or model.
ApiError not_found(std::string_view message, std::string_view code);

// 500, without details of the inside.
ApiError internal_error();

// An error of the layers below: wrong arguments and data become 400, the rest 500 or 503.
ApiError from_error(const Error& error);

// {"error": {"message", "type", "param", "code"}}.
Json to_json(const ApiError& error);

}  // namespace lathe::server
