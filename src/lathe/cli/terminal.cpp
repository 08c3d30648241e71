#include "lathe/cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "lathe/base/env.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

namespace lathe::cli {
namespace {

bool is_control(char32_t c) {
  return c < 0x20 || (c >= 0x7f && c <= 0x9f);
}

}  // namespace

bool is_terminal(int fd) {
  return ::isatty(fd) == 1;
}

bool can_redraw(int fd) {
  return is_terminal(fd) && env_string("TERM").value_or("dumb") != "dumb";
}

bool can_style(int fd) {
  return can_redraw(fd) && !env_string("NO_COLOR");
}

int terminal_width(int fd) {
  constexpr int kUsual = 80;

  struct winsize size {};

  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsual;
  return size.ws_col;
}

std::string neutralised(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode_utf8(text, at);
    if (!is_control(c) || c == U'\n' || c == U'\t') {
      append_utf8(out, c);
    } else {
      out += "\\x";
      out += kDigits[c >> 4];
      out += kDigits[c & 15];
    }
  }
  return out;
}

std::string dim(std::string_view text, bool styled) {
  return styled ? str("\x1b[2m", text, "\x1b[0m") : std::string(text);
}

std::string cut_to_width(std::string_view text, int columns) {
  const auto room = static_cast<size_t>(std::max(columns, 0));
  size_t characters = 0;
  size_t kept_end = 0;  // where the text ends that leaves room for the ellipsis
  const size_t ellipsis = std::min<size_t>(3, room);
  for (size_t at = 0; at < text.size(); ++characters) {
    if (characters == room - ellipsis) kept_end = at;
    if (characters == room) return str(text.substr(0, kept_end), std::string(ellipsis, '.'));
    (void)decode_utf8(text, at);
  }
  return std::string(text);
}

}  // namespace lathe::cli
