#include "lathe/tokenizer/jinja_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "lathe/base/str.h"

namespace lathe::jinja {
namespace {

// Up to here std::string_view::find is at worst this many times slower than linear, which is acceptable.
constexpr size_t kShortNeedle = 16;

}  // namespace

Status Budget::steps(int64_t count) {
  if (count > max_steps_ - used_steps_) {
    return Error{Errc::kResourceExhausted, str("template takes more than ", max_steps_, " steps")};
  }
  used_steps_ += count;
  return {};
}

Status Budget::bytes(size_t count) {
  if (count > static_cast<uint64_t>(max_bytes_ - used_bytes_)) {
    return Error{Errc::kResourceExhausted, str("template handles more than ", max_bytes_, " bytes of strings")};
  }
  used_bytes_ += static_cast<int64_t>(count);
  return {};
}

bool TextBuilder::charge(size_t count) {
  if (!status_.has_value()) return false;
  status_ = budget_->bytes(count);
  return status_.has_value();
}

void TextBuilder::mark(size_t begin, size_t end) {
  if (!text_.literal.empty() && text_.literal.back().end == begin) {
    text_.literal.back().end = end;
  } else {
    text_.literal.push_back({begin, end});
  }
}

void TextBuilder::append(std::string_view text, bool literal) {
  if (text.empty() || !charge(text.size() + (literal ? sizeof(ByteRange) : 0))) return;
  const size_t begin = text_.bytes.size();
  text_.bytes += text;
  if (literal) mark(begin, text_.bytes.size());
}

void TextBuilder::append_slice(const Text& text, size_t begin, size_t end) {
  if (begin >= end) return;
  const auto first =
      std::lower_bound(text.literal.begin(), text.literal.end(), begin, [](const ByteRange& range, size_t at) {
        return range.end <= at;
      });
  const auto last = std::lower_bound(
      first, text.literal.end(), end, [](const ByteRange& range, size_t at) { return range.begin < at; });
  if (!charge(end - begin + static_cast<size_t>(last - first) * sizeof(ByteRange))) return;
  const size_t base = text_.bytes.size();
  text_.bytes.append(text.bytes, begin, end - begin);
  for (auto range = first; range != last; ++range) {
    mark(base + std::max(range->begin, begin) - begin, base + std::min(range->end, end) - begin);
  }
}

Result<Text> TextBuilder::take() {
  LATHE_TRY(status_);
  return std::move(text_);
}

Finder::Finder(std::string_view needle) : needle_(needle) {
  if (needle.size() <= kShortNeedle) return;
  fallback_.resize(needle.size(), 0);
  uint32_t matched = 0;
  for (size_t i = 1; i < needle.size(); ++i) {
    while (matched > 0 && needle[i] != needle[matched]) matched = fallback_[matched - 1];
    if (needle[i] == needle[matched]) ++matched;
    fallback_[i] = matched;
  }
}

size_t Finder::find(std::string_view text, size_t from) const {
  if (fallback_.empty()) return text.find(needle_, from);
  size_t matched = 0;
  for (size_t i = from; i < text.size(); ++i) {
    while (matched > 0 && text[i] != needle_[matched]) matched = fallback_[matched - 1];
    if (text[i] == needle_[matched]) ++matched;
    if (matched == needle_.size()) return i + 1 - matched;
  }
  return std::string_view::npos;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_line_end(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

// A list of ranges, however many they are.
// NOLINTNEXTLINE(readability-function-cognitive-complexity)
char32_t to_upper(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
  if (c == 0xb5) return 0x39c;
  if (c == 0xff) return 0x178;
  if (c >= 0xe0 && c <= 0xfe && c != 0xf7) return c - 32;
  if ((c >= 0x100 && c <= 0x137 && c != 0x131) || (c >= 0x14a && c <= 0x177)) return c & ~char32_t{1};
  if (c == 0x131) return 'I';
  if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e)) return c % 2 == 0 ? c - 1 : c;
  if (c == 0x17f) return 'S';
  if (c == 0x3ac) return 0x386;
  if (c >= 0x3ad && c <= 0x3af) return c - 37;
  if (c == 0x3c2) return 0x3a3;
  if (c >= 0x3b1 && c <= 0x3cb) return c - 32;
  if (c == 0x3cc) return 0x38c;
  if (c == 0x3cd || c == 0x3ce) return c - 63;
  if (c >= 0x430 && c <= 0x44f) return c - 32;
  if (c >= 0x450 && c <= 0x45f) return c - 80;
  if (c >= 0x460 && c <= 0x481) return c & ~char32_t{1};
  if (c >= 0x1e00 && c <= 0x1e95) return c & ~char32_t{1};
  if (c >= 0x1ea0 && c <= 0x1eff) return c & ~char32_t{1};
  if (c >= 0xff41 && c <= 0xff5a) return c - 32;
  return c;
}

char32_t to_lower(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  if (c >= 0xc0 && c <= 0xde && c != 0xd7) return c + 32;
  if ((c >= 0x100 && c <= 0x137 && c != 0x130) || (c >= 0x14a && c <= 0x177)) return c | 1;
  if (c == 0x178) return 0xff;
  if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e)) return c % 2 == 1 ? c + 1 : c;
  if (c == 0x386) return 0x3ac;
  if (c >= 0x388 && c <= 0x38a) return c + 37;
  if (c == 0x38c) return 0x3cc;
  if (c == 0x38e || c == 0x38f) return c + 63;
  if (c >= 0x391 && c <= 0x3ab && c != 0x3a2) return c + 32;
  if (c >= 0x410 && c <= 0x42f) return c + 32;
  if (c >= 0x400 && c <= 0x40f) return c + 80;
  if (c >= 0x460 && c <= 0x481) return c | 1;
  if (c >= 0x1e00 && c <= 0x1e95) return c | 1;
  if (c >= 0x1ea0 && c <= 0x1eff) return c | 1;
  if (c >= 0xff21 && c <= 0xff3a) return c + 32;
  return c;
}

bool is_cased(char32_t c) {
  return to_upper(c) != c || to_lower(c) != c || c == 0xdf;
}

bool is_printable(char32_t c) {
  if (c < 0x7f) return c >= 0x20;
  if (c < 0xa1 || c == 0xad || is_space(c)) return false;
  return !((c >= 0x200b && c <= 0x200f) || (c >= 0x202a && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) ||
           (c >= 0xe000 && c <= 0xf8ff) || c == 0xfeff || (c >= 0xfff0 && c <= 0xfffb) || c == 0xfffe || c == 0xffff ||
           c >= 0xe0000);
}

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; }));
}

size_t skip_space(std::string_view text, size_t from) {
  while (from < text.size()) {
    size_t size = 0;
    if (!is_space(character_at(text, from, size))) break;
    from += size;
  }
  return from;
}

size_t trimmed_end(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t begin = end - 1;
    while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80) --begin;
    size_t size = 0;
    if (!is_space(character_at(text, begin, size))) break;
    end = begin;
  }
  return end;
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto scientific = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  std::string_view text(buffer, static_cast<size_t>(scientific.ptr - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  const char* digits = text.data() + e + 1;
  std::from_chars(*digits == '+' ? digits + 1 : digits, scientific.ptr, exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);  // to_chars writes the same: 1e+16, 1.5e-05
  char plain[400];
  const auto result = std::to_chars(plain, plain + sizeof plain, value, std::chars_format::fixed);
  std::string out(plain, result.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

}  // namespace lathe::jinja
