// Log lines for machines: the same lines as JSON, with fields of their own.
#pragma once

#include <string>

#include "lathe/base/json.h"
#include "lathe/base/log.h"

namespace lathe {

enum class LogFormat {
  kText,  // lathe: info: TEXT
  kJson,  // {"time": "2026-01-31T12:00:00.000Z", "level": "info", "message": "TEXT", ...}
};

// Of all lines from now on; atomic.
void set_log_format(LogFormat format);

// One line with `text`; as JSON also the members of `fields`, an object.
void log_fields(LogLevel level, const std::string& text, const Json& fields);

}  // namespace lathe
