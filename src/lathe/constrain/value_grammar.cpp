#include "lathe/constrain/value_grammar.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <string_view>
#include <tuple>
#include <vector>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

namespace lathe {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";
constexpr int kIntegerDigits = 18;  // fit 64 bits
constexpr int kDecimalDigits = 15;  // two different ones are two different doubles
constexpr int kMaxIndent = 20;

int32_t add_hex(GrammarBuilder& builder, int32_t from, int32_t bounds) {
  const int32_t to = builder.new_state(builder.rule_of(from), bounds);
  builder.add_bytes(from, '0', '9', to);
  builder.add_bytes(from, 'a', 'f', to);
  builder.add_bytes(from, 'A', 'F', to);
  return to;
}

// \uXXXX behind its `u`: a code point, or a surrogate pair; lone surrogates are no text.
void add_unicode_escape(GrammarBuilder& builder, int32_t from, int32_t bounds, int32_t to) {
  const int32_t rule = builder.rule_of(from);
  const int32_t last = builder.new_state(rule, bounds), second = builder.new_state(rule, bounds);
  const int32_t third = builder.new_state(rule, bounds), pair = builder.new_state(rule, bounds);
  for (const auto& [low, high] : {std::pair('0', '9'), std::pair('a', 'f'), std::pair('A', 'F')}) {
    builder.add_bytes(last, static_cast<uint8_t>(low), static_cast<uint8_t>(high), to);
    builder.add_bytes(third, static_cast<uint8_t>(low), static_cast<uint8_t>(high), last);
    builder.add_bytes(second, static_cast<uint8_t>(low), static_cast<uint8_t>(high), third);
  }
  for (const auto& [low, high] :
       {std::pair('0', '9'), std::pair('a', 'c'), std::pair('e', 'f'), std::pair('A', 'C'), std::pair('E', 'F')}) {
    builder.add_bytes(from, static_cast<uint8_t>(low), static_cast<uint8_t>(high), second);
  }
  const int32_t after_d = builder.new_state(rule, bounds);
  for (const char d : {'d', 'D'}) builder.add_byte(from, d, after_d);
  builder.add_bytes(after_d, '0', '7', third);
  for (const auto& [low, high] : {std::pair('8', '9'), std::pair('a', 'b'), std::pair('A', 'B')}) {
    builder.add_bytes(after_d, static_cast<uint8_t>(low), static_cast<uint8_t>(high), pair);
  }
  int32_t at = add_hex(builder, add_hex(builder, pair, bounds), bounds);
  for (const char c : {'\\', 'u'}) {
    const int32_t next = builder.new_state(rule, bounds);
    builder.add_byte(at, c, next);
    at = next;
  }
  const int32_t low_d = builder.new_state(rule, bounds), low_rest = builder.new_state(rule, bounds);
  for (const char d : {'d', 'D'}) builder.add_byte(at, d, low_d);
  for (const auto& [low, high] : {std::pair('c', 'f'), std::pair('C', 'F')}) {
    builder.add_bytes(low_d, static_cast<uint8_t>(low), static_cast<uint8_t>(high), low_rest);
  }
  builder.add_empty(add_hex(builder, add_hex(builder, low_rest, bounds), bounds), to);
}

// One character of [low, high] that may not stand for itself, escaped in the one way in which we write it.
void add_escaped(GrammarBuilder& builder, int32_t& escape, int32_t from, char32_t c, int32_t to) {
  if (escape < 0) {
    escape = builder.new_state(builder.rule_of(from));
    builder.add_byte(from, '\\', escape);
  }
  static constexpr std::string_view kValues = "\"\\\b\f\n\r\t";
  static constexpr std::string_view kNames = "\"\\bfnrt";
  const size_t at = kValues.find(static_cast<char>(c));
  if (at != std::string_view::npos) {
    builder.add_byte(escape, kNames[at], to);
    return;
  }
  const std::array<char, 2> digits = {kHex[c >> 4], kHex[c & 15]};
  builder.add_empty(builder.add_text(escape, str("u00", std::string_view(digits.data(), 2))), to);
}

bool is_zero(const Decimal& d) {
  return d.whole.empty() && d.fraction.empty();
}

Decimal parse_decimal(std::string_view text) {
  Decimal out;
  out.negative = text.starts_with('-');
  if (out.negative) text.remove_prefix(1);
  const size_t point = text.find('.');
  out.whole = text.substr(0, point);
  out.whole.erase(0, std::min(out.whole.find_first_not_of('0'), out.whole.size()));
  if (point != std::string_view::npos) out.fraction = text.substr(point + 1);
  while (out.fraction.ends_with('0')) out.fraction.pop_back();
  return out;
}

// Numbers without sign between two bounds, digit by digit. A state knows how many digits may still come, whether what
// was written equals the beginning of a bound or is already safely inside, and the remainder.
class Magnitude {
 public:
  struct Bound {
    Decimal value;
    bool exclusive = false;
    bool none = false;  // no upper bound
  };

