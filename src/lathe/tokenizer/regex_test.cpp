#include "lathe/tokenizer/regex.h"

#include <gtest/gtest.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

namespace lathe {
namespace {

using Spans = std::vector<std::pair<size_t, size_t>>;

// What the R1 tokenizer, the storyteller and GPT-2 split with; \s is spelled out for the oracle below.
constexpr const char* kV3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Regex must_compile(std::string_view pattern) {
  Result<Regex> regex = Regex::compile(pattern, RegexEngine::kOwn);
  EXPECT_TRUE(regex) << pattern << ": " << (regex ? "" : regex.error().message);
  if (!regex) regex = Regex::literal("x");
  return *std::move(regex);
}

Spans find_all(const Regex& regex, std::string_view text, uint64_t steps_per_byte = 64) {
  RegexSearch search(regex, steps_per_byte);
  search.reset(text);
  Spans out;
  size_t from = 0, begin = 0, end = 0;
  while (search.next(from, begin, end)) {
    EXPECT_LT(begin, end);
    EXPECT_GE(begin, from);
    out.emplace_back(begin, end);
    from = end;
  }
  return out;
}

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  const Regex regex = must_compile(pattern);
  std::vector<std::string> out;
  const Spans spans = find_all(regex, text);
  EXPECT_EQ(spans, find_all(regex, text, 0)) << pattern;
  for (const auto& [begin, end] : spans) out.emplace_back(text.substr(begin, end - begin));
  return out;
}

using Strings = std::vector<std::string>;

TEST(Regex, Matches) {
  EXPECT_EQ(matches("abc", "xabcabc"), (Strings{"abc", "abc"}));
  EXPECT_EQ(matches("a|ab", "ab"), (Strings{"a"}));  // the first alternative, not the longest
  EXPECT_EQ(matches("ab|a", "ab a"), (Strings{"ab", "a"}));
  EXPECT_EQ(matches("[^a-c]+", "abxéyc"), (Strings{"xéy"}));
  EXPECT_EQ(matches("[a-c&&[^b]]+", "abcca"), (Strings{"a", "cca"}));
  EXPECT_EQ(matches("[\\p{L}&&[^\\p{Han}]]+", "ab中c"), (Strings{"ab", "c"}));
  EXPECT_EQ(matches("[\\s\\S]", "é\n"), (Strings{"é", "\n"}));
  EXPECT_EQ(matches("\\P{L}+", "ab12c"), (Strings{"12"}));
  EXPECT_EQ(matches("\\p{^L}+", "ab12c"), (Strings{"12"}));
  EXPECT_EQ(matches("\\d+", "a12b٣"), (Strings{"12", "٣"}));
  EXPECT_EQ(matches("\\D+", "a12b"), (Strings{"a", "b"}));
  EXPECT_EQ(matches("\\p{N}{1,3}", "1234567"), (Strings{"123", "456", "7"}));
  EXPECT_EQ(matches("(?:ab){2,3}", "ababababab"), (Strings{"ababab", "abab"}));
  EXPECT_EQ(matches("(?:ab){2,}c", "ababab ababc"), (Strings{"ababc"}));
  EXPECT_EQ(matches("(a|b)+c", "abac"), (Strings{"abac"}));
  EXPECT_EQ(matches("a+?b", "aab"), (Strings{"aab"}));
  EXPECT_EQ(matches("<.+?>", "<a><b>\n"), (Strings{"<a>", "<b>"}));
  EXPECT_EQ(matches("a++b|a", "aab aac"), (Strings{"aab", "a", "a"}));
  EXPECT_EQ(matches("a++ab|x", "aaab x"), (Strings{"x"}));
  EXPECT_EQ(matches("a+ab", "aaab"), (Strings{"aaab"}));
  EXPECT_EQ(matches("é+x", "ééx"), (Strings{"ééx"}));
  EXPECT_EQ(matches("[éa]+é", "aéé"), (Strings{"aéé"}));  // gives back a character of two bytes
  EXPECT_EQ(matches(".{2}", "é\n中b"), (Strings{"中b"}));
  EXPECT_EQ(matches("^a", "aa\na"), (Strings{"a", "a"}));
  EXPECT_EQ(matches("\n^", "a\n\n"), (Strings{"\n"}));  // no line begins at the end of the text
  EXPECT_EQ(matches("a$", "aa\nab"), (Strings{"a"}));
  EXPECT_EQ(matches("\\s+$", " x  "), (Strings{"  "}));
  EXPECT_EQ(matches("\\s+(?!\\S)", "   x  "), (Strings{"  ", "  "}));
  EXPECT_EQ(matches("a(?=b|cd)", "abacacd"), (Strings{"a", "a"}));
  EXPECT_EQ(matches("(?i:'s|ka)", "'S'ſKa\u212Aa"), (Strings{"'S", "'ſ", "Ka", "\u212Aa"}));
  EXPECT_EQ(matches("(?i:[a-c]d)D", "BDD"), (Strings{"BDD"}));
  EXPECT_EQ(matches("\\x41\\x{e9}\\u4e2d\\t\\f", "Aé中\t\f"), (Strings{"Aé中\t\f"}));
  EXPECT_EQ(matches("[a\\-z-]+", "b-z-a"), (Strings{"-z-a"}));
  EXPECT_EQ(matches("\U0001F600+", "x\U0001F600\U0001F600"), (Strings{"\U0001F600\U0001F600"}));
}

TEST(Regex, WhiteSpaceIsTheUnicodeProperty) {
  EXPECT_EQ(matches("\\s", "\u0085\u00A0\u1680\u2003\u2028\u202F\u205F\u3000").size(), 8u);
  EXPECT_TRUE(matches("\\s", "\uFEFF\u200B\u180E\u2060\x1C").empty());
}

TEST(Regex, LiteralMeansItself) {
  const Result<Regex> regex = Regex::literal("a.*[(é\\");
  ASSERT_TRUE(regex) << regex.error().message;
  EXPECT_EQ(find_all(*regex, "a.*[(é\\ axx"), (Spans{{0, 8}}));
}

TEST(Regex, RefusesByName) {
  const auto message = [](std::string_view pattern) {
    const Result<Regex> regex = Regex::compile(pattern, RegexEngine::kOwn);
    if (regex) return std::string("accepted");
    const std::string prefix = str("regex ", quoted(pattern), ": ");
    EXPECT_TRUE(regex.error().message.starts_with(prefix)) << regex.error().message;
    return regex.error().message.substr(std::min(prefix.size(), regex.error().message.size()));
  };
  EXPECT_EQ(message("a**"), "byte 2: nested repetition");
  EXPECT_EQ(message("*a"), "byte 0: nothing to repeat before *");
  EXPECT_EQ(message("(a"), "byte 0: group is not closed");
  EXPECT_EQ(message("a)"), "byte 1: unmatched )");
  EXPECT_EQ(message("[a"), "byte 0: class is not closed");
  EXPECT_EQ(message("[]"), "byte 1: empty class; write \\] for a bracket");
  EXPECT_EQ(message("[b-a]"), "byte 1: range with its end before its beginning");
  EXPECT_EQ(message("[\\d-x]"), "byte 3: ambiguous - in a class; write \\-");
  EXPECT_EQ(message("[[:alpha:]]"), "byte 1: POSIX classes are not supported");
  EXPECT_EQ(message("[a&&]"), "byte 5: empty side of &&");
  EXPECT_EQ(message("\\w+"), "byte 0: escape \"\\\\w\" is not supported");
  EXPECT_EQ(message("\\b"), "byte 0: escape \"\\\\b\" is not supported");
  EXPECT_EQ(message("(a)\\1"), "byte 3: escape \"\\\\1\" is not supported");
  EXPECT_EQ(message("a\\"), "byte 1: pattern ends in a backslash");
  EXPECT_EQ(message("\\p{Klingon}"), "byte 0: property \"Klingon\" is not supported");
  EXPECT_EQ(message("\\pL"), "byte 0: expected {name} after \\p");
  EXPECT_EQ(message("\\p{L"), "byte 0: \\p{ is not closed");
  EXPECT_EQ(message("\\x{110000}"), "byte 0: not a code point");
  EXPECT_EQ(message("\\xff"), "byte 0: not a code point");
  EXPECT_EQ(message("(?<=a)b"), "byte 0: group \"(?<=\" is not supported");
  EXPECT_EQ(message("(?=a*)b"), "byte 0: look-ahead other than of fixed sequences is not supported");
  EXPECT_EQ(message("(a*)*b"), "byte 0: repetition of something that can be empty");
  EXPECT_EQ(message("(ab)++"), "byte 0: possessive repetition of a group is not supported");
  EXPECT_EQ(message("a{2}?"), "byte 4: {..}? is not supported");
  EXPECT_EQ(message("a{,2}"), "byte 2: expected a repetition count; write \\{ for a brace");
  EXPECT_EQ(message("a{2"), "byte 3: repetition is not closed");
  EXPECT_EQ(message("a{3,2}"), "byte 5: repetition with the larger count first");
  EXPECT_EQ(message("a{1001}"), "byte 2: repetition above 1000 is not supported");
  EXPECT_EQ(message("a*"), "can match the empty string");
  EXPECT_EQ(message(""), "can match the empty string");
  EXPECT_EQ(message("(?i:[é])"), "byte 5: case-insensitive class beyond ASCII is not supported");
  EXPECT_EQ(message("((a{9}b){900}){900}"), "pattern needs more than 2048 steps");
  EXPECT_NE(message(std::string(100, '(') + "a").find("groups nested deeper than 32"), std::string::npos);
  EXPECT_NE(message(std::string(100, '[') + "a").find("classes nested deeper than 32"), std::string::npos);
  EXPECT_NE(message(std::string(20000, 'a')).find("longer than 16384 bytes"), std::string::npos);
  EXPECT_NE(message("a\xFF").find("not valid UTF-8"), std::string::npos);
  std::string many;
  for (int i = 0; i < 70; ++i) many += str("[a\\x{", 1000 + i, "}]");
  EXPECT_NE(message(many).find("pattern needs more than 64 classes"), std::string::npos);
}

// Patterns that take a backtracking matcher quadratic or exponential time.
TEST(Regex, IsLinearOnHostilePatterns) {
  const std::string letters(300000, 'a');
  for (const char* pattern : {"(?:a+b?)+c",
                              "(?:a|a)+b",
                              "(?:a|aa)+b",
                              "a*b",
                              "a+b",
                              "a*a*a*b",
                              "(?:a+?)+?b",
                              "a++b",
                              "(?:aa?){1,9}b",
                              "a{1,50}b",
                              "a*b|a",
                              "(?:a{1,3}){2,}$x"}) {
    const Regex regex = must_compile(pattern);
    const auto start = std::chrono::steady_clock::now();
    const Spans spans = find_all(regex, letters);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    EXPECT_EQ(spans.size(), std::string_view(pattern) == "a*b|a" ? letters.size() : 0u) << pattern;
    EXPECT_LT(taken.count(), 5.0) << pattern;  // 0.1 s at rest; quadratic would be minutes
  }
}

// PCRE2 as the oracle: an independent matcher with the same alternatives-in-order semantics. Its \s also has U+180E,
// which is therefore in no test text.
class Oracle {
 public:
  explicit Oracle(std::string_view pattern) {
    int error = 0;
    size_t offset = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                          pattern.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
                          &error,
                          &offset,
                          nullptr);
    EXPECT_NE(code_, nullptr) << pattern;
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);
    data_ = pcre2_match_data_create_from_pattern(code_, nullptr);
  }

  Oracle(const Oracle&) = delete;
  Oracle& operator=(const Oracle&) = delete;

  ~Oracle() {
    pcre2_match_data_free(data_);
    pcre2_code_free(code_);
  }

  Spans find_all(std::string_view text) const {
    Spans out;
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    size_t from = 0;
    while (pcre2_match(code_, subject, text.size(), from, PCRE2_NO_UTF_CHECK, data_, nullptr) > 0) {
      const size_t* found = pcre2_get_ovector_pointer(data_);
      out.emplace_back(found[0], found[1]);
      from = found[1];
    }
    return out;
  }

 private:
  pcre2_code* code_ = nullptr;
  pcre2_match_data* data_ = nullptr;
};

