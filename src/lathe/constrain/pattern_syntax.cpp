#include "lathe/constrain/pattern_syntax.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/pattern_cursor.h"

namespace lathe {
namespace {

using Kind = PatternNode::Kind;
using unicode::RangeSet;

constexpr int kMaxDepth = 32;
constexpr int32_t kMaxCount = 1000;

RangeSet inverted(RangeSet set) {
  set.normalise();
  return set.inverted();
}

// \d, \w or \s: what every dialect takes, or (wide) what some dialect may take.
RangeSet make_shorthand(char kind, bool wide) {
  RangeSet set;
  if (kind == 'd') {
    if (wide) unicode::property("Nd", set);
    set.add('0', '9' + 1);
  } else if (kind == 'w') {
    if (wide) {
      for (const char* name : {"L", "M", "N", "Pc", "Cn", "Co", "Cf"}) {
        RangeSet part;
        if (unicode::property(name, part)) set.add(part);
      }
    }
    set.add('0', '9' + 1);
    set.add('A', 'Z' + 1);
    set.add('a', 'z' + 1);
    set.add('_', '_' + 1);
  } else if (wide) {
    set.add(unicode::white_space());
    set.add(0x1C, 0x20);
    set.add(0x180E, 0x180F);
    set.add(0xFEFF, 0xFF00);
  } else {
    set.add('\t', '\r' + 1);
    set.add(' ', ' ' + 1);
    set.add(0xA0, 0xA1);
    set.add(0x2000, 0x200B);
  }
  set.normalise();
  return set;
}

const RangeSet& shorthand(char kind, bool wide) {
  static const std::array<RangeSet, 6> kSets = {make_shorthand('d', false),
                                                make_shorthand('d', true),
                                                make_shorthand('w', false),
                                                make_shorthand('w', true),
                                                make_shorthand('s', false),
                                                make_shorthand('s', true)};
  return kSets[(kind == 'd' ? 0u : kind == 'w' ? 2u : 4u) + (wide ? 1u : 0u)];
}

class Parser : private PatternCursor {
 public:
  explicit Parser(std::string_view pattern) : PatternCursor(pattern) {}

  Result<PatternNode> parse() {
    LATHE_TRY(PatternNode node, parse_choice(0));
    if (position_ < pattern_.size()) return fail(position_, "unmatched )");
    return node;
  }

 private:
  static Error fail(size_t at, std::string_view what) {
    return Error{Errc::kUnsupported, str("byte ", at, ": ", what)};
  }

  static PatternNode set_node(RangeSet set) {
    PatternNode node;
    node.kind = Kind::kSet;
    set.normalise();
    node.set = std::move(set);
    return node;
  }

  Result<PatternNode> parse_choice(int depth) {
    if (depth > kMaxDepth) return fail(position_, str("groups nested deeper than ", kMaxDepth));
    PatternNode out;
    out.kind = Kind::kChoice;
    do {
      LATHE_TRY(PatternNode sequence, parse_sequence(depth));
      out.children.push_back(std::move(sequence));
    } while (accept("|"));
    if (out.children.size() == 1) return std::move(out.children[0]);
    return out;
  }

  Result<PatternNode> parse_sequence(int depth) {
    PatternNode out;
    out.kind = Kind::kSequence;
    while (!at_end() && peek() != '|' && peek() != ')') {
      LATHE_TRY(PatternNode atom, parse_atom(depth));
      LATHE_TRY(PatternNode item, parse_repeat(std::move(atom)));
      out.children.push_back(std::move(item));
    }
    return out;
  }

  Result<PatternNode> parse_atom(int depth) {
    const size_t start = position_;
    const char c = peek();
    PatternNode node;
    if (c == '^' || c == '$') {
      ++position_;
      node.kind = c == '^' ? Kind::kBegin : Kind::kEnd;
      return node;
    }
    if (c == '(') return parse_group(depth);
    if (c == '[') return parse_class();
    if (c == '*' || c == '+' || c == '?' || c == '{') return fail(start, str("nothing to repeat before ", c));
    RangeSet set;
    if (c == '.') {
      ++position_;
      set.add('\n', '\n' + 1);
      set.add('\r', '\r' + 1);
      set.add(0x2028, 0x202A);
      return set_node(inverted(std::move(set)));
    }
    if (c == '\\') {
      char32_t single = 0;
      LATHE_TRY(const bool is_single, parse_escape(false, set, single));
      if (is_single) set.add(single, single + 1);
      return set_node(std::move(set));
    }
    const char32_t literal = decode_utf8(pattern_, position_);
    set.add(literal, literal + 1);
    return set_node(std::move(set));
  }

  Result<PatternNode> parse_group(int depth) {
    const size_t start = position_;
    ++position_;
    if (peek() == '?' && !accept("?:")) return fail(start, "look-around, named groups and flags are not supported");
    LATHE_TRY(PatternNode body, parse_choice(depth + 1));
    if (!accept(")")) return fail(start, "group is not closed");
    return body;
  }

