// The syntax tree of a pre-tokenizer pattern, between the parser and the code generator of regex.cpp.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/tokenizer/regex_unicode.h"

namespace lathe {

struct RegexNode {
  enum class Kind { kEmpty, kLiteral, kSet, kConcat, kAlternate, kRepeat, kLineStart, kLineEnd, kLookAhead };
  enum class Mode { kGreedy, kLazy, kPossessive };
  static constexpr int32_t kUnlimited = -1;

  Kind kind = Kind::kEmpty;
  char32_t literal = 0;
  unicode::RangeSet set;  // normalised
  std::vector<RegexNode> children;
  int32_t min = 0;
  int32_t max = kUnlimited;
  Mode mode = Mode::kGreedy;
  bool negative = false;

  // Whether it can match without consuming text.
  bool nullable() const;
};

// Parses a pattern. Errors begin with `byte <offset>: `.
Result<RegexNode> parse_regex(std::string_view pattern);

}  // namespace lathe
