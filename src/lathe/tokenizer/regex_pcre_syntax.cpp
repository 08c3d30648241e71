#include "lathe/tokenizer/regex_pcre_syntax.h"

#include <algorithm>
#include <array>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/pattern_cursor.h"

namespace lathe {
namespace {

constexpr size_t kNone = std::string_view::npos;
constexpr int kMaxDepth = 64;
constexpr size_t kMaxTranslatedBytes = size_t{1} << 20;

// Contents of classes. White_Space as in regex_unicode.h; word characters are the alphabetic ones (the ranges at the
// end are symbols that are), marks, decimal digits, connectors and, in Oniguruma, the raised digits and fractions of
// Latin-1.
constexpr std::string_view kSpaceItems =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kDigitItems = R"(\p{Nd})";
constexpr std::string_view kWordItems =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149})"
    R"(\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
constexpr std::string_view kHexItems = "0-9A-Fa-f";

// POSIX classes, which are also names of properties.
constexpr std::array<std::pair<std::string_view, std::string_view>, 14> kPosixClasses{{
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"alpha", R"(\p{Alphabetic})"},
    {"ascii", R"(\x{0}-\x{7f})"},
    {"blank", R"(\p{Zs}\x{9})"},
    {"cntrl", R"(\p{Cc})"},
    {"digit", kDigitItems},
    {"graph", R"(\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Co})"},
    {"lower", R"(\p{Lowercase})"},
    {"print", R"(\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Co}\p{Zs})"},
    {"punct", R"(\p{P})"},
    {"space", kSpaceItems},
    {"upper", R"(\p{Uppercase})"},
    {"word", kWordItems},
    {"xdigit", kHexItems},
}};

// Long names of general categories, without separators and in lower case; PCRE2 has the short ones only.
constexpr std::array<std::pair<std::string_view, std::string_view>, 37> kCategoryNames{{
    {"letter", "L"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"surrogate", "Cs"},
    {"privateuse", "Co"},
    {"unassigned", "Cn"},
}};

// The value of `name`; empty when it is not in the table.
template <size_t kSize>
std::string_view lookup(const std::array<std::pair<std::string_view, std::string_view>, kSize>& table,
                        std::string_view name) {
  const auto* at = std::find_if(table.begin(), table.end(), [&](const auto& entry) { return entry.first == name; });
  return at == table.end() ? std::string_view() : at->second;
}

// A code point for which PCRE2 has no other meaning, inside and outside of classes.
std::string plain(char32_t c) {
  if (c < 0x80 && is_ascii_alnum(static_cast<char>(c))) {
    return std::string(1, static_cast<char>(c));
  }
  std::string digits;
  do {
    digits.insert(digits.begin(), "0123456789abcdef"[c & 15]);
    c >>= 4;
  } while (c != 0);
  return str("\\x{", digits, "}");
}

// What an escape means: a code point, a set, or something that is no character (copied as it is).
struct Escape {
  enum class Kind { kSingle, kSet, kOther };
  Kind kind = Kind::kSingle;
  char32_t single = 0;
  std::string items;  // kSet: the contents of a class; kOther: PCRE2's text
  bool negative = false;

  std::string set() const { return str(negative ? "[^" : "[", items, "]"); }
};

Escape set_escape(std::string_view items, bool negative) {
  return {.kind = Escape::Kind::kSet, .single = 0, .items = std::string(items), .negative = negative};
}

Escape single_escape(char32_t c) {
  Escape out;
  out.single = c;
  return out;
}

Escape other_escape(std::string text) {
  return {.kind = Escape::Kind::kOther, .single = 0, .items = std::move(text)};
}

class Translator : private PatternCursor {
 public:
  Translator(std::string_view pattern, bool (*compiles)(const std::string&))
      : PatternCursor(pattern), compiles_(compiles) {}

