#include "lathe/base/log.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace lathe {
namespace {

// The program's one mutable global, as log.h says.
std::atomic<LogLevel> g_level{LogLevel::kInfo};  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

std::string_view level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
    case LogLevel::kSilent:
      break;
  }
  return "error";
}

// Names in a message may come from a file; control bytes must not reach a terminal, and a line stays a line.
void append_escaped(std::string& out, const std::string& text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (c != '\t' && (byte < 0x20 || byte == 0x7f)) {
      out += "\\x";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    } else {
      out += c;
    }
  }
}

}  // namespace

void set_log_level(LogLevel level) {
  g_level.store(level, std::memory_order_relaxed);
}

LogLevel log_level() {
  return g_level.load(std::memory_order_relaxed);
}

void log_line(LogLevel level, const std::string& text) {
  std::string line = str("lathe: ", level_name(level), ": ");
  append_escaped(line, text);
  line += '\n';
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // stderr is gone: there is nowhere left to say so
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace lathe
