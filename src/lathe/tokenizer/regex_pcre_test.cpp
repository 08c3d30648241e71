// Patterns that go to PCRE2, and both engines side by side.
#include "lathe/tokenizer/regex_pcre.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/regex.h"

namespace lathe {
namespace {

using Spans = std::vector<std::pair<size_t, size_t>>;
using Strings = std::vector<std::string>;

Regex must_compile(std::string_view pattern, RegexEngine engine) {
  Result<Regex> regex = Regex::compile(pattern, engine);
  EXPECT_TRUE(regex) << pattern << ": " << (regex ? "" : regex.error().message);
  if (!regex) regex = Regex::literal("x");
  return *std::move(regex);
}

Spans find_all(RegexSearch& search, std::string_view text) {
  search.reset(text);
  Spans out;
  size_t from = 0, begin = 0, end = 0;
  while (search.next(from, begin, end)) {
    EXPECT_LE(begin, end);
    EXPECT_GE(begin, from);
    out.emplace_back(begin, end);
    from = end;
  }
  return out;
}

Spans find_all(const Regex& regex, std::string_view text) {
  RegexSearch search(regex);
  return find_all(search, text);
}

// Through Regex::compile's own choice, which must be PCRE2.
Strings matches(std::string_view pattern, std::string_view text) {
  EXPECT_FALSE(Regex::compile(pattern, RegexEngine::kOwn)) << pattern;
  const Regex regex = must_compile(pattern, RegexEngine::kAny);
  EXPECT_NE(regex.pcre(), nullptr) << pattern;
  Strings out;
  for (const auto& [begin, end] : find_all(regex, text)) out.emplace_back(text.substr(begin, end - begin));
  return out;
}

std::string random_text(std::mt19937& random, size_t length) {
  static constexpr char32_t kAlphabet[] = {
      'a',  'b',   's',    'T',    'L',    '\'',   ' ',    ' ',     ' ',    '\n',  '\r',   '\t',   '1',    '2',    '.',
      '-',  '/',   '_',    '<',    0xC9,   0x1C5,  0x2B0,  0xE9,    0x301,  0x85,  0x4E2D, 0x3042, 0x30FC, 0x2028, 0xA0,
      0xBD, 0x663, 0x1680, 0x180E, 0x3000, 0x200B, 0xFEFF, 0x1F600, 0xAC00, 0x17F, 0x212A, 0x20AC, 0xFF21, 0x1D400};
  std::string out;
  for (size_t i = 0; i < length; ++i) {
    char32_t c = kAlphabet[random() % std::size(kAlphabet)];
    if (random() % 8 == 0) c = static_cast<char32_t>(random() % 0x11000);
    append_utf8(out, c >= 0xD800 && c < 0xE000 ? U'x' : c);
  }
  return out;
}

// The splitters of GPT-2, Llama 3, Qwen2, o200k, R1 and DeepSeek-LLM, and some more that both engines take.
constexpr const char* kBothEngines[] = {
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+)",
    R"(\s+$)",
    R"([一-龥ࠀ-一가-퟿]+)",
    R"([\p{L}&&[^\p{Han}]]+|[^\s&&[^\n]]|[^a[b-d]\d]+?)",
    R"(\S+|\D\d|\P{L}|\p{^N}{2})",
    R"((?i:[a-z]s)+|(a|b)*?-)",
    R"(^\s*a|[\p{Han}\p{Hiragana}\p{Katakana}]{2,}|\x41|\x{e9}|\u4e2d|.$)",
};

TEST(RegexPcre, BothEnginesFindTheSame) {
  for (const char* pattern : kBothEngines) {
    SCOPED_TRACE(pattern);
    const Regex own = must_compile(pattern, RegexEngine::kOwn);
    const Regex pcre = must_compile(pattern, RegexEngine::kPcre2);
    EXPECT_NE(must_compile(pattern, RegexEngine::kAny).program(), nullptr);  // the fast path is taken
    RegexSearch search(pcre);
    std::mt19937 random(11);
    for (int i = 0; i < 500; ++i) {
      const std::string text = random_text(random, random() % 80);
      ASSERT_EQ(find_all(search, text), find_all(own, text)) << quoted(text, 400);
    }
    for (const char* unit : {" ", "a", "\n", " \n", "中", "aé"}) {  // longer than a first attempt sees
      std::string text = "x";
      while (text.size() < 700) text += unit;
      text += "!";
      ASSERT_EQ(find_all(search, text), find_all(own, text)) << quoted(unit);
      EXPECT_FALSE(search.gave_up());
    }
  }
}

TEST(RegexPcre, MatchesWhatTheOwnEngineRefuses) {
  EXPECT_EQ(matches("(?<=a)b+", "abb bb abab"), (Strings{"bb", "b", "b"}));
  EXPECT_EQ(matches("(?<!a|é)b", "ab éb cb"), (Strings{"b"}));
  EXPECT_EQ(matches("\\bcat\\b", "cat concat cats écat cat"), (Strings{"cat", "cat"}));
  EXPECT_EQ(matches("\\Bat", "at cat"), (Strings{"at"}));
  EXPECT_EQ(matches("\\w+", "né1_x a\u0301b-Ⓐ ² ①"), (Strings{"né1_x", "a\u0301b", "Ⓐ", "²"}));
  EXPECT_EQ(matches("[^\\W\\d]+", "ab1é"), (Strings{"ab", "é"}));
  EXPECT_EQ(matches("[[:alpha:][:digit:]_]+", "ab1-é_"), (Strings{"ab1", "é_"}));
  EXPECT_EQ(matches("[[:^space:]]+", "a b\u0085c"), (Strings{"a", "b", "c"}));
  EXPECT_EQ(matches("\\p{Thai}+|\\p{Arabic}+", "aกขbب"), (Strings{"กข", "ب"}));
  EXPECT_EQ(matches("\\p{Decimal_Number}+|\\p{uppercase letter}", "a12bC"), (Strings{"12", "C"}));
  EXPECT_EQ(matches("\\p{Word}+|\\p{^Alpha}", "ab! "), (Strings{"ab", "!", " "}));
  EXPECT_EQ(matches("\\pN+", "a12"), (Strings{"12"}));
  EXPECT_EQ(matches("\\h+", "xyzFFg 1a"), (Strings{"FF", "1a"}));  // hexadecimal, not white space
  EXPECT_EQ(matches("(a)\\1", "aaa"), (Strings{"aa"}));
  EXPECT_EQ(matches("(?<q>['\"]).*?\\k<q>", "'a\" 'b\"c\""), (Strings{"'a\" '", "\"c\""}));
  EXPECT_EQ(matches("(?>a+)b|(?:ab)++", "aab abab"), (Strings{"aab", "ab", "ab"}));
  EXPECT_EQ(matches("a(?=.*z)", "a az a"), (Strings{"a", "a"}));
  EXPECT_EQ(matches("(?m:<.>)", "<\n>"), (Strings{"<\n>"}));
  EXPECT_EQ(matches("x(?i)a|b", "xA XA xB B"), (Strings{"xA", "xB"}));  // the option holds for both alternatives
  EXPECT_EQ(matches("(?:x(?i)a|b)c", "xAc xBc xBC"), (Strings{"xAc", "xBc"}));
  EXPECT_EQ(matches("(?i:É[à-ö])", "éÖ"), (Strings{"éÖ"}));
}

TEST(RegexPcre, RepetitionsOfRepetitions) {
  EXPECT_EQ(matches("a{2}+", "aaaaa"), (Strings{"aaaa"}));
  EXPECT_EQ(matches("ba{1}?", "bab"), (Strings{"ba", "b"}));
  EXPECT_EQ(matches("a{2,3}?b", "aaab"), (Strings{"aaab"}));
  EXPECT_EQ(matches("xa{,2}", "xaaa"), (Strings{"xaa"}));
  EXPECT_EQ(matches("(?:ab){2}{2}", "ababababab"), (Strings{"abababab"}));
  EXPECT_EQ(matches("\\w{x}", "a{x}"), (Strings{"a{x}"}));
}

TEST(RegexPcre, ClassesInsideClasses) {
  EXPECT_EQ(matches("[\\w&&[^\\d_]]+", "ab1_é"), (Strings{"ab", "é"}));
  EXPECT_EQ(matches("[^\\w&&[^a]]+", "ab-c!"), (Strings{"a", "-", "!"}));
  EXPECT_EQ(matches("[^a[\\w&&[x-z]]]+", "bxa-z"), (Strings{"b", "-"}));
  EXPECT_EQ(matches("[\\d-x]+", "1-x y"), (Strings{"1-x"}));
  EXPECT_EQ(matches("[]a]+", "b]a"), (Strings{"]a"}));
  EXPECT_EQ(matches("(?<=[\\w&&[^a]])!", "a! b!"), (Strings{"!"}));
  EXPECT_EQ(matches("[\\x01-\\x05\\b\\w]+", "\b\x03q!"), (Strings{"\b\x03q"}));
}

TEST(RegexPcre, EmptyMatchesPart) {
  EXPECT_EQ(find_all(must_compile("\\b", RegexEngine::kAny), "ab cd"), (Spans{{0, 0}, {2, 2}, {3, 3}}));
  EXPECT_EQ(find_all(must_compile("(?=[A-Z])", RegexEngine::kAny), "aBéC"), (Spans{{1, 1}, {4, 4}}));
  EXPECT_EQ(find_all(must_compile("a*", RegexEngine::kAny), "baac"), (Spans{{0, 0}, {1, 3}}));
  EXPECT_EQ(find_all(must_compile("", RegexEngine::kAny), "é!"), (Spans{{0, 0}, {2, 2}}));
}

TEST(RegexPcre, WhiteSpaceIsTheUnicodeProperty) {
  const std::string text = "\t\u0085\u00A0\u1680\u2003\u2028\u202F\u205F\u3000";
  for (const char* pattern : {"\\s", "[\\s]", "\\p{Space}", "[^\\S]", "\\p{White_Space}"}) {
    const Regex regex = must_compile(pattern, RegexEngine::kPcre2);
    EXPECT_EQ(find_all(regex, text).size(), 9u) << pattern;
    EXPECT_TRUE(find_all(regex, "\uFEFF\u200B\u180E\u2060\x1C").empty()) << pattern;
  }
}

TEST(RegexPcre, Refuses) {
  const auto message = [](std::string_view pattern) {
    const Result<Regex> regex = Regex::compile(pattern);
    if (regex) return std::string("accepted");
    const std::string prefix = str("regex ", quoted(pattern), ": ");
    EXPECT_TRUE(regex.error().message.starts_with(prefix)) << regex.error().message;
    return regex.error().message.substr(std::min(prefix.size(), regex.error().message.size()));
  };
  // PCRE2's words, at the place in the pattern as it was written.
  EXPECT_EQ(message("*a"), "byte 0: quantifier does not follow a repeatable item");
  EXPECT_EQ(message("(a"), "byte 1: missing closing parenthesis");
  EXPECT_EQ(message("\\w\\w)a"), "byte 4: unmatched closing parenthesis");
  EXPECT_EQ(message("\\b\\b(?<=a+)b"), "byte 4: lookbehind assertion is not fixed length");
  EXPECT_EQ(message("a**{2}b)"), "byte 7: unmatched closing parenthesis");
  EXPECT_EQ(message("\\w\\3"), "byte 2: reference to non-existent subpattern");
  EXPECT_EQ(message("\\k<b>"), "byte 0: reference to non-existent subpattern");
  EXPECT_EQ(message("a{3,2}"), "byte 1: numbers out of order in {} quantifier");
  EXPECT_EQ(message("(?:\\w{900}){900}"), "byte 11: regular expression is too large");
  // What would mean something else to PCRE2.
  EXPECT_EQ(message("(*ACCEPT)a"), "byte 0: group \"(*\" is not supported");
  EXPECT_EQ(message("\\w(?x: a)"), "byte 2: group \"(?x\" is not supported");
  EXPECT_EQ(message("\\w(?~a)"), "byte 2: group \"(?~\" is not supported");
  EXPECT_EQ(message("\\w(?R)"), "byte 2: group \"(?R\" is not supported");
  EXPECT_EQ(message("\\w(?i"), "byte 2: group is not closed");
  EXPECT_EQ(message("\\w(?<name"), "byte 2: group name is not closed");
  EXPECT_EQ(message("\\w(?#"), "byte 2: comment is not closed");
  EXPECT_EQ(message("\\Qa\\E"), "byte 0: escape \"\\\\Q\" is not supported");
  EXPECT_EQ(message("[\\X]"), "byte 1: escape \"\\\\X\" is not supported");
  EXPECT_EQ(message("\\w\\"), "byte 2: pattern ends in a backslash");
  EXPECT_EQ(message("\\xff"), "byte 0: not a code point");
  EXPECT_EQ(message("\\x{d800}"), "byte 0: not a code point");
  EXPECT_EQ(message("\\p{Klingon}"), "byte 0: unknown property \"klingon\"");
  EXPECT_EQ(message("\\w\\p{L"), "byte 2: \\p{ is not closed");
  EXPECT_EQ(message("\\p1"), "byte 0: expected {name} after \\p");
  EXPECT_EQ(message("[a"), "byte 0: class is not closed");
  EXPECT_EQ(message("[]"), "byte 2: empty side of &&, or empty class");
  EXPECT_EQ(message("[[:klingon:]]"), "byte 1: unknown POSIX class");
  EXPECT_EQ(message("[a-\\w]"), "byte 1: ambiguous - in a class; write \\-");
  EXPECT_EQ(message("[b-a]"), "byte 1: range with its end before its beginning");
  EXPECT_EQ(message("[b-a"), "byte 1: range with its end before its beginning");
  EXPECT_NE(message(std::string(100, '(') + "a").find("groups nested deeper than 64"), std::string::npos);
  EXPECT_NE(message(std::string(100, '[') + "a").find("classes nested deeper than 64"), std::string::npos);
  EXPECT_NE(message("\\w\xFF").find("not valid UTF-8"), std::string::npos);
}

// Patterns that take a backtracking matcher quadratic or exponential time; the last ones need PCRE2 in any case.
TEST(RegexPcre, HostilePatternsEndInBoundedTime) {
  const std::string letters(300'000, 'a');
  for (const char* pattern : {"(?:a+b?)+c",
                              "(?:a|a)+b",
                              "(?:a|aa)+b",
                              "a*b",
                              "a*a*a*b",
                              "(?:aa?){1,9}b",
                              "(?=(?:a*a*)*b)a",
                              "(?:(?=a*+)a)+b",
                              "(?<=a)(?:a+)+b",
                              "(a*)*\\1b",
                              "(?:\\w+)*!",
                              "(?:a\\g<0>?)+b",
                              "(a\\g<1>?)+b"}) {
    const Regex regex = must_compile(pattern, RegexEngine::kPcre2);
    RegexSearch search(regex);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_TRUE(find_all(search, letters).empty()) << pattern;
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    EXPECT_TRUE(search.gave_up()) << pattern;
    EXPECT_LT(taken.count(), 10.0) << pattern;  // under 0.5 s at rest; quadratic would be minutes
    // The next subject is searched as if nothing had happened.
    find_all(search, "aab");
    EXPECT_FALSE(search.gave_up()) << pattern;
  }
}

TEST(RegexPcre, LimitsAreTheSameEveryTime) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += str(std::string(20'000, 'a'), "b ");
  const Regex regex = must_compile("(?<!x)(?:a|a)+?c|b |a", RegexEngine::kAny);
  RegexSearch search(regex);
  const Spans first = find_all(search, text);
  EXPECT_TRUE(search.gave_up());
  EXPECT_EQ(find_all(search, text), first);
  EXPECT_EQ(find_all(regex, text), first);
}

}  // namespace
}  // namespace lathe
