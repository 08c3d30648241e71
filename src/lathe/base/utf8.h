// UTF-8: validation, decoding, lossy repair by the maximal-subpart rule (Unicode 15, section 3.9, table 3-8).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lathe {

bool is_valid_utf8(std::string_view text);

// Whether the byte goes on with a character that began before it.
constexpr bool is_utf8_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// Characters of valid UTF-8.
int64_t count_code_points(std::string_view text);

// Decodes the code point at `position` and advances past it. An invalid sequence yields U+FFFD and advances past its
// maximal subpart; `valid` (when given) tells the two apart. Requires position < text.size().
char32_t decode_utf8(std::string_view text, size_t& position, bool* valid = nullptr);

// A surrogate or a value past U+10FFFF appends U+FFFD.
void append_utf8(std::string& out, char32_t code_point);

// Every maximal invalid subpart replaced by U+FFFD.
std::string to_valid_utf8(std::string_view bytes);

// Joins byte pieces into whole characters: push() returns the text that is complete so far, with invalid bytes
// replaced; an incomplete but so far valid sequence at the end is held back. finish() flushes it as U+FFFD.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);
  std::string finish();

 private:
  std::string held_;
};

}  // namespace lathe