  Result<PcrePattern> translate() {
    groups_.push_back({});
    while (!at_end()) {
      out_.origins.emplace_back(out_.text.size(), position_);
      LATHE_TRY(item());
      if (out_.text.size() > kMaxTranslatedBytes) return fail_at(0, "pattern is too large");
    }
    if (groups_.size() == 1) close_options();
    return std::move(out_);
  }

 private:
  struct Group {
    size_t begin = 0;  // in out_.text
    int options = 0;   // groups that stand for isolated options and end with this one
  };

  static Error fail_at(size_t position, std::string_view what) {
    return Error{Errc::kUnsupported, str("byte ", position, ": ", what)};
  }

  // Something that a repetition may follow.
  void atom(std::string_view text) {
    atom_ = out_.text.size();
    repeated_ = false;
    out_.text += text;
  }

  // Something that it may not follow.
  void no_atom(std::string_view text) {
    atom_ = kNone;
    repeated_ = false;
    out_.text += text;
  }

  Status item() {
    const char c = peek();
    switch (c) {
      case '(':
        return group();
      case ')':
        close_group();
        return {};
      case '|':
        ++position_;
        no_atom("|");
        return {};
      case '[': {
        LATHE_TRY(const std::string set, character_class(0));
        atom(set);
        return {};
      }
      case '\\': {
        LATHE_TRY(const Escape escape, parse_escape(false));
        if (escape.kind == Escape::Kind::kSingle) {
          atom(plain(escape.single));
        } else {
          atom(escape.kind == Escape::Kind::kSet ? escape.set() : escape.items);
        }
        return {};
      }
      case '*':
      case '+':
      case '?':
        ++position_;
        repetition(std::string(1, c), true);
        return {};
      case '{':
        interval();
        return {};
      case '.':
      case '^':
      case '$':
        ++position_;
        atom(std::string_view(&c, 1));
        return {};
      default:
        atom(plain(decode_utf8(pattern_, position_)));
        return {};
    }
  }

  // Two repetitions in a row repeat the repetition, which PCRE2 must be told with a group.
  void repetition(std::string text, bool may_be_possessive) {
    if (repeated_ && atom_ != kNone) {
      out_.text.insert(atom_, "(?:");
      for (auto& [offset, origin] : out_.origins) {
        if (offset > atom_) offset += 3;
      }
      out_.text += ')';
    }
    if (accept("?")) {
      text += '?';
    } else if (may_be_possessive && accept("+")) {
      text += '+';
    }
    out_.text += text;
    repeated_ = true;
  }

  // {n}, {n,}, {n,m} or {,m}; any other brace stands for itself. The + after one is a repetition of its own, and so is
  // the ? after {n}.
  void interval() {
    size_t end = position_ + 1;
    const auto digits = [&] {
      const size_t begin = end;
      while (end < pattern_.size() && is_ascii_digit(pattern_[end])) ++end;
      return std::string(pattern_.substr(begin, end - begin));
    };
    std::string low = digits(), high;
    const bool comma = end < pattern_.size() && pattern_[end] == ',';
    if (comma) {
      ++end;
      high = digits();
    }
    if (end >= pattern_.size() || pattern_[end] != '}' || (low.empty() && high.empty())) {
      ++position_;
      return atom("\\{");
    }
    position_ = end + 1;
    if (low.empty()) low = "0";
    if (comma) return repetition(str("{", low, ",", high, "}"), false);
    const bool optional = accept("?");
    repetition(str("{", low, "}"), false);
    if (optional) repetition("?", false);
  }

  void close_options() {
    for (; groups_.back().options > 0; --groups_.back().options) out_.text += ')';
  }

  void close_group() {
    ++position_;
    close_options();
    no_atom(")");
    if (groups_.size() == 1) return;  // PCRE2 tells
    atom_ = groups_.back().begin;
    groups_.pop_back();
  }

  void open_group(std::string_view text) {
    groups_.push_back({.begin = out_.text.size()});
    no_atom(text);
  }

