#include "lathe/formats/json_cursor.h"

#include <gtest/gtest.h>

#include <string>

#include "lathe/base/str.h"

namespace lathe {
namespace {

std::string error_of_string(std::string_view text) {
  JsonCursor cursor(text);
  const Result<std::string> value = cursor.read_string();
  return value ? str("no error: ", *value) : value.error().message;
}

std::string error_of_unsigned(std::string_view text) {
  JsonCursor cursor(text);
  const Result<uint64_t> value = cursor.read_unsigned();
  return value ? str("no error: ", *value) : value.error().message;
}

std::string error_of_skip(std::string_view text) {
  JsonCursor cursor(text);
  Status status = cursor.skip_value();
  if (status) status = cursor.finish();
  return status ? "no error" : status.error().message;
}

TEST(JsonCursor, ReadsNestedValuesInOrder) {
  JsonCursor cursor(" { \"a\" : [ 1 , 18446744073709551615 ] , \"b\\n\" : \"x\" , \"c\" : { } } ");
  std::string key;
  ASSERT_TRUE(cursor.open_object());
  ASSERT_TRUE(*cursor.next_member(key));
  EXPECT_EQ(key, "a");
  ASSERT_TRUE(cursor.open_array());
  ASSERT_TRUE(*cursor.next_element());
  EXPECT_EQ(*cursor.read_unsigned(), 1U);
  ASSERT_TRUE(*cursor.next_element());
  EXPECT_EQ(*cursor.read_unsigned(), UINT64_MAX);
  EXPECT_FALSE(*cursor.next_element());
  ASSERT_TRUE(*cursor.next_member(key));
  EXPECT_EQ(key, "b\n");
  EXPECT_EQ(*cursor.read_string(), "x");
  ASSERT_TRUE(*cursor.next_member(key));
  ASSERT_TRUE(cursor.open_object());
  EXPECT_FALSE(*cursor.next_member(key));
  EXPECT_FALSE(*cursor.next_member(key));
  EXPECT_TRUE(cursor.finish());
}

TEST(JsonCursor, DecodesEveryEscape) {
  JsonCursor cursor(R"("\"\\\/\b\f\n\r\t\u0041\u00e9\uD83D\ude00")");
  EXPECT_EQ(*cursor.read_string(), "\"\\/\b\f\n\r\tA\xC3\xA9\xF0\x9F\x98\x80");
}

TEST(JsonCursor, RefusesBadStrings) {
  EXPECT_EQ(error_of_string("5"), "byte 0: expected a string, found \"5\"");
  EXPECT_EQ(error_of_string("\"abc"), "byte 4: expected the end of a string, found the end of the text");
  EXPECT_EQ(error_of_string("\"a\nb\""), "byte 2: expected the end of a string, found \"\\x0ab\\\"\"");
  EXPECT_EQ(error_of_string(R"("\x")"), "byte 2: expected an escape of JSON, found \"x\\\"\"");
  EXPECT_NE(error_of_string(R"("\u12g4")").find("expected four hexadecimal digits"), std::string::npos);
  EXPECT_NE(error_of_string(R"("\u12)").find("expected four hexadecimal digits"), std::string::npos);
  EXPECT_NE(error_of_string(R"("\)").find("expected an escape"), std::string::npos);
  EXPECT_NE(error_of_string(R"("\ud800x")").find("expected the low surrogate"), std::string::npos);
  EXPECT_NE(error_of_string(R"("\ud800\u0041")").find("expected the low surrogate"), std::string::npos);
  EXPECT_NE(error_of_string(R"("\udc00")").find("expected no lone low surrogate"), std::string::npos);
}

TEST(JsonCursor, AcceptsOnlyPlainUnsignedIntegers) {
  EXPECT_EQ(error_of_unsigned("0"), "no error: 0");
  for (const char* text : {"-1",
                           "+1",
                           "01",
                           "1.0",
                           "1e3",
                           "1E3",
                           "\"1\"",
                           "true",
                           "null",
                           "",
                           "[",
                           "18446744073709551616",
                           "99999999999999999999999999"}) {
    EXPECT_NE(error_of_unsigned(text).find("byte 0: expected a non-negative integer of at most 64 bits"),
              std::string::npos)
        << text;
  }
}

TEST(JsonCursor, SkipsEveryKindOfValue) {
  for (const char* text : {"1",
                           "-0.5e+7",
                           "0",
                           "-0",
                           "1E5",
                           "true",
                           "false",
                           "null",
                           "\"x\"",
                           "[]",
                           "[1,[2],{\"a\":3}]",
                           "{}",
                           " {\"a\" : [ null ] } \r\n\t"}) {
    EXPECT_EQ(error_of_skip(text), "no error") << text;
  }
}

TEST(JsonCursor, RefusesWhatIsNotJson) {
  for (const char* text : {"",      " ",     "01",   "1.",       ".5",    "1e",      "-",        "+1",         "tru",
                           "nul",   "NaN",   "[1,]", "[,1]",     "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}",
                           "{a:1}", "{1:2}", "[1",   "{\"a\":1", "1 2",   "]",       "{]",       "[}",         "'a'"}) {
    EXPECT_NE(error_of_skip(text).find("expected"), std::string::npos) << text;
  }
}

TEST(JsonCursor, BoundsNesting) {
  const std::string deep(JsonCursor::kMaxDepth, '[');
  EXPECT_EQ(error_of_skip(deep + std::string(JsonCursor::kMaxDepth, ']')), "no error");
  EXPECT_EQ(error_of_skip(deep + "["), "byte 32: nesting deeper than 32");
  EXPECT_EQ(error_of_skip(std::string(1'000'000, '[')), "byte 32: nesting deeper than 32");
}

}  // namespace
}  // namespace lathe
