// Text of the template interpreter: bytes plus the ranges of them that came from untrusted input (message contents,
// tool texts, ...). Every operation on strings goes through TextBuilder, which carries the ranges along and charges a
// budget, so that neither the marks get lost nor memory runs away.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/base/utf8.h"

namespace lathe::jinja {

struct ByteRange {
  size_t begin = 0;
  size_t end = 0;
};

// Always valid UTF-8. `literal` is sorted, disjoint and without empty or touching ranges.
struct Text {
  std::string bytes;
  std::vector<ByteRange> literal;

  Text() = default;

  explicit Text(std::string_view text, bool is_literal = false) : bytes(text) {
    if (is_literal && !bytes.empty()) literal.push_back({0, bytes.size()});
  }
};

// What one rendering may spend. Steps count evaluated nodes, loop rounds and list elements; bytes count string bytes
// built or searched. Both only grow, so they bound time and memory together.
class Budget {
 public:
  Budget(int64_t max_steps, int64_t max_bytes) : max_steps_(max_steps), max_bytes_(max_bytes) {}

  // Charges steps; fails when they are used up.
  Status steps(int64_t count = 1);
  // Charges bytes of string work; fails when they are used up.
  Status bytes(size_t count);

 private:
  int64_t max_steps_;
  int64_t max_bytes_;
  int64_t used_steps_ = 0;
  int64_t used_bytes_ = 0;
};

// Appends pieces while the budget lasts; afterwards it ignores what comes and take() returns the error.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(&budget) {}

  // Adds text; beyond the limit status() becomes an error and nothing more is added.
  void append(std::string_view text, bool literal = false);

  void append(const Text& text) { append_slice(text, 0, text.bytes.size()); }

  // Bytes [begin, end) of text with their marks.
  void append_slice(const Text& text, size_t begin, size_t end);

  size_t size() const { return text_.bytes.size(); }

  Status status() const { return status_; }

  // What was built, or the error of the limit.
  Result<Text> take();

 private:
  bool charge(size_t count);
  void mark(size_t begin, size_t end);

  Budget* budget_;
  Text text_;
  Status status_;
};

// Calls fn(piece, literal) for the maximal pieces of one kind, in order.
template <class Fn>
void for_each_piece(const Text& text, Fn fn) {
  const std::string_view bytes = text.bytes;
  size_t at = 0;
  for (const ByteRange& range : text.literal) {
    if (range.begin > at) fn(bytes.substr(at, range.begin - at), false);
    fn(bytes.substr(range.begin, range.end - range.begin), true);
    at = range.end;
  }
  if (at < bytes.size()) fn(bytes.substr(at), false);
}

// Finds a fixed needle in linear time, whatever the two texts are.
class Finder {
 public:
  explicit Finder(std::string_view needle);
  // First occurrence at or after `from`, or npos. The needle must not be empty.
  size_t find(std::string_view text, size_t from) const;

  size_t size() const { return needle_.size(); }

 private:
  std::string_view needle_;
  std::vector<uint32_t> fallback_;  // of the failure function; only for long needles
};

// Python's str.isspace for one character, and its line ends (str.splitlines).
bool is_space(char32_t c);
bool is_line_end(char32_t c);
// str.upper / str.lower of one character for ASCII, Latin, Greek and Cyrillic letters; others stay as they are.
char32_t to_upper(char32_t c);
char32_t to_lower(char32_t c);
bool is_cased(char32_t c);
// Whether repr() prints the character as itself.
bool is_printable(char32_t c);

// Code points of valid UTF-8.
size_t count_characters(std::string_view text);
// Offset of the first byte that is not white space / one past the last such byte.
size_t skip_space(std::string_view text, size_t from);
size_t trimmed_end(std::string_view text);

// The character that starts at `at`, and its size in bytes.
inline char32_t character_at(std::string_view text, size_t at, size_t& size) {
  if (static_cast<uint8_t>(text[at]) < 0x80) {
    size = 1;
    return static_cast<uint8_t>(text[at]);
  }
  size_t end = at;
  const char32_t c = decode_utf8(text, end);
  size = end - at;
  return c;
}

// repr() of a Python float.
std::string float_text(double value);

}  // namespace lathe::jinja