  Magnitude(GrammarBuilder& builder, const NumberRange& range, Bound low, Bound high, int32_t to)
      : builder_(&builder),
        integer_(range.integer),
        multiple_(range.multiple),
        low_(std::move(low)),
        high_(std::move(high)),
        to_(to) {}

  void add(int32_t from) {
    const int most = integer_ ? kIntegerDigits : kDecimalDigits;
    for (int length = 1; length <= most && !builder_->too_large(); ++length) {
      // 0 has one digit and counts as a number whose whole part is empty.
      const auto low_length = std::max<int>(1, static_cast<int>(low_.value.whole.size()));
      const auto high_length = std::max<int>(1, static_cast<int>(high_.value.whole.size()));
      if (length < low_length || (!high_.none && length > high_length)) continue;
      Key key{.length = length, .left = length, .fraction_left = integer_ ? 0 : most - length};
      key.low_equal = length == low_length;
      key.high_equal = !high_.none && length == high_length;
      add_digits(from, key, length > 1);
    }
  }

 private:
  struct Key {
    int length = 0;  // 0 where no bound is compared any more
    int left = 0;
    int fraction_left = 0;
    int fraction = 0;  // digits of the fraction so far
    bool low_equal = false;
    bool high_equal = false;
    bool point = false;
    int64_t remainder = 0;

    friend auto operator<=>(const Key&, const Key&) = default;
  };

  // The digit of a bound that stands where the next digit of `key` will.
  static char digit_of(const Decimal& bound, const Key& key) {
    if (key.point) {
      const auto at = static_cast<size_t>(key.fraction);
      return at < bound.fraction.size() ? bound.fraction[at] : '0';
    }
    return bound.whole.empty() ? '0' : bound.whole[static_cast<size_t>(key.length - key.left)];
  }

  // Whether a bound that equals what was written so far has no further digit but zeros.
  static bool exhausted(const Decimal& bound, const Key& key) {
    return bound.fraction.size() <= static_cast<size_t>(key.point ? key.fraction : 0);
  }

  bool may_end(const Key& key) const {
    if (key.left > 0 || key.remainder != 0 || (key.point && key.fraction == 0)) return false;
    if (key.low_equal && (!exhausted(low_.value, key) || low_.exclusive)) return false;
    return !key.high_equal || !exhausted(high_.value, key) || !high_.exclusive;
  }

  int32_t state_of(Key key) {
    if (!key.low_equal && !key.high_equal) {
      key.length = 0;
      key.fraction = std::min(key.fraction, 1);
    }
    const auto [at, inserted] = states_.try_emplace(key, 0);
    if (!inserted) return at->second;
    const int32_t state = builder_->new_state(builder_->rule_of(to_));
    at->second = state;
    if (builder_->too_large()) return state;
    if (may_end(key)) builder_->add_empty(state, to_);
    if (key.left > 0 || key.point) {
      if (key.left > 0 || key.fraction_left > 0) add_digits(state, key, false);
    } else if (key.fraction_left > 0) {
      Key next = key;
      next.point = true;
      builder_->add_byte(state, '.', state_of(next));
    }
    return state;
  }