  Status group() {
    const size_t start = position_++;
    if (groups_.size() > kMaxDepth) return fail_at(start, str("groups nested deeper than ", kMaxDepth));
    if (peek() == '*') return fail_at(start, "group \"(*\" is not supported");
    if (!accept("?")) {
      open_group("(");
      return {};
    }
    if (accept("#")) {
      const size_t end = pattern_.find(')', position_);
      if (end == kNone) return fail_at(start, "comment is not closed");
      position_ = end + 1;
      return {};
    }
    for (const std::string_view text : {":", "=", "!", ">", "<=", "<!"}) {
      if (!accept(text)) continue;
      open_group(str("(?", text));
      return {};
    }
    if (peek() == '<' || peek() == '\'') {
      const size_t end = pattern_.find(peek() == '<' ? '>' : '\'', position_ + 1);
      if (end == kNone) return fail_at(start, "group name is not closed");
      open_group(str("(?", pattern_.substr(position_, end + 1 - position_)));
      position_ = end + 1;
      return {};
    }
    return options(start);
  }

  // (?i-m:...) or (?i-m), which reaches to the end of the group around it, alternatives included. m is PCRE2's s.
  Status options(size_t start) {
    std::string flags;
    while (!at_end() && peek() != ':' && peek() != ')') {
      const char c = pattern_[position_++];
      if (c != 'i' && c != 'm' && c != 's' && c != '-') {
        return fail_at(start, str("group ", quoted(pattern_.substr(start, position_ - start)), " is not supported"));
      }
      flags += c == 'm' ? 's' : c;
    }
    if (at_end() || flags.empty()) return fail_at(start, "group is not closed");
    const std::string text = str("(?", flags, ":");
    if (accept(":")) {
      open_group(text);
      return {};
    }
    ++position_;
    if (++groups_.back().options > kMaxDepth) return fail_at(start, str("groups nested deeper than ", kMaxDepth));
    no_atom(text);
    return {};
  }

  Result<Escape> parse_escape(bool in_class) {
    const size_t start = position_++;
    if (at_end()) return fail_at(start, "pattern ends in a backslash");
    if (!is_ascii_alnum(peek())) return single_escape(decode_utf8(pattern_, position_));
    const char c = pattern_[position_++];
    constexpr std::string_view kControls = "nrtfvae", kControlValues = "\n\r\t\f\v\a\x1b";
    if (const size_t at = kControls.find(c); at != kNone) {
      return single_escape(static_cast<unsigned char>(kControlValues[at]));
    }
    switch (c) {
      case 's':
      case 'S':
        return set_escape(kSpaceItems, c == 'S');
      case 'd':
      case 'D':
        return set_escape(kDigitItems, c == 'D');
      case 'w':
      case 'W':
        return set_escape(kWordItems, c == 'W');
      case 'h':
      case 'H':
        return set_escape(kHexItems, c == 'H');
      case 'p':
      case 'P':
        return property(start, c == 'P');
      case 'x':
      case 'u':
        return hexadecimal(c, start);
      case '0':
        return octal();
      default:
        return in_class ? escape_in_class(c, start) : escape_outside_class(c, start);
    }
  }

  Error unsupported_escape(size_t start) const {
    return fail_at(start, str("escape ", quoted(pattern_.substr(start, 2)), " is not supported"));
  }

  Result<Escape> escape_in_class(char c, size_t start) {
    if (c == 'b') return single_escape(0x08);
    if (is_ascii_digit(c) && c < '8') {
      --position_;
      return octal();
    }
    return unsupported_escape(start);
  }

