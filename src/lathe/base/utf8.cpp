#include "lathe/base/utf8.h"

#include <algorithm>
#include <cstring>

namespace lathe {
namespace {

constexpr char32_t kReplacement = 0xfffd;

// What may follow a lead byte (Unicode 15, table 3-7): how many continuation bytes, and the range of the first of
// them, which is where overlong forms, surrogates and values beyond U+10FFFF are cut off. length 0: not a lead byte.
struct Lead {
  int continuations;
  unsigned char low;
  unsigned char high;
};

Lead lead_of(unsigned char byte) {
  if (byte < 0xc2) return {0, 0, 0};
  if (byte < 0xe0) return {1, 0x80, 0xbf};
  if (byte == 0xe0) return {2, 0xa0, 0xbf};
  if (byte == 0xed) return {2, 0x80, 0x9f};
  if (byte < 0xf0) return {2, 0x80, 0xbf};
  if (byte == 0xf0) return {3, 0x90, 0xbf};
  if (byte < 0xf4) return {3, 0x80, 0xbf};
  if (byte == 0xf4) return {3, 0x80, 0x8f};
  return {0, 0, 0};
}

unsigned char byte_at(std::string_view text, size_t i) {
  return static_cast<unsigned char>(text[i]);
}

// Length of the run of ASCII bytes at `position`.
size_t ascii_run(std::string_view text, size_t position) {
  const size_t begin = position;
  while (text.size() - position >= sizeof(uint64_t)) {
    uint64_t eight = 0;
    std::memcpy(&eight, text.data() + position, sizeof eight);
    if ((eight & 0x8080808080808080u) != 0) break;
    position += sizeof eight;
  }
  while (position < text.size() && byte_at(text, position) < 0x80) ++position;
  return position - begin;
}

struct Sequence {
  char32_t code_point;
  size_t length;   // bytes of the character or of the maximal subpart
  bool complete;   // a whole character
  bool truncated;  // the text ends inside what could still become a character
};

Sequence scan(std::string_view text, size_t position) {
  const unsigned char first = byte_at(text, position);
  if (first < 0x80) return {first, 1, true, false};
  const Lead lead = lead_of(first);
  if (lead.continuations == 0) return {kReplacement, 1, false, false};
  // 0x1f, 0x0f, 0x07: the payload bits of a lead byte with 1, 2 or 3 continuations.
  char32_t code_point = first & (0x3fu >> lead.continuations);
  for (int i = 1; i <= lead.continuations; ++i) {
    const size_t at = position + static_cast<size_t>(i);
    if (at >= text.size()) return {kReplacement, static_cast<size_t>(i), false, true};
    const unsigned char byte = byte_at(text, at);
    const unsigned char low = i == 1 ? lead.low : 0x80;
    const unsigned char high = i == 1 ? lead.high : 0xbf;
    if (byte < low || byte > high) return {kReplacement, static_cast<size_t>(i), false, false};
    code_point = (code_point << 6) | (byte & 0x3fu);
  }
  return {code_point, static_cast<size_t>(lead.continuations) + 1, true, false};
}

}  // namespace

int64_t count_code_points(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return !is_utf8_continuation(c); });
}

bool is_valid_utf8(std::string_view text) {
  size_t position = 0;
  while (true) {
    position += ascii_run(text, position);
    if (position >= text.size()) return true;
    const Sequence sequence = scan(text, position);
    if (!sequence.complete) return false;
    position += sequence.length;
  }
}

char32_t decode_utf8(std::string_view text, size_t& position, bool* valid) {
  const Sequence sequence = scan(text, position);
  position += sequence.length;
  if (valid != nullptr) *valid = sequence.complete;
  return sequence.code_point;
}

void append_utf8(std::string& out, char32_t code_point) {
  const bool surrogate = code_point >= 0xd800 && code_point <= 0xdfff;
  const char32_t c = surrogate || code_point > 0x10ffff ? kReplacement : code_point;
  if (c < 0x80) {
    out += static_cast<char>(c);
    return;
  }
  if (c < 0x800) {
    out += static_cast<char>(0xc0 | (c >> 6));
  } else {
    if (c < 0x10000) {
      out += static_cast<char>(0xe0 | (c >> 12));
    } else {
      out += static_cast<char>(0xf0 | (c >> 18));
      out += static_cast<char>(0x80 | ((c >> 12) & 0x3f));
    }
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3f));
  }
  out += static_cast<char>(0x80 | (c & 0x3f));
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  size_t position = 0;
  while (position < bytes.size()) {
    const size_t ascii = ascii_run(bytes, position);
    out += bytes.substr(position, ascii);
    position += ascii;
    if (position >= bytes.size()) break;
    const Sequence sequence = scan(bytes, position);
    if (sequence.complete) {
      out += bytes.substr(position, sequence.length);
    } else {
      append_utf8(out, kReplacement);
    }
    position += sequence.length;
  }
  return out;
}

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  size_t end = held_.size();
  // A character still incomplete at the end began at most three bytes ago.
  for (size_t back = 1; back <= 3 && back <= held_.size(); ++back) {
    const size_t at = held_.size() - back;
    if ((byte_at(held_, at) & 0xc0) == 0x80) continue;
    if (scan(held_, at).truncated) end = at;
    break;
  }
  std::string out = to_valid_utf8(std::string_view(held_).substr(0, end));
  held_.erase(0, end);
  return out;
}

std::string Utf8Stream::finish() {
  std::string out = to_valid_utf8(held_);
  held_.clear();
  return out;
}

}  // namespace lathe
