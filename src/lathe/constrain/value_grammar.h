// Parts of grammars: JSON strings, numbers and white space.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "lathe/constrain/automaton.h"
#include "lathe/constrain/pattern.h"

namespace lathe {

// A JSON string of min to max code points, from state `from` to `to`, quotes included. All escapes may be used.
void add_string(GrammarBuilder& builder, int32_t from, int64_t min, int64_t max, int32_t to);

// A JSON string whose text an automaton accepts. A character has one spelling: as it is, or escaped where it must be.
void add_string(GrammarBuilder& builder, int32_t from, const CodePointDfa& dfa, int32_t to);

// A decimal number, exactly.
struct Decimal {
  bool negative = false;
  std::string whole;     // digits without leading zeros; empty: 0
  std::string fraction;  // digits without trailing zeros
};

// The number that a double prints as.
Decimal to_decimal(double value);
Decimal to_decimal(int64_t value);

// Negative, zero or positive, as a is less than, equal to or greater than b.
int compare(const Decimal& a, const Decimal& b);

// What a number has to be.
struct NumberRange {
  std::optional<Decimal> low = {};
  std::optional<Decimal> high = {};
  bool low_exclusive = false;
  bool high_exclusive = false;
  bool integer = false;  // no fraction; up to 18 digits, otherwise 15 altogether
  int64_t multiple = 1;  // of integers only
};

inline constexpr int64_t kMaxMultiple = 1000;

// A number of the range, without exponent.
void add_number(GrammarBuilder& builder, int32_t from, const NumberRange& range, int32_t to);

// Any number: up to 16 digits, a fraction of up to 16, an exponent of up to two.
void add_any_number(GrammarBuilder& builder, int32_t from, int32_t to);

// A rule for white space that is not empty: a space, or one or two newlines with up to 20 spaces or tabs behind them.
int32_t add_white_space(GrammarBuilder& builder);

}  // namespace lathe
