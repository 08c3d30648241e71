#include "lathe/tokenizer/regex_syntax.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/pattern_cursor.h"

namespace lathe {
namespace {

using Kind = RegexNode::Kind;
using unicode::RangeSet;

constexpr int kMaxDepth = 32;
constexpr int32_t kMaxCount = 1000;

RegexNode set_node(RangeSet set) {
  RegexNode node;
  node.kind = Kind::kSet;
  set.normalise();
  node.set = std::move(set);
  return node;
}

bool is_letter(char32_t c) {
  return c < 0x80 && is_ascii_letter(static_cast<char>(c));
}

// Simple case folding of ASCII letters, with the two characters beyond ASCII that fold to one.
void add_folded(RangeSet& set, char32_t c) {
  set.add(c, c + 1);
  if (!is_letter(c)) return;
  set.add(c ^ 0x20, (c ^ 0x20) + 1);
  if ((c | 0x20) == 's') set.add(0x17F, 0x180);
  if ((c | 0x20) == 'k') set.add(0x212A, 0x212B);
}

// Bodies of look-ahead: alternatives of fixed sequences.
bool is_fixed_sequence(const RegexNode& node, bool alternatives_allowed) {
  switch (node.kind) {
    case Kind::kEmpty:
    case Kind::kLiteral:
    case Kind::kSet:
    case Kind::kLineStart:
    case Kind::kLineEnd:
      return true;
    case Kind::kConcat:
      return std::all_of(
          node.children.begin(), node.children.end(), [](const RegexNode& n) { return is_fixed_sequence(n, false); });
    case Kind::kAlternate:
      return alternatives_allowed && std::all_of(node.children.begin(), node.children.end(), [](const RegexNode& n) {
               return is_fixed_sequence(n, false);
             });
    default:
      return false;
  }
}

class Parser : private PatternCursor {
 public:
  explicit Parser(std::string_view pattern) : PatternCursor(pattern) {}

  Result<RegexNode> parse() {
    LATHE_TRY(RegexNode node, parse_alternatives(0));
    if (position_ < pattern_.size()) return fail("unmatched )");
    return node;
  }

 private:
  Error fail(std::string_view what, Errc code = Errc::kInvalidData) const { return fail_at(position_, what, code); }

  static Error fail_at(size_t position, std::string_view what, Errc code = Errc::kInvalidData) {
    return Error{code, str("byte ", position, ": ", what)};
  }

  Result<RegexNode> parse_alternatives(int depth) {
    if (depth > kMaxDepth) return fail(str("groups nested deeper than ", kMaxDepth), Errc::kUnsupported);
    RegexNode out;
    out.kind = Kind::kAlternate;
    do {
      LATHE_TRY(RegexNode sequence, parse_sequence(depth));
      out.children.push_back(std::move(sequence));
    } while (accept("|"));
    if (out.children.size() == 1) return std::move(out.children[0]);
    return out;
  }

  Result<RegexNode> parse_sequence(int depth) {
    RegexNode out;
    out.kind = Kind::kConcat;
    while (!at_end() && peek() != '|' && peek() != ')') {
      const size_t atom_at = position_;
      LATHE_TRY(RegexNode atom, parse_atom(depth));
      LATHE_TRY(RegexNode item, parse_repetition(std::move(atom), atom_at));
      out.children.push_back(std::move(item));
    }
    if (out.children.empty()) return RegexNode{};
    if (out.children.size() == 1) return std::move(out.children[0]);
    return out;
  }

  Result<RegexNode> parse_atom(int depth) {
    const char c = peek();
    if (c == '(') return parse_group(depth);
    if (c == '[') {
      LATHE_TRY(RangeSet set, parse_class(depth));
      return set_node(std::move(set));
    }
    if (c == '\\') return parse_escape_atom();
    if (c == '*' || c == '+' || c == '?' || c == '{') return fail(str("nothing to repeat before ", c));
    RegexNode node;
    if (c == '^' || c == '$') {
      ++position_;
      node.kind = c == '^' ? Kind::kLineStart : Kind::kLineEnd;
      return node;
    }
    if (c == '.') {
      ++position_;
      RangeSet newline;
      newline.add('\n', '\n' + 1);
      return set_node(newline.inverted());
    }
    return literal_node(decode_utf8(pattern_, position_));
  }

  RegexNode literal_node(char32_t c) const {
    RegexNode node;
    if (ignore_case_ && is_letter(c)) {
      RangeSet set;
      add_folded(set, c);
      return set_node(std::move(set));
    }
    node.kind = Kind::kLiteral;
    node.literal = c;
    return node;
  }

