// str(a, b, ...): concatenates values as text. Numbers go through std::to_chars (shortest form that reads back).
#pragma once

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace lathe {

inline void append_to(std::string& out, std::string_view text) {
  out += text;
}

inline void append_to(std::string& out, const char* text) {
  out += text;
}

inline void append_to(std::string& out, const std::string& text) {
  out += text;
}

inline void append_to(std::string& out, char c) {
  out += c;
}

inline void append_to(std::string& out, bool b) {
  out += b ? "true" : "false";
}

inline void append_to(std::string& out, const std::filesystem::path& path) {
  out += path.string();
}

template <class T>
  requires(std::is_arithmetic_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char>)
void append_to(std::string& out, T number) {
  char buffer[64];
  const std::to_chars_result result = std::to_chars(buffer, buffer + sizeof buffer, number);
  out.append(buffer, result.ptr);
}

// A list prints as [1, 2, 3].
template <class T>
void append_to(std::string& out, std::span<const T> values) {
  out += '[';
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out += ", ";
    append_to(out, values[i]);
  }
  out += ']';
}

template <class T>
void append_to(std::string& out, const std::vector<T>& values) {
  append_to(out, std::span<const T>(values));
}

template <class... Parts>
std::string str(const Parts&... parts) {
  std::string out;
  (append_to(out, parts), ...);
  return out;
}

// A number with a fixed count of decimals: fixed(3.14159, 2) == "3.14".
std::string fixed(double value, int decimals);

// 34560 -> "34,560".
std::string with_commas(int64_t value);

// 1536 -> "1.50 KiB"; exact powers of 1024.
std::string human_bytes(uint64_t bytes);

// Text of unknown origin for an error message, between double quotes: control characters and bytes that are not valid
// UTF-8 become \xNN, a quote or backslash gets a backslash, and what is longer than `limit` bytes is cut at a character
// and marked by "..." after the closing quote.
std::string quoted(std::string_view text, size_t limit = 80);

// For std::string arguments, which would find std::quoted instead by argument-dependent lookup.
inline std::string quoted(const std::string& text, size_t limit = 80) {
  return quoted(std::string_view(text), limit);
}

inline std::string quoted(const char* text, size_t limit = 80) {
  return quoted(std::string_view(text), limit);
}

inline std::string quoted(std::string& text, size_t limit = 80) {
  return quoted(std::string_view(text), limit);
}

// Strict decimal integer: digits with an optional leading '-', nothing else, in range. False on anything else.
bool parse_int(std::string_view text, int64_t& value);

// Strict finite decimal number (1, -2.5, 1e-3). False on anything else.
bool parse_double(std::string_view text, double& value);

}  // namespace lathe
