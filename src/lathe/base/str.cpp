#include "lathe/base/str.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lathe/base/utf8.h"

namespace lathe {
namespace {

void append_hex_escape(std::string& out, unsigned char byte) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  out += "\\x";
  out += kDigits[byte >> 4];
  out += kDigits[byte & 15];
}

}  // namespace

std::string fixed(double value, int decimals) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  const int places = std::clamp(decimals, 0, 100);
  std::array<char, 512> buffer{};  // 309 digits of the largest double, a sign, a point and 100 decimals
  const auto result =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed, places);
  return {buffer.data(), result.ptr};
}

std::string with_commas(int64_t value) {
  const std::string digits = str(value);
  const size_t first = value < 0 ? 1 : 0;
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > first && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string human_bytes(uint64_t bytes) {
  constexpr std::array<const char*, 6> kUnits{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return str(bytes, " B");
  double value = static_cast<double>(bytes) / 1024.0;
  size_t unit = 0;
  // 1023.995 and more would print as 1024.00 of the smaller unit.
  while (value >= 1023.995 && unit + 1 < kUnits.size()) {
    value /= 1024.0;
    ++unit;
  }
  return str(fixed(value, 2), " ", kUnits[unit]);
}

std::string quoted(std::string_view text, size_t limit) {
  std::string out = "\"";
  size_t position = 0;
  while (position < text.size()) {
    const size_t begin = position;
    bool valid = false;
    const char32_t code_point = decode_utf8(text, position, &valid);
    if (position > limit) {
      position = begin;
      break;
    }
    const auto byte = static_cast<unsigned char>(text[begin]);
    // C1 controls (U+0080..U+009F) move a terminal's cursor as the ASCII ones do.
    const bool control = code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0);
    // Line separators and direction overrides make a terminal show another text than the one that is there.
    const bool misleading =
        (code_point >= 0x2028 && code_point <= 0x202e) || (code_point >= 0x2066 && code_point <= 0x2069);
    if (valid && (byte == '"' || byte == '\\')) {
      out += '\\';
      out += text[begin];
    } else if (valid && !control && !misleading) {
      out += text.substr(begin, position - begin);
    } else {
      for (size_t i = begin; i < position; ++i) append_hex_escape(out, static_cast<unsigned char>(text[i]));
    }
  }
  out += '"';
  if (position < text.size()) out += "...";
  return out;
}

bool parse_int(std::string_view text, int64_t& value) {
  int64_t parsed = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, parsed);
  if (error != std::errc() || stop != end) return false;
  value = parsed;
  return true;
}

bool parse_double(std::string_view text, double& value) {
  // from_chars also takes "inf" and "nan".
  if (text.find_first_not_of("0123456789.eE+-") != std::string_view::npos) return false;
  double parsed = 0.0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, parsed);
  if (error != std::errc() || stop != end || !std::isfinite(parsed)) return false;
  value = parsed;
  return true;
}

}  // namespace lathe