std::string random_text(std::mt19937& random, size_t length) {
  static constexpr char32_t kAlphabet[] = {
      'a',   'b',  's',    'T',     '\'',    ' ',    ' ',   ' ',    '\n',   '\r',   '\t',   '1',   '2',
      '.',   '-',  '!',    '_',     '<',     0xE9,   0x301, 0x4E2D, 0x3042, 0x30A2, 0x2028, 0xA0,  0x3000,
      0x663, 0xBD, 0x2460, 0x1F600, 0x1D400, 0xAC00, 0x627, 0x17F,  0x20AC, 0xFF21, 0x85,   0x200B};
  std::string out;
  for (size_t i = 0; i < length; ++i) {
    const bool any = random() % 8 == 0;
    char32_t c = any ? static_cast<char32_t>(random() % 0x11000) : kAlphabet[random() % std::size(kAlphabet)];
    if ((c >= 0xD800 && c < 0xE000) || c == 0x180E) c = 'x';
    append_utf8(out, c);
  }
  return out;
}

TEST(Regex, AgreesWithPcre2) {
  for (const char* pattern : {kV3,
                              kGpt2,
                              kGpt4,
                              R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+)",
                              R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)",
                              R"(\s+$)",
                              R"([一-龥ࠀ-一가-퟿]+)",
                              R"([\r\n])",
                              R"(\p{N})",
                              R"((?:a|ab|b)+?(?:s|T ?)*[^a])",
                              R"((a+b?){1,3} |\p{Lu}\p{M}*|(?=\S\S).[ \n])",
                              R"(\s*\S{2,4}\s)",
                              R"(^\s*a|\P{L}+?$)"}) {
    SCOPED_TRACE(pattern);
    const Regex regex = must_compile(pattern);
    const Oracle oracle(pattern);
    std::mt19937 random(7);
    for (int i = 0; i < 400; ++i) {
      const std::string text = random_text(random, random() % 60);
      const Spans expected = oracle.find_all(text);
      ASSERT_EQ(find_all(regex, text), expected) << quoted(text, 400);
      ASSERT_EQ(find_all(regex, text, 0), expected) << "remembering: " << quoted(text, 400);
    }
  }
}

