// What the fuzz targets share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace lathe::fuzz {

// Ends the program, so that both libFuzzer and the replay see a finding.
[[noreturn]] inline void finding(const char* what) {
  std::fprintf(stderr, "finding: %s\n", what);
  std::abort();
}

inline void require(bool condition, const char* what) {
  if (!condition) finding(what);
}

// Every refusal is one line of bounded length, whatever the input holds.
inline void require_clean_message(std::string_view message) {
  require(!message.empty(), "empty error message");
  require(message.size() < 2000, "error message without bound");
  for (const char c : message) {
    require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F, "control character in an error message");
  }
}

// Cuts the part of `rest` up to the first zero byte off and returns it: inputs of several texts are joined by zero
// bytes.
inline std::string_view take_part(std::string_view& rest) {
  const size_t end = rest.find('\0');
  const std::string_view part = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return part;
}

}  // namespace lathe::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