  Result<int32_t> parse_count() {
    const size_t start = position_;
    const std::optional<int32_t> value = accept_number(kMaxCount);
    if (!value) return fail(start, "expected a repetition count; write \\{ for a brace");
    if (*value > kMaxCount) return fail(start, str("repetition above ", kMaxCount, " is not supported"));
    return *value;
  }

  Result<PatternNode> parse_repeat(PatternNode atom) {
    const size_t start = position_;
    PatternNode node;
    node.kind = Kind::kRepeat;
    if (accept("?")) {
      node.max = 1;
    } else if (accept("+")) {
      node.min = 1;
    } else if (accept("{")) {
      LATHE_TRY(node.min, parse_count());
      node.max = node.min;
      if (accept(",")) {
        node.max = PatternNode::kUnlimited;
        if (peek() != '}') {
          LATHE_TRY(node.max, parse_count());
        }
      }
      if (!accept("}")) return fail(start, "repetition is not closed");
      if (node.max != PatternNode::kUnlimited && node.max < node.min)
        return fail(start, "the larger count comes first");
    } else if (!accept("*")) {
      return atom;
    }
    if (atom.kind == Kind::kBegin || atom.kind == Kind::kEnd) return fail(start, "repetition of an anchor");
    accept("?");  // lazy: the same texts
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') {
      return fail(position_, "nested and possessive repetition is not supported");
    }
    node.children.push_back(std::move(atom));
    return node;
  }

  // At a backslash: true with one code point in `single`, or false with a set added to `set`.
  Result<bool> parse_escape(bool wide, RangeSet& set, char32_t& single) {
    const size_t start = position_++;
    if (at_end()) return fail(start, "pattern ends in a backslash");
    const char c = pattern_[position_];
    static constexpr std::string_view kNames = "nrtfv";
    static constexpr std::string_view kValues = "\n\r\t\f\v";
    if (const size_t at = kNames.find(c); at != std::string_view::npos) {
      ++position_;
      single = static_cast<char32_t>(kValues[at]);
      return true;
    }
    if (c == 'd' || c == 'w' || c == 's') {
      ++position_;
      set.add(shorthand(c, wide));
      return false;
    }
    if (c == 'D' || c == 'W' || c == 'S') {
      ++position_;
      set.add(shorthand(static_cast<char>(c | 0x20), !wide).inverted());
      return false;
    }
    if (c == 'x' || c == 'u') return parse_hex(start, single);
    const bool punctuation = static_cast<unsigned char>(c) < 0x80 && c > ' ' && c != '_' && !is_ascii_alnum(c);
    if (!punctuation) return fail(start, str("escape ", quoted(pattern_.substr(start, 2)), " is not supported"));
    ++position_;
    single = static_cast<char32_t>(c);
    return true;
  }

  Result<bool> parse_hex(size_t start, char32_t& single) {
    const int wanted = pattern_[position_++] == 'x' ? 2 : 4;
    single = 0;
    for (int i = 0; i < wanted; ++i, ++position_) {
      const int digit = hex_digit_value(peek());
      if (digit < 0) return fail(start, "expected hexadecimal digits");
      single = single * 16 + static_cast<char32_t>(digit);
    }
    if (single >= 0xD800 && single < 0xE000) return fail(start, "surrogates are not supported");
    return true;
  }

  Result<PatternNode> parse_class() {
    const size_t start = position_++;
    const bool negative = accept("^");
    if (peek() == ']') return fail(start, "empty class; write \\] for a bracket");
    RangeSet set;
    while (!accept("]")) {
      if (at_end()) return fail(start, "class is not closed");
      const size_t item = position_;
      char32_t low = 0, high = 0;
      LATHE_TRY(const bool single, parse_member(negative, set, low));
      const bool range = peek() == '-' && position_ + 1 < pattern_.size() && pattern_[position_ + 1] != ']';
      if (!range) {
        if (single) set.add(low, low + 1);
        continue;
      }
      ++position_;
      LATHE_TRY(const bool single_high, parse_member(negative, set, high));
      if (!single || !single_high) return fail(item, "range with a class as its end");
      if (high < low) return fail(item, "range with its end before its beginning");
      set.add(low, high + 1);
    }
    return set_node(negative ? inverted(std::move(set)) : std::move(set));
  }

  Result<bool> parse_member(bool wide, RangeSet& set, char32_t& single) {
    if (at_end()) return fail(position_, "class is not closed");
    if (peek() == '\\') return parse_escape(wide, set, single);
    single = decode_utf8(pattern_, position_);
    return true;
  }
};

}  // namespace

Result<PatternNode> parse_pattern(std::string_view pattern) {
  return Parser(pattern).parse();
}

}  // namespace lathe