  Result<RegexNode> parse_group(int depth) {
    const size_t start = position_;
    const bool outer_case = ignore_case_;
    bool look_ahead = false, negative = false;
    ++position_;
    if (accept("?")) {
      if (accept("i:")) {
        ignore_case_ = true;
      } else if (accept("=") || looking_at("!")) {
        look_ahead = true;
        negative = accept("!");
      } else if (!accept(":")) {
        return fail_at(
            start, str("group ", quoted(pattern_.substr(start, 4)), " is not supported"), Errc::kUnsupported);
      }
    }
    LATHE_TRY(RegexNode body, parse_alternatives(depth + 1));
    if (!accept(")")) return fail_at(start, "group is not closed");
    ignore_case_ = outer_case;
    if (!look_ahead) return body;
    if (!is_fixed_sequence(body, true)) {
      return fail_at(start, "look-ahead other than of fixed sequences is not supported", Errc::kUnsupported);
    }
    RegexNode node;
    node.kind = Kind::kLookAhead;
    node.negative = negative;
    node.children.push_back(std::move(body));
    return node;
  }

  Result<int32_t> parse_count() {
    const size_t start = position_;
    const std::optional<int32_t> value = accept_number(kMaxCount);
    if (!value) return fail_at(start, "expected a repetition count; write \\{ for a brace");
    if (*value > kMaxCount) return fail_at(start, str("repetition above ", kMaxCount, " is not supported"));
    return *value;
  }

  // The repetition after an atom, when there is one.
  Result<RegexNode> parse_repetition(RegexNode atom, size_t atom_at) {
    RegexNode node;
    node.kind = Kind::kRepeat;
    const bool braces = peek() == '{';
    if (accept("?")) {
      node.max = 1;
    } else if (accept("+")) {
      node.min = 1;
    } else if (accept("{")) {
      LATHE_TRY(node.min, parse_count());
      node.max = node.min;
      if (accept(",")) {
        node.max = RegexNode::kUnlimited;
        if (peek() != '}') {
          LATHE_TRY(node.max, parse_count());
          if (node.max < node.min) return fail("repetition with the larger count first");
        }
      }
      if (!accept("}")) return fail("repetition is not closed");
    } else if (!accept("*")) {
      return atom;
    }
    if (braces && (peek() == '?' || peek() == '+')) {
      return fail(str("{..}", peek(), " is not supported"), Errc::kUnsupported);
    }
    if (accept("?")) {
      node.mode = RegexNode::Mode::kLazy;
    } else if (accept("+")) {
      node.mode = RegexNode::Mode::kPossessive;
    }
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') return fail("nested repetition");
    if (atom.nullable()) return fail_at(atom_at, "repetition of something that can be empty", Errc::kUnsupported);
    if (node.mode == RegexNode::Mode::kPossessive && atom.kind != Kind::kSet && atom.kind != Kind::kLiteral) {
      return fail_at(atom_at, "possessive repetition of a group is not supported", Errc::kUnsupported);
    }
    node.children.push_back(std::move(atom));
    return node;
  }

  Result<RegexNode> parse_escape_atom() {
    RangeSet set;
    char32_t single = 0;
    LATHE_TRY(const bool is_single, parse_escape(set, single));
    if (is_single) return literal_node(single);
    return set_node(std::move(set));
  }

  // At a backslash: true with one code point in `single`, or false with a set added to `set`.
  Result<bool> parse_escape(RangeSet& set, char32_t& single) {
    const size_t start = position_;
    ++position_;
    if (at_end()) return fail_at(start, "pattern ends in a backslash");
    const char c = pattern_[position_];
    if (static_cast<unsigned char>(c) < 0x80) ++position_;
    switch (c) {
      case 'n':
        single = '\n';
        return true;
      case 'r':
        single = '\r';
        return true;
      case 't':
        single = '\t';
        return true;
      case 'f':
        single = '\f';
        return true;
      case 's':
      case 'S':
        set.add(c == 's' ? unicode::white_space() : unicode::white_space().inverted());
        return false;
      case 'd':
      case 'D':
        return add_property("Nd", c == 'D', start, set);
      case 'p':
      case 'P':
        return parse_property(c == 'P', start, set);
      case 'x':
      case 'u':
        return parse_hex(c, start, single);
      default:
        break;
    }
    if (static_cast<unsigned char>(c) >= 0x80 || is_ascii_alnum(c)) {
      return fail_at(start, str("escape ", quoted(pattern_.substr(start, 2)), " is not supported"), Errc::kUnsupported);
    }
    single = static_cast<char32_t>(c);
    return true;
  }

  static Result<bool> add_property(std::string_view name, bool inverted, size_t start, RangeSet& set) {
    RangeSet found;
    if (!unicode::property(name, found)) {
      return fail_at(start, str("property ", quoted(name), " is not supported"), Errc::kUnsupported);
    }
    found.normalise();
    set.add(inverted ? found.inverted() : found);
    return false;
  }

