#include "lathe/formats/json_cursor.h"

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

namespace lathe {

void JsonCursor::skip_space() {
  while (position_ < text_.size()) {
    const char c = text_[position_];
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r') break;
    ++position_;
  }
}

uint64_t JsonCursor::position() {
  skip_space();
  return position_;
}

Error JsonCursor::expected(std::string_view what) {
  const std::string found =
      position_ >= text_.size() ? std::string("the end of the text") : lathe::quoted(text_.substr(position_, 24), 20);
  return Error{Errc::kInvalidData, str("byte ", position_, ": expected ", what, ", found ", found)};
}

Status JsonCursor::open(char bracket, std::string_view what) {
  skip_space();
  if (!peek_is(bracket)) return expected(what);
  if (depth_ >= kMaxDepth) {
    return Error{Errc::kInvalidData, str("byte ", position_, ": nesting deeper than ", kMaxDepth)};
  }
  ++position_;
  ++depth_;
  fresh_ |= uint64_t{1} << depth_;
  return {};
}

Status JsonCursor::open_object() {
  return open('{', "an object");
}

Status JsonCursor::open_array() {
  return open('[', "an array");
}

// Reads the comma before an item, or the closing bracket after the last one.
Result<bool> JsonCursor::next_item(char close) {
  const uint64_t bit = uint64_t{1} << depth_;
  skip_space();
  if (peek_is(close)) {
    ++position_;
    --depth_;
    return false;
  }
  if ((fresh_ & bit) != 0) {
    fresh_ &= ~bit;
    return true;
  }
  if (!peek_is(',')) return expected(close == '}' ? "',' or '}'" : "',' or ']'");
  ++position_;
  return true;
}

Result<bool> JsonCursor::next_member(std::string& key) {
  LATHE_TRY(const bool more, next_item('}'));
  if (!more) return false;
  skip_space();
  if (!peek_is('"')) return expected("a member name");
  LATHE_TRY(key, read_string());
  skip_space();
  if (!peek_is(':')) return expected("':'");
  ++position_;
  return true;
}

Result<bool> JsonCursor::next_element() {
  return next_item(']');
}

Result<uint32_t> JsonCursor::read_hex4() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    if (position_ >= text_.size()) return expected("four hexadecimal digits");
    const int digit = hex_digit_value(text_[position_]);
    if (digit < 0) return expected("four hexadecimal digits");
    value = value * 16 + static_cast<uint32_t>(digit);
    ++position_;
  }
  return value;
}

Status JsonCursor::read_escape(std::string& out) {
  if (position_ >= text_.size()) return expected("an escape");
  const char c = text_[position_];
  const size_t which = std::string_view("\"\\/bfnrt").find(c);
  if (which != std::string_view::npos) {
    out += "\"\\/\b\f\n\r\t"[which];
    ++position_;
    return {};
  }
  if (c != 'u') return expected("an escape of JSON");
  ++position_;
  LATHE_TRY(const uint32_t first, read_hex4());
  char32_t code_point = first;
  if (first >= 0xDC00 && first <= 0xDFFF) return expected("no lone low surrogate before");
  if (first >= 0xD800 && first <= 0xDBFF) {
    if (!text_.substr(position_).starts_with("\\u")) return expected("the low surrogate of a pair");
    position_ += 2;
    LATHE_TRY(const uint32_t second, read_hex4());
    if (second < 0xDC00 || second > 0xDFFF) return expected("the low surrogate of a pair before");
    code_point = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }
  append_utf8(out, code_point);
  return {};
}

Result<std::string> JsonCursor::read_string() {
  skip_space();
  if (!peek_is('"')) return expected("a string");
  ++position_;
  std::string out;
  while (true) {
    const size_t start = position_;
    while (position_ < text_.size() && text_[position_] != '"' && text_[position_] != '\\' &&
           static_cast<unsigned char>(text_[position_]) >= 0x20) {
      ++position_;
    }
    out.append(text_.substr(start, position_ - start));
    if (peek_is('"')) {
      ++position_;
      return out;
    }
    if (!peek_is('\\')) return expected("the end of a string");
    ++position_;
    LATHE_TRY(read_escape(out));
  }
}

Result<uint64_t> JsonCursor::read_unsigned() {
  skip_space();
  const size_t start = position_;
  uint64_t value = 0;
  bool overflow = false;
  while (peek_digit()) {
    const auto digit = static_cast<uint64_t>(text_[position_] - '0');
    overflow =
        overflow || __builtin_mul_overflow(value, uint64_t{10}, &value) || __builtin_add_overflow(value, digit, &value);
    ++position_;
  }
  const bool leading_zero = position_ - start > 1 && text_[start] == '0';
  const bool continues = peek_is('.') || peek_is('e') || peek_is('E');
  if (position_ == start || overflow || leading_zero || continues) {
    position_ = start;
    return expected("a non-negative integer of at most 64 bits");
  }
  return value;
}

Status JsonCursor::skip_number() {
  const size_t start = position_;
  if (peek_is('-')) ++position_;
  const bool zero = peek_is('0');
  const size_t digits = position_;
  while (peek_digit()) ++position_;
  bool good = position_ > digits && (!zero || position_ == digits + 1);
  if (good && peek_is('.')) {
    const size_t fraction = ++position_;
    while (peek_digit()) ++position_;
    good = position_ > fraction;
  }
  if (good && (peek_is('e') || peek_is('E'))) {
    ++position_;
    if (peek_is('+') || peek_is('-')) ++position_;
    const size_t exponent = position_;
    while (peek_digit()) ++position_;
    good = position_ > exponent;
  }
  if (good) return {};
  position_ = start;
  return expected("a value");
}

Status JsonCursor::skip_word(std::string_view word) {
  if (!text_.substr(position_).starts_with(word)) return expected("a value");
  position_ += word.size();
  return {};
}

// Recursion is bounded by kMaxDepth, which open() enforces.
Status JsonCursor::skip_value() {  // NOLINT(misc-no-recursion)
  skip_space();
  if (position_ >= text_.size()) return expected("a value");
  switch (text_[position_]) {
    case '"': {
      LATHE_TRY([[maybe_unused]] const std::string dropped, read_string());
      return {};
    }
    case '{': {
      LATHE_TRY(open_object());
      std::string key;
      while (true) {
        LATHE_TRY(const bool more, next_member(key));
        if (!more) return {};
        LATHE_TRY(skip_value());
      }
    }
    case '[': {
      LATHE_TRY(open_array());
      while (true) {
        LATHE_TRY(const bool more, next_element());
        if (!more) return {};
        LATHE_TRY(skip_value());
      }
    }
    case 't':
      return skip_word("true");
    case 'f':
      return skip_word("false");
    case 'n':
      return skip_word("null");
    default:
      return skip_number();
  }
}

Status JsonCursor::finish() {
  skip_space();
  if (position_ < text_.size()) return expected("nothing after the JSON value");
  return {};
}

}  // namespace lathe
