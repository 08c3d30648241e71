// Messages and tools of a chat request, checked and in the form that chat templates expect.
#pragma once

#include <optional>
#include <string_view>

#include "lathe/base/json.h"
#include "lathe/server/api_error.h"

namespace lathe::server {

// `messages` (null: absent) -> an array of {"role", "content", ...}: contents as one text each, "developer" as
// "system", fields beyond the known ones left out.
std::optional<ApiError> read_messages(const Json* messages, Json& out);

// `tools` (null: absent) -> null without any, or an array of {"type": "function", "function": {...}}.
std::optional<ApiError> read_tools(const Json* tools, Json& out);

// Whether `tools` (an array of read_tools, or null) has a function of that name.
bool has_tool(const Json& tools, std::string_view name);

}  // namespace lathe::server
