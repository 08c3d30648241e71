// Patterns of strings as deterministic automata over code points: `pattern`, `patternProperties` and `format`.
//
// The dialect is the part of ECMA 262 and Python's re that both read alike: literals, ., classes with ranges, \d \w \s
// and their opposites, \n \r \t \f \v \xHH \uHHHH, groups ( ) and (?: ), |, the quantifiers * + ? {n} {n,} {n,m} with
// or without ?, and ^ $. A match anywhere in the string counts, as in JSON schema. Where the two differ (does \d take
// digits of all scripts?) the automaton accepts what both do.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"

namespace lathe {

inline constexpr int64_t kNoMaximum = std::numeric_limits<int64_t>::max() / 2;

// A deterministic automaton. State 0 is the start; from every state an accepting one can be reached, unless there is no
// state at all: then nothing is accepted.
struct CodePointDfa {
  struct Edge {
    char32_t low = 0;  // both ends included; edges of a state do not overlap and are sorted
    char32_t high = 0;
    int32_t target = 0;
  };

  struct State {
    std::vector<Edge> edges;
    bool accept = false;
  };

  std::vector<State> states;

  // Whether it accepts the text, which must be valid UTF-8.
  bool accepts(std::string_view text) const;
};

// The functions below take steps from `work` and fail when none is left, or when the automaton has more than a few
// thousand states: the size can grow exponentially with the pattern.

// Errors: `byte 3: look-around is not supported`.
Result<CodePointDfa> compile_pattern(std::string_view pattern, int64_t& work);

// What both accept.
Result<CodePointDfa> intersect(const CodePointDfa& a, const CodePointDfa& b, int64_t& work);

// What `a` accepts and `b` does not.
Result<CodePointDfa> subtract(const CodePointDfa& a, const CodePointDfa& b, int64_t& work);

// What is accepted and has min to max code points; kNoMaximum: as many as there are.
Result<CodePointDfa> with_length(const CodePointDfa& dfa, int64_t min, int64_t max, int64_t& work);

// Whether every state accepts texts without end.
bool is_endless(const CodePointDfa& dfa);

// The pattern of a format that is guaranteed (date, date-time, time, uuid, email, ipv4); empty for any other.
std::string_view format_pattern(std::string_view format);

}  // namespace lathe