  Result<Escape> escape_outside_class(char c, size_t start) {
    const std::string word = str("[", kWordItems, "]");
    if (c == 'b') return other_escape(str("(?:(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, "))"));
    if (c == 'B') return other_escape(str("(?:(?<=", word, ")(?=", word, ")|(?<!", word, ")(?!", word, "))"));
    if (c == 'O') return other_escape("(?s:.)");
    if (std::string_view("AzZGRXKN").find(c) != kNone) return other_escape(std::string(pattern_.substr(start, 2)));
    if (is_ascii_digit(c)) {
      while (is_ascii_digit(peek())) ++position_;
      return other_escape(str("\\g{", pattern_.substr(start + 1, position_ - start - 1), "}"));
    }
    if ((c == 'k' || c == 'g') && (peek() == '<' || peek() == '\'')) {
      const size_t end = pattern_.find(peek() == '<' ? '>' : '\'', position_ + 1);
      if (end != kNone) {
        position_ = end + 1;
        return other_escape(std::string(pattern_.substr(start, position_ - start)));
      }
    }
    return unsupported_escape(start);
  }

  // \0, \012, in classes \12 as well.
  Escape octal() {
    char32_t value = 0;
    for (int i = 0; i < 3 && peek() >= '0' && peek() <= '7'; ++i) {
      value = value * 8 + static_cast<char32_t>(pattern_[position_++] - '0');
    }
    return single_escape(value);
  }

  // \xHH, \x{H..} or \uHHHH. \x80 and above is a byte, not a character.
  Result<Escape> hexadecimal(char kind, size_t start) {
    const bool braces = kind == 'x' && accept("{");
    const int most = braces ? 8 : kind == 'x' ? 2 : 4;
    char32_t value = 0;
    int digits = 0;
    for (; digits < most && hex_digit_value(peek()) >= 0; ++digits) {
      value = value * 16 + static_cast<char32_t>(hex_digit_value(pattern_[position_++]));
    }
    const bool complete = braces ? digits > 0 && accept("}") : digits == most;
    const bool byte = kind == 'x' && !braces && value >= 0x80;
    if (!complete || byte || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      return fail_at(start, "not a code point");
    }
    return single_escape(value);
  }

  Result<Escape> property(size_t start, bool negative) {
    std::string name;
    if (accept("{")) {
      const size_t close = pattern_.find('}', position_);
      if (close == kNone) return fail_at(start, "\\p{ is not closed");
      for (const char c : pattern_.substr(position_, close - position_)) {
        if (c != ' ' && c != '_' && c != '-') name += ascii_lower(c);
      }
      position_ = close + 1;
    } else if (is_ascii_letter(peek())) {
      name = static_cast<char>(pattern_[position_++] | 0x20);
    } else {
      return fail_at(start, "expected {name} after \\p");
    }
    if (name.starts_with('^')) {
      negative = !negative;
      name.erase(0, 1);
    }
    LATHE_TRY(const std::string items, property_items(name, start));
    return set_escape(items, negative);
  }

  Result<std::string> property_items(const std::string& name, size_t start) {
    if (const std::string_view posix = lookup(kPosixClasses, name); !posix.empty()) return std::string(posix);
    if (const std::string_view category = lookup(kCategoryNames, name); !category.empty()) {
      return str("\\p{", category, "}");
    }
    const bool safe = !name.empty() && std::all_of(name.begin(), name.end(), is_ascii_letter);
    // A bare script name means Script_Extensions to PCRE2.
    for (const char* kind : {"sc:", ""}) {
      std::string items = str("\\p{", kind, name, "}");
      if (safe && compiles_(items)) return items;
    }
    // Older releases of PCRE2 want names as they are written in the standard.
    std::string capital = name;
    if (safe) capital[0] = static_cast<char>(capital[0] & ~0x20);
    std::string items = str("\\p{", capital, "}");
    if (safe && compiles_(items)) return items;
    return fail_at(start, str("unknown property ", quoted(name)));
  }

  // One operand of &&.
  struct Operand {
    std::string items;                // contents of a class
    std::vector<std::string> others;  // expressions for one character each

    bool empty() const { return items.empty() && others.empty(); }

    std::string text() const {
      if (others.empty()) return str("[", items, "]");
      std::string out = "(?:";
      if (!items.empty()) out += str("[", items, "]|");
      for (const std::string& other : others) out += str(&other == others.data() ? "" : "|", other);
      return out + ")";
    }
  };

