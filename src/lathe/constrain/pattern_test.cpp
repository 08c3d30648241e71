// Patterns against the regular expressions of the standard library, and what combines automata.
#include "lathe/constrain/pattern.h"

#include <gtest/gtest.h>

#include <regex>
#include <string>
#include <vector>

#include "lathe/base/rng.h"

namespace lathe {
namespace {

CodePointDfa compile(std::string_view pattern) {
  int64_t work = 5'000'000;
  Result<CodePointDfa> dfa = compile_pattern(pattern, work);
  EXPECT_TRUE(dfa) << pattern << ": " << dfa.error().message;
  return dfa ? *std::move(dfa) : CodePointDfa{};
}

std::string random_pattern(Rng& rng, int depth) {
  static const std::vector<std::string> kAtoms = {"a", "b", "c", ".", "[ab]", "[^a]", "\\d", "\\w", "[a-c1]", "\\."};
  static const std::vector<std::string> kRepeats = {"", "", "", "*", "+", "?", "{2}", "{1,2}", "{2,}", "*?"};
  std::string out;
  for (int64_t i = rng.next_int(1, 3); i > 0; --i) {
    if (depth > 0 && rng.next_int(0, 2) == 0) {
      out += "(?:" + random_pattern(rng, depth - 1) + "|" + random_pattern(rng, depth - 1) + ")";
    } else {
      out += kAtoms[static_cast<size_t>(rng.next_int(0, std::ssize(kAtoms) - 1))];
    }
    out += kRepeats[static_cast<size_t>(rng.next_int(0, std::ssize(kRepeats) - 1))];
  }
  return out;
}

TEST(Pattern, AcceptsWhatTheOtherEngineFinds) {
  int accepted = 0, refused = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Rng rng(seed);
    const std::string body = random_pattern(rng, 2);
    const bool from_begin = rng.next_int(0, 1) == 0;
    const std::string pattern = (from_begin ? "^" : "") + body + "$";
    int64_t work = 5'000'000;
    const auto dfa = compile_pattern(pattern, work);
    if (!dfa) {  // some need too many states
      EXPECT_TRUE(dfa.error().message.starts_with("needs an automaton")) << pattern << dfa.error().message;
      continue;
    }
    const std::regex regex(pattern);
    for (int i = 0; i < 40; ++i) {
      std::string text;
      for (int64_t n = rng.next_int(0, 7); n > 0; --n) text += "abc1.2"[rng.next_int(0, 5)];
      const bool expected = std::regex_search(text, regex);
      EXPECT_EQ(dfa->accepts(text), expected) << "seed " << seed << ": " << pattern << " on " << text;
      ++(expected ? accepted : refused);
    }
  }
  EXPECT_GT(accepted, 500);
  EXPECT_GT(refused, 500);
}

TEST(Pattern, AnchorsClassesAndEscapes) {
  EXPECT_TRUE(compile("").accepts("anything"));
  EXPECT_TRUE(compile("^").accepts("x"));
  EXPECT_TRUE(compile("^$").accepts(""));
  EXPECT_FALSE(compile("^$").accepts("a"));
  EXPECT_TRUE(compile("^a|b$").accepts("ax"));
  EXPECT_TRUE(compile("^a|b$").accepts("xb"));
  EXPECT_FALSE(compile("^a|b$").accepts("xa"));
  EXPECT_TRUE(compile("a^").states.empty());
  EXPECT_TRUE(compile("^[^\\d]$").accepts("x"));
  EXPECT_FALSE(compile("^[^\\d]$").accepts("\xD9\xA3"));  // a digit for some dialects
  EXPECT_FALSE(compile("^\\d$").accepts("\xD9\xA3"));
  EXPECT_TRUE(compile("^\\x41\\u00e9\\t\\/$").accepts("A\xC3\xA9\t/"));
  EXPECT_FALSE(compile("^.$").accepts("\n"));
  EXPECT_TRUE(compile("^\\W\\S\\D$").accepts("-xy"));
  EXPECT_FALSE(compile("^\\W\\S\\D$").accepts("x-y"));
  EXPECT_TRUE(compile("^.$").accepts("\xF0\x9F\x98\x80"));
}

TEST(Pattern, AutomataCombine) {
  int64_t work = 1'000'000;
  const CodePointDfa a = compile("^[ab]*$"), b = compile("^[bc]*$");
  const auto both = intersect(a, b, work), left = subtract(a, b, work), long_ones = with_length(a, 2, 3, work);
  ASSERT_TRUE(both && left && long_ones);
  EXPECT_TRUE(both->accepts("bb"));
  EXPECT_FALSE(both->accepts("ab"));
  EXPECT_TRUE(left->accepts("ab"));
  EXPECT_FALSE(left->accepts("b"));
  EXPECT_FALSE(left->accepts(""));
  EXPECT_TRUE(long_ones->accepts("aba"));
  EXPECT_FALSE(long_ones->accepts("a"));
  EXPECT_FALSE(long_ones->accepts("abab"));
  EXPECT_TRUE(is_endless(a));
  EXPECT_FALSE(is_endless(*long_ones));
  EXPECT_FALSE(is_endless(CodePointDfa{}));
}

TEST(Pattern, WhatIsNotTakenIsNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"(?=a)", "byte 0: look-around, named groups and flags are not supported"},
      {"(?<n>a)", "byte 0: look-around, named groups and flags are not supported"},
      {"a)", "byte 1: unmatched )"},
      {"(a", "byte 0: group is not closed"},
      {"[a", "byte 0: class is not closed"},
      {"[]", "byte 0: empty class; write \\] for a bracket"},
      {"[b-a]", "byte 1: range with its end before its beginning"},
      {"[\\d-a]", "byte 1: range with a class as its end"},
      {"*", "byte 0: nothing to repeat before *"},
      {"a**", "byte 2: nested and possessive repetition is not supported"},
      {"a{3,1}", "byte 1: the larger count comes first"},
      {"a{1001}", "byte 2: repetition above 1000 is not supported"},
      {"a{x}", "byte 2: expected a repetition count; write \\{ for a brace"},
      {"\\1", "byte 0: escape \"\\\\1\" is not supported"},
      {"\\p{L}", "byte 0: escape \"\\\\p\" is not supported"},
      {"\\", "byte 0: pattern ends in a backslash"},
      {"\\x4", "byte 0: expected hexadecimal digits"},
      {"\\ud800", "byte 0: surrogates are not supported"},
      {"^*", "byte 1: repetition of an anchor"},
  };
  for (const auto& [pattern, message] : cases) {
    int64_t work = 1'000'000;
    const auto dfa = compile_pattern(pattern, work);
    ASSERT_FALSE(dfa) << pattern;
    EXPECT_EQ(dfa.error().message, message) << pattern;
    EXPECT_EQ(dfa.error().code, Errc::kUnsupported) << pattern;
  }
}

}  // namespace
}  // namespace lathe
