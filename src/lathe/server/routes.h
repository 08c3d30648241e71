// The paths that there are.
#pragma once

#include <string_view>

namespace lathe::server {

enum class Endpoint {
  kChatCompletions,
  kCompletions,
  kModels,
  kModel,
  kTokenize,
  kDetokenize,
  kApplyTemplate,
  kHealth,
  kVersion,
  kMetrics,
  kPage,
};

// One path and what it needs.
struct Route {
  Endpoint endpoint = Endpoint::kHealth;
  std::string_view path;
  bool post = false;   // else GET and HEAD
  bool open = false;   // needs no API key
  bool quiet = false;  // asked for all the time: not worth a log line
};

// The route of a path (without the query), or nullptr. The path is compared byte by byte, nothing is decoded.
const Route* find_route(std::string_view path);

// What it answers, as the headers Allow and Access-Control-Allow-Methods want it.
std::string_view methods_of(const Route& route);

}  // namespace lathe::server
