#include "lathe/base/utf8.h"

#include <gtest/gtest.h>

#include <vector>

namespace lathe {
namespace {

constexpr const char* kR = "\xef\xbf\xbd";  // U+FFFD

std::string r(int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += kR;
  return out;
}

TEST(Utf8, EveryScalarValueSurvivesEncodingAndDecoding) {
  for (char32_t c = 0; c <= 0x10ffff; ++c) {
    if (c >= 0xd800 && c <= 0xdfff) continue;
    std::string text;
    append_utf8(text, c);
    size_t position = 0;
    bool valid = false;
    ASSERT_EQ(decode_utf8(text, position, &valid), c);
    ASSERT_TRUE(valid);
    ASSERT_EQ(position, text.size());
    ASSERT_TRUE(is_valid_utf8(text));
  }
}

TEST(Utf8, WhatIsNoScalarValueIsWrittenAsReplacement) {
  for (const char32_t c : {char32_t{0xd800}, char32_t{0xdfff}, char32_t{0x110000}}) {
    std::string text;
    append_utf8(text, c);
    EXPECT_EQ(text, kR);
  }
}

struct Repair {
  const char* bytes;
  std::string expected;
};

// Unicode 15, section 3.9: tables 3-8 to 3-11, and the ends of the ranges of table 3-7.
TEST(Utf8, InvalidBytesAreReplacedByMaximalSubparts) {
  const std::vector<Repair> cases{
      {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", r(8) + "A"},               // table 3-8: not shortest form
      {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", r(8) + "A"},               // table 3-9: surrogates
      {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", r(5) + "A" + r(2) + "B"},  // table 3-10: other ill-formed
      {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", r(4) + "A"},               // table 3-11: truncated
      {"a\xe2\x82", "a" + r(1)},
      {"\xe2\x82z", r(1) + "z"},
      {"\xf0\x9f\x98", r(1)},
      {"\xf0\x9f\x98\xf0\x9f\x98\x80", r(1) + "\xf0\x9f\x98\x80"},
      {"\xf5\x80\x80\x80", r(4)},
      {"\xc1\x80", r(2)},
      {"\xc2", r(1)},
      {"\xe0\x9f\xbf", r(3)},
      {"\xf0\x8f\xbf\xbf", r(4)},
      {"\xf4\x90\x80\x80", r(4)},
      {"plain ascii, longer than eight bytes\xffsecond run of ascii",
       "plain ascii, longer than eight bytes" + r(1) + "second run of ascii"},
  };
  for (const Repair& c : cases) {
    EXPECT_EQ(to_valid_utf8(c.bytes), c.expected);
    EXPECT_FALSE(is_valid_utf8(c.bytes)) << c.expected;
    EXPECT_TRUE(is_valid_utf8(c.expected));
  }
}

TEST(Utf8, NulIsACharacter) {
  const std::string_view text("a\0b", 3);
  EXPECT_TRUE(is_valid_utf8(text));
  EXPECT_EQ(to_valid_utf8(text), text);
  EXPECT_TRUE(is_valid_utf8(""));
  EXPECT_EQ(to_valid_utf8(""), "");
}

TEST(Utf8, DecodeTellsAReplacementInTheTextFromARepair) {
  bool valid = false;
  size_t position = 0;
  EXPECT_EQ(decode_utf8(kR, position, &valid), char32_t{0xfffd});
  EXPECT_TRUE(valid);
  position = 0;
  EXPECT_EQ(decode_utf8("\xff", position, &valid), char32_t{0xfffd});
  EXPECT_FALSE(valid);
  EXPECT_EQ(position, 1u);
}

// Streaming must not depend on where the pieces end: every string of these bytes, cut at every place.
TEST(Utf8Stream, AnyCutGivesTheTextOfTheWhole) {
  const std::vector<std::string> bytes{"A",
                                       "\x80",
                                       "\xbf",
                                       "\xc3",
                                       "\xe0",
                                       "\xe2",
                                       "\xed",
                                       "\xf0",
                                       "\xf4",
                                       "\x9f",
                                       "\x90",
                                       "\xa0",
                                       "\xff",
                                       "\xf1",
                                       "\x82"};
  std::vector<std::string> texts{""};
  for (int length = 0; length < 4; ++length) {
    std::vector<std::string> longer;
    for (const std::string& text : texts) {
      for (const std::string& byte : bytes) longer.push_back(text + byte);
    }
    texts = std::move(longer);
    for (const std::string& text : texts) {
      const std::string whole = to_valid_utf8(text);
      for (size_t cut = 0; cut <= text.size(); ++cut) {
        Utf8Stream stream;
        std::string out = stream.push(std::string_view(text).substr(0, cut));
        out += stream.push(std::string_view(text).substr(cut));
        out += stream.finish();
        ASSERT_EQ(out, whole);
      }
    }
  }
}

TEST(Utf8Stream, GivesOutEveryCharacterAsSoonAsItIsComplete) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xf0"), "a");
  EXPECT_EQ(stream.push("\x9f"), "");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80"), "\xf0\x9f\x98\x80");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, FinishReplacesWhatIsHeldOnce) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xf0\x9f\x98"), "");
  EXPECT_EQ(stream.finish(), kR);
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, DoesNotHoldBackWhatCanNeverBecomeValid) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xed\xa0"), r(2));
  EXPECT_EQ(stream.push("\x80"), kR);
  EXPECT_EQ(stream.push("\xff"), kR);
}

}  // namespace
}  // namespace lathe
