// JsonCursor: reads JSON text front to back without building a tree. Safetensors headers and shard indexes may be 100
// MB of untrusted text; a tree of them could be fifty times as large, a cursor's memory is what the caller keeps.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lathe/base/ascii.h"
#include "lathe/base/result.h"

namespace lathe {

// Strict RFC 8259 over text that is already known to be valid UTF-8; `text` must outlive the cursor. Every error is
// `byte N: expected ..., found ...`. Duplicate keys are the caller's to find, because only the caller keeps them.
class JsonCursor {
 public:
  static constexpr int kMaxDepth = 32;

  explicit JsonCursor(std::string_view text) : text_(text) {}

  // Byte offset of the next token, for messages.
  uint64_t position();

  // Consumes the opening brace.
  Status open_object();
  // True with the member's name in `key` and the cursor before its value; false after the closing brace was read.
  Result<bool> next_member(std::string& key);
  Status open_array();
  // True with the cursor before an element; false after the closing bracket was read.
  Result<bool> next_element();

  // Consumes a string and returns its text, escapes resolved.
  Result<std::string> read_string();
  // A number of digits only, within 64 bits: no sign, fraction or exponent.
  Result<uint64_t> read_unsigned();
  // Any value, checked and dropped.
  Status skip_value();
  // Nothing but white space may follow.
  Status finish();

 private:
  void skip_space();
  Error expected(std::string_view what);
  Status open(char bracket, std::string_view what);
  Result<bool> next_item(char close);
  Status read_escape(std::string& out);
  Result<uint32_t> read_hex4();
  Status skip_number();
  Status skip_word(std::string_view word);

  bool peek_is(char c) const { return position_ < text_.size() && text_[position_] == c; }

  bool peek_digit() const { return position_ < text_.size() && is_ascii_digit(text_[position_]); }

  std::string_view text_;
  size_t position_ = 0;
  int depth_ = 0;
  uint64_t fresh_ = 0;  // bit d: the container at depth d has had no item yet
};

}  // namespace lathe