  // A class, with classes inside it and intersections, as an expression for one character.
  Result<std::string> character_class(int depth) {
    const size_t start = position_++;
    if (depth > kMaxDepth) return fail_at(start, str("classes nested deeper than ", kMaxDepth));
    const bool inverted = accept("^");
    std::vector<Operand> operands(1);
    if (peek() == ']' && pattern_.find(']', position_ + 1) != kNone) {  // stands for itself
      ++position_;
      operands[0].items = plain(']');
    }
    for (;;) {
      if (at_end()) return fail_at(start, "class is not closed");
      const bool done = accept("]");
      if (done || accept("&&")) {
        if (operands.back().empty()) return fail_at(position_, "empty side of &&, or empty class");
        if (done) break;
        operands.emplace_back();
        continue;
      }
      LATHE_TRY(class_item(depth, operands.back()));
    }
    if (operands.size() == 1 && operands[0].others.empty()) return str(inverted ? "[^" : "[", operands[0].items, "]");
    std::string text;
    for (size_t i = 0; i + 1 < operands.size(); ++i) text += str("(?=", operands[i].text(), ")");
    text += operands.back().text();
    return inverted ? str("(?:(?!", text, ")(?s:.))") : str("(?:", text, ")");
  }

  Status class_item(int depth, Operand& operand) {
    const size_t start = position_;
    if (looking_at("[:")) return posix_class(operand);
    if (peek() == '[') {
      LATHE_TRY(std::string inner, character_class(depth + 1));
      operand.others.push_back(std::move(inner));
      return {};
    }
    LATHE_TRY(const Escape low, class_character());
    if (low.kind == Escape::Kind::kSet) {
      if (low.negative) {
        operand.others.push_back(low.set());
      } else {
        operand.items += low.items;
      }
      return {};
    }
    operand.items += plain(low.single);
    const bool range = peek() == '-' && peek(1) != ']' && pattern_.substr(position_ + 1, 2) != "&&";
    if (!range) return {};
    ++position_;
    if (at_end()) return fail_at(start, "class is not closed");
    if (peek() == '[') return fail_at(start, "ambiguous - in a class; write \\-");
    LATHE_TRY(const Escape high, class_character());
    if (high.kind == Escape::Kind::kSet) return fail_at(start, "ambiguous - in a class; write \\-");
    if (high.single < low.single) return fail_at(start, "range with its end before its beginning");
    operand.items += str("-", plain(high.single));
    return {};
  }

  Result<Escape> class_character() {
    if (peek() == '\\') return parse_escape(true);
    return single_escape(decode_utf8(pattern_, position_));
  }

  Status posix_class(Operand& operand) {
    const size_t start = position_;
    position_ += 2;
    const bool negative = accept("^");
    const size_t end = pattern_.find(":]", position_);
    const std::string_view name = pattern_.substr(position_, end == kNone ? 0 : end - position_);
    const std::string_view items = lookup(kPosixClasses, name);
    if (items.empty()) return fail_at(start, "unknown POSIX class");
    position_ = end + 2;
    if (negative) {
      operand.others.push_back(str("[^", items, "]"));
    } else {
      operand.items += items;
    }
    return {};
  }

  bool (*compiles_)(const std::string&);
  PcrePattern out_;
  std::vector<Group> groups_;
  size_t atom_ = kNone;  // where in out_.text the item begins that a repetition would repeat
  bool repeated_ = false;
};

}  // namespace

size_t PcrePattern::origin(size_t offset) const {
  size_t out = 0;
  for (const auto& [at, from] : origins) {
    if (at <= offset) out = from;
  }
  return out;
}

Result<PcrePattern> translate_to_pcre(std::string_view pattern, bool (*compiles)(const std::string&)) {
  return Translator(pattern, compiles).translate();
}

}  // namespace lathe