  void add_digits(int32_t from, const Key& key, bool no_zero) {
    for (char digit = no_zero ? '1' : '0'; digit <= '9'; ++digit) {
      Key next = key;
      if (key.low_equal) {
        const char bound = digit_of(low_.value, key);
        if (digit < bound) continue;
        next.low_equal = digit == bound;
      }
      if (key.high_equal) {
        const char bound = digit_of(high_.value, key);
        if (digit > bound) continue;
        next.high_equal = digit == bound;
      }
      if (key.point) {
        ++next.fraction;
        --next.fraction_left;
      } else {
        --next.left;
      }
      if (integer_) next.remainder = (key.remainder * 10 + (digit - '0')) % multiple_;
      builder_->add_byte(from, digit, state_of(next));
    }
  }

  GrammarBuilder* builder_;
  bool integer_;
  int64_t multiple_;
  Bound low_;
  Bound high_;
  int32_t to_;
  std::map<Key, int32_t> states_;
};

}  // namespace

void add_string(GrammarBuilder& builder, int32_t from, int64_t min, int64_t max, int32_t to) {
  const bool counted = min > 0 || max < kNoMaximum;
  const int32_t rule = builder.rule_of(from);
  const int32_t bounds = counted ? builder.new_bounds({min, max}) : 0;
  const EdgeOp one = counted ? EdgeOp::kBelowMax | EdgeOp::kCount : EdgeOp::kNone;
  const int32_t inside = builder.new_state(rule, bounds), escape = builder.new_state(rule, bounds);
  const int32_t code = builder.new_state(rule, bounds);
  builder.add_byte(from, '"', inside);
  builder.add_code_points(inside, 0x20, '"' - 1, inside, one);
  builder.add_code_points(inside, '"' + 1, '\\' - 1, inside, one);
  builder.add_code_points(inside, '\\' + 1, 0x10FFFF, inside, one);
  builder.add_byte(inside, '\\', escape, one);
  for (const char c : std::string_view("\"\\/bfnrt")) builder.add_byte(escape, c, inside);
  builder.add_byte(escape, 'u', code);
  add_unicode_escape(builder, code, bounds, inside);
  builder.add_byte(inside, '"', to, counted ? EdgeOp::kAtLeastMin | EdgeOp::kReset : EdgeOp::kNone);
}

void add_string(GrammarBuilder& builder, int32_t from, const CodePointDfa& dfa, int32_t to) {
  if (dfa.states.empty()) return;
  std::vector<int32_t> states;
  for (size_t s = 0; s < dfa.states.size(); ++s) states.push_back(builder.new_state(builder.rule_of(from)));
  builder.add_byte(from, '"', states[0]);
  for (size_t s = 0; s < dfa.states.size(); ++s) {
    const int32_t here = states[s];
    int32_t escape = -1;
    if (dfa.states[s].accept) builder.add_byte(here, '"', to);
    for (const CodePointDfa::Edge& edge : dfa.states[s].edges) {
      const int32_t target = states[static_cast<size_t>(edge.target)];
      char32_t low = edge.low;
      while (low <= edge.high) {
        if (low < 0x20 || low == '"' || low == '\\') {
          add_escaped(builder, escape, here, low, target);
          ++low;
          continue;
        }
        char32_t high = edge.high;
        if (low < '"') high = std::min<char32_t>(high, '"' - 1);
        if (low < '\\') high = std::min<char32_t>(high, low < '"' ? '"' - 1 : '\\' - 1);
        builder.add_code_points(here, low, high, target);
        low = high + 1;
      }
    }
    if (builder.too_large()) return;
  }
}

Decimal to_decimal(double value) {
  std::array<char, 400> text{};
  const std::to_chars_result end =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  return parse_decimal(std::string_view(text.data(), static_cast<size_t>(end.ptr - text.data())));
}

Decimal to_decimal(int64_t value) {
  return parse_decimal(str(value));
}

