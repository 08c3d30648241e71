// Characters of names, numbers and headers, which are ASCII whatever the language is. No locale; bytes from 0x80 on are
// none of these.
#pragma once

#include <string>
#include <string_view>

namespace lathe {

// 0 to 9.
constexpr bool is_ascii_digit(char c) {
  return c >= '0' && c <= '9';
}

// A to Z, a to z.
constexpr bool is_ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// A letter or a digit.
constexpr bool is_ascii_alnum(char c) {
  return is_ascii_letter(c) || is_ascii_digit(c);
}

// A to Z become a to z, the rest stays.
constexpr char ascii_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// The text with every character as ascii_lower has it.
inline std::string ascii_lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = ascii_lower(c);
  return out;
}

// The value of a hexadecimal digit of either case; -1: it is none.
constexpr int hex_digit_value(char c) {
  if (is_ascii_digit(c)) return c - '0';
  const char lower = ascii_lower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace lathe