// Every code point in order, without surrogates.
std::string all_code_points() {
  std::string out;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c < 0xD800 || c >= 0xE000) append_utf8(out, c);
  }
  return out;
}

TEST(Regex, CategoriesAndScriptsAgreeWithPcre2) {
  const std::string text = all_code_points();
  for (const char* name : {"L",  "M",  "N",  "P",  "S",  "Z",  "C",  "Lu", "Ll", "Lt", "Lm",
                           "Lo", "Nd", "Nl", "No", "Mn", "Pc", "Sc", "Cf", "Cn", "Co"}) {
    const std::string pattern = str("\\p{", name, "}+");
    EXPECT_EQ(find_all(must_compile(pattern), text), Oracle(pattern).find_all(text)) << name;
  }
  for (const char* name : {"Han", "Hiragana", "Katakana", "Hangul", "Latin", "Greek", "Cyrillic"}) {
    EXPECT_EQ(find_all(must_compile(str("\\p{", name, "}+")), text), Oracle(str("\\p{sc:", name, "}+")).find_all(text))
        << name;
  }
  EXPECT_EQ(find_all(must_compile("\\p{Any}+"), text), (Spans{{0, text.size()}}));
}

TEST(RangeSet, Algebra) {
  unicode::RangeSet set;
  set.add(5, 8);
  set.add(1, 3);
  set.add(3, 4);
  set.add(9, 9);
  set.normalise();
  using Ranges = std::vector<std::pair<char32_t, char32_t>>;
  const auto list = [](const unicode::RangeSet& s) { return Ranges(s.ranges().begin(), s.ranges().end()); };
  EXPECT_EQ(list(set), (Ranges{{1, 4}, {5, 8}}));
  EXPECT_EQ(list(set.inverted()), (Ranges{{0, 1}, {4, 5}, {8, 0x110000}}));
  EXPECT_EQ(list(set.inverted().inverted()), list(set));
  EXPECT_TRUE(set.contains(3) && set.contains(5) && !set.contains(4) && !set.contains(8) && !set.contains(0));
  EXPECT_EQ(list(set.intersected(set.inverted())), Ranges{});
}

}  // namespace
}  // namespace lathe
