#include "lathe/base/log.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <ctime>

#include "lathe/base/log_fields.h"

namespace lathe {
namespace {

// The program's mutable globals, as log.h says.
std::atomic<LogLevel> g_level{LogLevel::kInfo};     // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)
std::atomic<LogFormat> g_format{LogFormat::kText};  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

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

// UTC with milliseconds, as RFC 3339 writes it.
std::string timestamp() {
  timespec now{};
  (void)::clock_gettime(CLOCK_REALTIME, &now);
  std::tm parts{};
  (void)::gmtime_r(&now.tv_sec, &parts);
  char text[32];
  const size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  const std::string millis = str(now.tv_nsec / 1'000'000);
  return str(std::string_view(text, length), ".", std::string(3 - millis.size(), '0'), millis, "Z");
}

void write_line(const std::string& line) {
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // stderr is gone: there is nowhere left to say so
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

void write_text(LogLevel level, const std::string& text) {
  std::string line = str("lathe: ", level_name(level), ": ");
  append_escaped(line, text);
  line += '\n';
  write_line(line);
}

void write_json(LogLevel level, const std::string& text, const Json* fields) {
  Json line = Json::object();
  line.set("time", timestamp());
  line.set("level", level_name(level));
  line.set("message", text);
  if (fields != nullptr && fields->is_object()) {
    for (const auto& [name, value] : fields->as_object()) line.set(name, value);
  }
  write_line(line.dump() + "\n");
}

}  // namespace

void set_log_level(LogLevel level) {
  g_level.store(level, std::memory_order_relaxed);
}

LogLevel log_level() {
  return g_level.load(std::memory_order_relaxed);
}

void set_log_format(LogFormat format) {
  g_format.store(format, std::memory_order_relaxed);
}

void log_line(LogLevel level, const std::string& text) {
  if (g_format.load(std::memory_order_relaxed) == LogFormat::kJson) return write_json(level, text, nullptr);
  write_text(level, text);
}

void log_fields(LogLevel level, const std::string& text, const Json& fields) {
  if (level < log_level() && level <= LogLevel::kInfo) return;
  if (g_format.load(std::memory_order_relaxed) == LogFormat::kJson) return write_json(level, text, &fields);
  write_text(level, text);
}

}  // namespace lathe
