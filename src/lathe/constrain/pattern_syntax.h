// The syntax tree of a pattern, between its parser and the automaton.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/tokenizer/regex_unicode.h"

namespace lathe {

// One part of a pattern.
struct PatternNode {
  enum class Kind { kEmpty, kSet, kSequence, kChoice, kRepeat, kBegin, kEnd };
  static constexpr int32_t kUnlimited = -1;

  Kind kind = Kind::kEmpty;
  unicode::RangeSet set;  // normalised
  std::vector<PatternNode> children;
  int32_t min = 0;
  int32_t max = kUnlimited;
};

// Errors begin with `byte <offset>: `.
Result<PatternNode> parse_pattern(std::string_view pattern);

}  // namespace lathe