  Result<bool> parse_property(bool inverted, size_t start, RangeSet& set) {
    if (!accept("{")) return fail_at(start, "expected {name} after \\p");
    const size_t close = pattern_.find('}', position_);
    if (close == std::string_view::npos) return fail_at(start, "\\p{ is not closed");
    std::string_view name = pattern_.substr(position_, close - position_);
    position_ = close + 1;
    if (name.starts_with('^')) {
      inverted = !inverted;
      name.remove_prefix(1);
    }
    return add_property(name, inverted, start, set);
  }

  // \xHH, \x{H..} or \uHHHH.
  Result<bool> parse_hex(char kind, size_t start, char32_t& single) {
    const bool braces = kind == 'x' && accept("{");
    const size_t wanted = braces ? 6 : kind == 'x' ? 2 : 4;
    size_t digits = 0;
    single = 0;
    for (; digits < wanted; ++digits, ++position_) {
      const int digit = hex_digit_value(peek());
      if (digit < 0) break;
      single = single * 16 + static_cast<char32_t>(digit);
    }
    const bool complete = braces ? digits > 0 && accept("}") : digits == wanted;
    // Bytes from 80 on mean raw bytes to Oniguruma, not code points.
    const bool raw_byte = kind == 'x' && !braces && single >= 0x80;
    if (!complete || raw_byte || single > 0x10FFFF || (single >= 0xD800 && single < 0xE000)) {
      return fail_at(start, "not a code point");
    }
    return true;
  }

  Result<RangeSet> parse_class(int depth) {
    const size_t start = position_;
    if (depth > kMaxDepth) return fail(str("classes nested deeper than ", kMaxDepth), Errc::kUnsupported);
    ++position_;
    const bool inverted = accept("^");
    if (peek() == ']') return fail("empty class; write \\] for a bracket");
    RangeSet whole, part;  // part: after the last &&
    bool intersecting = false;
    for (;;) {
      if (at_end()) return fail_at(start, "class is not closed");
      const bool done = accept("]");
      if (done || accept("&&")) {
        if (part.ranges().empty()) return fail("empty side of &&");
        part.normalise();
        whole = intersecting ? whole.intersected(part) : part;
        part = RangeSet();
        intersecting = true;
        if (done) break;
        continue;
      }
      LATHE_TRY(parse_class_item(depth, part));
    }
    return inverted ? whole.inverted() : whole;
  }

  Status parse_class_item(int depth, RangeSet& set) {
    const size_t start = position_;
    if (looking_at("[:")) return fail("POSIX classes are not supported", Errc::kUnsupported);
    if (peek() == '[') {
      LATHE_TRY(const RangeSet inner, parse_class(depth + 1));
      set.add(inner);
      return {};
    }
    char32_t low = 0;
    LATHE_TRY(const bool single, parse_class_character(set, low));
    const bool range = peek() == '-' && pattern_.substr(position_, 2) != "-]";
    if (!range) return single ? add_class_range(low, low, start, set) : Status();
    if (!single || (low == '-' && pattern_[start] == '-' && pattern_[start - 1] != '[')) {
      return fail("ambiguous - in a class; write \\-");
    }
    ++position_;
    char32_t high = 0;
    if (peek() == '[') return fail("ambiguous - in a class; write \\-");
    LATHE_TRY(const bool single_high, parse_class_character(set, high));
    if (!single_high) return fail_at(start, "ambiguous - in a class; write \\-");
    if (high < low) return fail_at(start, "range with its end before its beginning");
    return add_class_range(low, high, start, set);
  }

  Result<bool> parse_class_character(RangeSet& set, char32_t& single) {
    if (at_end()) return fail("class is not closed");
    if (peek() == '\\') return parse_escape(set, single);
    single = decode_utf8(pattern_, position_);
    return true;
  }

  Status add_class_range(char32_t low, char32_t high, size_t start, RangeSet& set) const {
    if (!ignore_case_) {
      set.add(low, high + 1);
      return {};
    }
    if (high >= 0x80) {
      return fail_at(start, "case-insensitive class beyond ASCII is not supported", Errc::kUnsupported);
    }
    for (char32_t c = low; c <= high; ++c) add_folded(set, c);
    return {};
  }

  bool ignore_case_ = false;
};

}  // namespace

bool RegexNode::nullable() const {
  const auto is_nullable = [](const RegexNode& node) { return node.nullable(); };
  switch (kind) {
    case Kind::kLiteral:
    case Kind::kSet:
      return false;
    case Kind::kConcat:
      return std::all_of(children.begin(), children.end(), is_nullable);
    case Kind::kAlternate:
      return std::any_of(children.begin(), children.end(), is_nullable);
    case Kind::kRepeat:
      return min == 0 || children[0].nullable();
    default:
      return true;
  }
}

Result<RegexNode> parse_regex(std::string_view pattern) {
  return Parser(pattern).parse();
}

}  // namespace lathe
