#include "lathe/tokenizer/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/jinja_text.h"

namespace lathe::jinja {
namespace {

using Kind = Token::Kind;

// Longest first where one is a prefix of another.
constexpr std::array<std::string_view, 25> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                         "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                         ">",  "<",  "=",  ".",  ":",  "|",  ","};

bool is_name_start(char c) {
  return is_ascii_letter(c) || c == '_' || static_cast<uint8_t>(c) >= 0x80;
}

bool is_digit_of(int base, char c) {
  const int value = hex_digit_value(c);
  return value >= 0 && value < base;
}

// \r\n and \r become \n, and one line end at the very end goes away.
std::string normalise_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(source) {}

  Result<std::vector<Token>> run() {
    while (at_ < text_.size()) LATHE_TRY(lex_data());
    push(Kind::kEnd, {});
    return std::move(tokens_);
  }

 private:
  bool looking_at(std::string_view what) const { return text_.substr(at_).starts_with(what); }

  Token& push(Kind kind, std::string_view text) {
    tokens_.push_back(Token{.kind = kind, .line = line_, .text = std::string(text)});
    return tokens_.back();
  }

  // Moves to `end`, counting lines.
  void advance_to(size_t end) {
    line_ += static_cast<int>(std::count(
        text_.begin() + static_cast<std::ptrdiff_t>(at_), text_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    at_ = end;
  }

  // After a closing delimiter: white space goes with `-`, one line end goes otherwise where `trim` is on.
  void close(size_t end, char sign, bool trim) {
    if (sign == '-') {
      end = skip_space(text_, end);
    } else if (sign != '+' && trim && end < text_.size() && text_[end] == '\n') {
      ++end;
    }
    advance_to(end);
    line_starting_ = end > 0 && text_[end - 1] == '\n';
  }

  // `data` stands before an opening delimiter with that sign.
  std::string_view strip_data(std::string_view data, char sign, bool is_output) const {
    if (sign == '-') return data.substr(0, trimmed_end(data));
    if (sign == '+' || is_output) return data;
    const size_t newline = data.rfind('\n');
    const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
    if (line_begin == 0 && !line_starting_) return data;
    return skip_space(data, line_begin) == data.size() ? data.substr(0, line_begin) : data;
  }

  char take_sign(size_t& at) const {
    if (at < text_.size() && (text_[at] == '-' || text_[at] == '+')) return text_[at++];
    return ' ';
  }

  Status lex_data() {
    size_t open = at_;
    while (true) {
      open = text_.find('{', open);
      if (open == std::string_view::npos || open + 1 >= text_.size()) {
        push(Kind::kData, text_.substr(at_));
        advance_to(text_.size());
        return {};
      }
      const char next = text_[open + 1];
      if (next == '{' || next == '%' || next == '#') break;
      ++open;
    }
    const char opener = text_[open + 1];
    size_t inside = open + 2;
    const char sign = take_sign(inside);
    const std::string_view data = strip_data(text_.substr(at_, open - at_), sign, opener == '{');
    if (!data.empty()) push(Kind::kData, data);
    advance_to(inside);
    if (opener == '#') return lex_comment();
    if (opener == '%') {
      const size_t raw_end = raw_tag_end();
      if (raw_end != std::string_view::npos) return lex_raw(raw_end);
    }
    push(opener == '{' ? Kind::kOutputBegin : Kind::kTagBegin, {});
    return lex_inside(opener == '{');
  }

  Status lex_comment() {
    const size_t end = text_.find("#}", at_);
    if (end == std::string_view::npos) return error_at(line_, "missing end of comment tag");
    const char before = end > at_ ? text_[end - 1] : ' ';
    close(end + 2, before == '-' || before == '+' ? before : ' ', true);
    return {};
  }

  // Where the content begins when the tag at the current position is `raw`.
  size_t raw_tag_end() const {
    size_t at = skip_space(text_, at_);
    if (!text_.substr(at).starts_with("raw")) return std::string_view::npos;
    at = skip_space(text_, at + 3);
    if (text_.substr(at).starts_with("-%}")) return skip_space(text_, at + 3);
    return text_.substr(at).starts_with("%}") ? at + 2 : std::string_view::npos;
  }

  Status lex_raw(size_t begin) {
    const int first_line = line_;
    advance_to(begin);
    for (size_t open = text_.find("{%", at_); open != std::string_view::npos; open = text_.find("{%", open + 1)) {
      size_t at = open + 2;
      const char sign = take_sign(at);
      at = skip_space(text_, at);
      if (!text_.substr(at).starts_with("endraw")) continue;
      at = skip_space(text_, at + 6);
      const char close_sign = take_sign(at);
      if (!text_.substr(at).starts_with("%}")) continue;
      line_starting_ = text_[begin - 1] == '\n';
      const std::string_view data = strip_data(text_.substr(begin, open - begin), sign, false);
      if (!data.empty()) push(Kind::kData, data);
      close(at + 2, close_sign, true);
      return {};
    }
    return error_at(first_line, "missing end of raw directive");
  }

  // Tokens up to the closing delimiter, which only counts where brackets are balanced.
  Status lex_inside(bool is_output) {
    const int first_line = line_;
    const std::string_view closer = is_output ? "}}" : "%}";
    std::string expected;
    while (true) {
      advance_to(skip_space(text_, at_));
      if (at_ >= text_.size()) {
        return error_at(first_line, str("missing ", is_output ? "'}}'" : "'%}'", " at the end of the template"));
      }
      if (expected.empty()) {
        size_t end = at_;
        const char sign = take_sign(end);
        if (text_.substr(end).starts_with(closer) && !(sign == '+' && is_output)) {
          push(is_output ? Kind::kOutputEnd : Kind::kTagEnd, {});
          close(end + 2, sign, !is_output);
          return {};
        }
      }
      LATHE_TRY(lex_token(expected));
    }
  }

  Status lex_token(std::string& expected) {
    const char c = text_[at_];
    if (is_name_start(c)) {
      size_t end = at_;
      while (end < text_.size() && (is_name_start(text_[end]) || is_ascii_digit(text_[end]))) ++end;
      push(Kind::kName, text_.substr(at_, end - at_));
      at_ = end;
      return {};
    }
    if (is_ascii_digit(c)) return lex_number();
    if (c == '\'' || c == '"') return lex_string();
    for (std::string_view op : kOperators) {
      if (!looking_at(op)) continue;
      LATHE_TRY(balance(op, expected));
      push(Kind::kOperator, op);
      at_ += op.size();
      return {};
    }
    size_t size = 1;
    character_at(text_, at_, size);
    return error_at(line_, str("unexpected character ", quoted(text_.substr(at_, size))));
  }

  Status balance(std::string_view op, std::string& expected) const {
    if (op == "(") expected += ')';
    if (op == "[") expected += ']';
    if (op == "{") expected += '}';
    if (op != ")" && op != "]" && op != "}") return {};
    if (expected.empty()) return error_at(line_, str("unexpected '", op, "'"));
    const char want = expected.back();
    expected.pop_back();
    if (op[0] != want) return error_at(line_, str("unexpected '", op, "', expected '", want, "'"));
    return {};
  }

  // Digits of that base with single underscores between them.
  size_t digits_end(size_t at, int base) const {
    size_t end = at;
    while (at < text_.size()) {
      if (is_digit_of(base, text_[at])) {
        end = ++at;
      } else if (text_[at] == '_' && at == end && at + 1 < text_.size() && is_digit_of(base, text_[at + 1])) {
        ++at;
      } else {
        break;
      }
    }
    return end;
  }

  Status lex_number() {
    const auto without_underscores = [&](size_t begin, size_t end) {
      std::string out(text_.substr(begin, end - begin));
      std::erase(out, '_');
      return out;
    };
    size_t end = digits_end(at_, 10);
    bool is_real = false;
    if (end + 1 < text_.size() && text_[end] == '.' && is_ascii_digit(text_[end + 1])) {
      end = digits_end(end + 1, 10);
      is_real = true;
    }
    if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-')) ++exponent;
      if (exponent < text_.size() && is_ascii_digit(text_[exponent])) {
        end = digits_end(exponent, 10);
        is_real = true;
      }
    }
    if (is_real) {
      const std::string digits = without_underscores(at_, end);
      double value = 0.0;
      const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (result.ec != std::errc() || result.ptr != digits.data() + digits.size()) {
        return error_at(line_, str("number ", digits, " is out of range"));
      }
      push(Kind::kFloat, digits).real = value;
      at_ = end;
      return {};
    }
    int base = 10;
    size_t begin = at_;
    if (text_[at_] == '0' && at_ + 2 < text_.size()) {
      const char letter = text_[at_ + 1];
      const int prefix_base = letter == 'x' || letter == 'X'   ? 16
                              : letter == 'o' || letter == 'O' ? 8
                              : letter == 'b' || letter == 'B' ? 2
                                                               : 10;
      if (prefix_base != 10 && is_digit_of(prefix_base, text_[at_ + 2])) {
        base = prefix_base;
        begin = at_ + 2;
        end = digits_end(begin, base);
      }
    }
    const std::string digits = without_underscores(begin, end);
    if (base == 10 && digits.size() > 1 && digits[0] == '0' && digits.find_first_not_of('0') != std::string::npos) {
      return error_at(line_, str("number ", digits, " has a leading zero"));
    }
    int64_t value = 0;
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (result.ec != std::errc()) return error_at(line_, str("number ", digits, " is out of range"));
    push(Kind::kInt, digits).integer = value;
    at_ = end;
    return {};
  }

  Status lex_string() {
    const char quote = text_[at_];
    const int first_line = line_;
    std::string value;
    size_t at = at_ + 1;
    while (true) {
      if (at >= text_.size()) return error_at(first_line, "string without its closing quote");
      if (text_[at] == quote) break;
      if (text_[at] != '\\') {
        value += text_[at++];
        continue;
      }
      ++at;
      if (at >= text_.size()) return error_at(first_line, "string without its closing quote");
      LATHE_TRY(unescape(at, value));
    }
    push(Kind::kString, {}).text = std::move(value);
    advance_to(at + 1);
    return {};
  }

  // `at` is behind the backslash.
  Status unescape(size_t& at, std::string& value) const {
    constexpr std::string_view kLetters = "\\'\"abfnrtv";
    constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
    const char c = text_[at];
    if (const size_t letter = kLetters.find(c); letter != std::string_view::npos) {
      value += kMeanings[letter];
      ++at;
      return {};
    }
    if (c == '\n') {
      ++at;
      return {};
    }
    if (c >= '0' && c <= '7') {
      uint32_t code = 0;
      for (int i = 0; i < 3 && at < text_.size() && text_[at] >= '0' && text_[at] <= '7'; ++i, ++at) {
        code = code * 8 + static_cast<uint32_t>(text_[at] - '0');
      }
      append_utf8(value, code);
      return {};
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits > 0) {
      uint32_t code = 0;
      for (size_t i = 1; i <= digits; ++i) {
        if (at + i >= text_.size() || hex_digit_value(text_[at + i]) < 0) {
          return error_at(line_, str("escape \\", c, " needs ", digits, " hexadecimal digits"));
        }
        code = code * 16 + static_cast<uint32_t>(hex_digit_value(text_[at + i]));
      }
      if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
        return error_at(line_, str("escape \\", c, " does not name a character"));
      }
      append_utf8(value, code);
      at += digits + 1;
      return {};
    }
    if (c == 'N') return error_at(line_, "escape \\N is not supported");
    value += '\\';  // as in Python, an unknown escape stays as it is
    return {};
  }

  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::string describe(const Token& token) {
  switch (token.kind) {
    case Kind::kData:
      return "text";
    case Kind::kOutputBegin:
      return "'{{'";
    case Kind::kOutputEnd:
      return "'}}'";
    case Kind::kTagBegin:
      return "'{%'";
    case Kind::kTagEnd:
      return "'%}'";
    case Kind::kString:
      return str("string ", quoted(token.text, 40));
    case Kind::kEnd:
      return "the end of the template";
    default:
      return str("", quoted(token.text, 40));
  }
}

Error error_at(int line, std::string_view message) {
  return Error{Errc::kInvalidData, str("line ", line, ": ", message)};
}

Result<std::vector<Token>> tokenize(std::string_view source) {
  size_t at = 0;
  int line = 1;
  while (at < source.size()) {
    bool valid = true;
    if (source[at] == '\n') ++line;
    decode_utf8(source, at, &valid);
    if (!valid) return error_at(line, "the template is not valid UTF-8");
  }
  const std::string normalised = normalise_lines(source);
  return Lexer(normalised).run();
}

}  // namespace lathe::jinja
