#include "lathe/server/routes.h"

#include <array>

namespace lathe::server {

namespace {

constexpr std::array kRoutes = {
    Route{.endpoint = Endpoint::kChatCompletions, .path = "/v1/chat/completions", .post = true},
    Route{.endpoint = Endpoint::kCompletions, .path = "/v1/completions", .post = true},
    Route{.endpoint = Endpoint::kModels, .path = "/v1/models"},
    Route{.endpoint = Endpoint::kTokenize, .path = "/tokenize", .post = true},
    Route{.endpoint = Endpoint::kDetokenize, .path = "/detokenize", .post = true},
    Route{.endpoint = Endpoint::kApplyTemplate, .path = "/apply-template", .post = true},
    Route{.endpoint = Endpoint::kHealth, .path = "/health", .open = true, .quiet = true},
    Route{.endpoint = Endpoint::kVersion, .path = "/version"},
    Route{.endpoint = Endpoint::kMetrics, .path = "/metrics", .quiet = true},
    Route{.endpoint = Endpoint::kPage, .path = "/", .open = true},
};

// Followed by the model's name.
constexpr Route kModelRoute = {.endpoint = Endpoint::kModel, .path = "/v1/models/"};

}  // namespace

const Route* find_route(std::string_view path) {
  for (const Route& route : kRoutes) {
    if (route.path == path) return &route;
  }
  return path.starts_with(kModelRoute.path) ? &kModelRoute : nullptr;
}

std::string_view methods_of(const Route& route) {
  return route.post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
}

}  // namespace lathe::server
