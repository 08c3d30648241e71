// Log lines on stderr: `lathe: <level>: <text>`. The logger is the program's one global.
#pragma once

#include <string>

#include "lathe/base/str.h"

namespace lathe {

// Lines below the level are dropped, but warnings and errors appear at every level except kSilent.
enum class LogLevel { kDebug, kInfo, kWarning, kError, kSilent };

// The one global of the project; atomic.
void set_log_level(LogLevel level);
LogLevel log_level();

// Writes one line (control characters in the text are escaped), whole, in one write(2). Thread safe.
void log_line(LogLevel level, const std::string& text);

// Joins the parts with str() and writes them at that level.
template <class... Parts>
void log_debug(const Parts&... parts) {
  if (log_level() <= LogLevel::kDebug) log_line(LogLevel::kDebug, str(parts...));
}

// As log_debug, at kInfo.
template <class... Parts>
void log_info(const Parts&... parts) {
  if (log_level() <= LogLevel::kInfo) log_line(LogLevel::kInfo, str(parts...));
}

// As log_debug, at kWarning.
template <class... Parts>
void log_warning(const Parts&... parts) {
  if (log_level() != LogLevel::kSilent) log_line(LogLevel::kWarning, str(parts...));
}

// As log_debug, at kError.
template <class... Parts>
void log_error(const Parts&... parts) {
  if (log_level() != LogLevel::kSilent) log_line(LogLevel::kError, str(parts...));
}

}  // namespace lathe