int compare(const Decimal& a, const Decimal& b) {
  const bool a_negative = a.negative && !is_zero(a), b_negative = b.negative && !is_zero(b);
  if (a_negative != b_negative) return a_negative ? -1 : 1;
  int order = a.whole.size() < b.whole.size() ? -1 : a.whole.size() > b.whole.size() ? 1 : a.whole.compare(b.whole);
  if (order == 0) order = a.fraction.compare(b.fraction);  // without trailing zeros: as text
  return a_negative ? -order : order;
}

void add_number(GrammarBuilder& builder, int32_t from, const NumberRange& range, int32_t to) {
  const bool high_negative = range.high && range.high->negative && !is_zero(*range.high);
  const bool low_negative = !range.low || (range.low->negative && !is_zero(*range.low));
  if (!high_negative) {
    Magnitude::Bound low, high;
    if (!low_negative) low = {*range.low, range.low_exclusive, false};
    if (range.high) high = {*range.high, range.high_exclusive, false};
    high.none = !range.high;
    Magnitude(builder, range, low, high, to).add(from);
  }
  if (low_negative) {
    // Mirrored: from just above zero, or from the upper bound, to the lower one.
    Magnitude::Bound low{{}, true, false}, high;
    if (high_negative) low = {*range.high, range.high_exclusive, false};
    if (range.low) high = {*range.low, range.low_exclusive, false};
    high.none = !range.low;
    const int32_t minus = builder.new_state(builder.rule_of(from));
    builder.add_byte(from, '-', minus);
    Magnitude(builder, range, low, high, to).add(minus);
  }
}

void add_any_number(GrammarBuilder& builder, int32_t from, int32_t to) {
  constexpr int kDigits = 16;
  const int32_t rule = builder.rule_of(from);
  const int32_t minus = builder.new_state(rule), exponent = builder.new_state(rule), sign = builder.new_state(rule);
  const int32_t first = builder.new_state(rule), point = builder.new_state(rule), whole = builder.new_state(rule);
  builder.add_byte(from, '-', minus);
  builder.add_empty(from, minus);
  builder.add_byte(minus, '0', whole);
  int32_t at = builder.new_state(rule);
  builder.add_bytes(minus, '1', '9', at);
  for (int i = 1;; ++i) {
    builder.add_empty(at, whole);
    if (i == kDigits) break;
    const int32_t next = builder.new_state(rule);
    builder.add_bytes(at, '0', '9', next);
    at = next;
  }
  builder.add_empty(whole, to);
  builder.add_byte(whole, '.', point);
  const int32_t end = builder.new_state(rule);  // of what may have an exponent
  builder.add_empty(whole, end);
  at = point;
  for (int i = 0; i < kDigits; ++i) {
    const int32_t next = builder.new_state(rule);
    builder.add_bytes(at, '0', '9', next);
    builder.add_empty(next, to);
    builder.add_empty(next, end);
    at = next;
  }
  for (const char e : {'e', 'E'}) builder.add_byte(end, e, exponent);
  for (const char s : {'+', '-'}) builder.add_byte(exponent, s, sign);
  builder.add_empty(exponent, sign);
  builder.add_bytes(sign, '0', '9', first);
  builder.add_empty(first, to);
  builder.add_bytes(first, '0', '9', to);
}

int32_t add_white_space(GrammarBuilder& builder) {
  const int32_t rule = builder.new_rule();
  const int32_t bounds = builder.new_bounds({0, kMaxIndent});
  const int32_t end = builder.new_state(rule), line = builder.new_state(rule, bounds);
  const int32_t second = builder.new_state(rule, bounds), indent = builder.new_state(rule, bounds);
  builder.accept(end);
  builder.accept(line);
  builder.accept(second);
  builder.accept(indent);
  builder.add_byte(builder.start_of(rule), ' ', end);
  builder.add_byte(builder.start_of(rule), '\n', line);
  builder.add_byte(line, '\n', second);
  for (const int32_t from : {line, second, indent}) {
    for (const char c : {' ', '\t'}) builder.add_byte(from, c, indent, EdgeOp::kBelowMax | EdgeOp::kCount);
  }
  return rule;
}

}  // namespace lathe
