#include "lathe/base/json.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>

#include "support/temp_dir.h"

namespace lathe {
namespace {

std::string error_of(std::string_view text, const JsonLimits& limits = {}) {
  const Result<Json> json = parse_json(text, limits);
  if (json) return "parsed: " + json->dump();
  EXPECT_EQ(json.error().code, Errc::kInvalidData);
  return json.error().message;
}

TEST(Json, KeepsKindsAndOrder) {
  const Result<Json> parsed = parse_json(R"( {"z": 1, "a": [true, null, -2.5, "x"], "o": {}, "e": []} )");
  ASSERT_TRUE(parsed) << parsed.error().message;
  const Json& json = *parsed;
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json.as_object()[0].first, "z");
  EXPECT_EQ(json.as_object()[1].first, "a");
  EXPECT_EQ(json.find("z")->as_int(), 1);
  EXPECT_EQ(json.find("z")->as_double(), 1.0);
  const Json::Array& list = json.find("a")->as_array();
  ASSERT_EQ(list.size(), 4u);
  EXPECT_TRUE(list[0].as_bool());
  EXPECT_TRUE(list[1].is_null());
  EXPECT_EQ(list[2].kind(), Json::Kind::kDouble);
  EXPECT_EQ(list[2].as_double(), -2.5);
  EXPECT_EQ(list[3].as_string(), "x");
  EXPECT_EQ(json.find("missing"), nullptr);
  EXPECT_EQ(list[0].find("x"), nullptr) << "not an object";
  EXPECT_EQ(json.dump(), R"({"z":1,"a":[true,null,-2.5,"x"],"o":{},"e":[]})");
}

TEST(Json, NumbersKeepTheirRange) {
  const auto kind = [](std::string_view text) { return parse_json(text)->kind(); };
  EXPECT_EQ(parse_json("9223372036854775807")->as_int(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(parse_json("-9223372036854775808")->as_int(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(kind("9223372036854775808"), Json::Kind::kDouble);
  EXPECT_EQ(kind("-9223372036854775809"), Json::Kind::kDouble);
  EXPECT_EQ(kind("1e3"), Json::Kind::kDouble);
  EXPECT_EQ(kind("1.0"), Json::Kind::kDouble);
  EXPECT_EQ(parse_json("18446744073709551616")->as_double(), 18446744073709551616.0);
  EXPECT_EQ(error_of("1e400"), "byte 4: number does not fit a double");
  EXPECT_EQ(error_of("[1e400]"), "byte 5: number does not fit a double");
}

TEST(Json, StringsDecodeEscapes) {
  EXPECT_EQ(parse_json(R"("\u00e9\ud83d\ude00\n\"\\\/\u0000z")")->as_string(),
            std::string("\xc3\xa9\xf0\x9f\x98\x80\n\"\\/\0z", 12));
}

TEST(Json, RefusesWhatIsNotJson) {
  EXPECT_EQ(error_of(""),
            "byte 0: syntax error while parsing value - unexpected end of input; expected '[', '{', or a literal");
  EXPECT_EQ(error_of("{\"a\": tru}"), "byte 9: syntax error while parsing value - invalid literal, found \"}\"");
  EXPECT_EQ(error_of("[1, 2"), "byte 5: syntax error while parsing array - unexpected end of input; expected ']'");
  for (const char* bad : {"{",        "[1,]",      "{\"a\":1,}", "01",    "+1",  ".5",     "1.",      "NaN",
                          "Infinity", "'a'",       "{a:1}",      "[1] 2", "nul", "\"\n\"", "\"\\x\"", "// c\n1",
                          "[1 2]",    "{\"a\" 1}", "]",          "\"abc", "-",   "\t",     "1 /**/"}) {
    EXPECT_TRUE(error_of(bad).starts_with("byte ")) << bad << ": " << error_of(bad);
  }
}

TEST(Json, RefusesBytesThatTheLexerWouldPass) {
  EXPECT_EQ(error_of("\xef\xbb\xbf{}"), "byte 0: byte order mark before the JSON text");
  EXPECT_EQ(error_of(std::string_view("{}\0{", 4)), "byte 2: NUL byte");
  EXPECT_EQ(error_of(std::string_view("\"a\0\"", 4)), "byte 2: NUL byte");
}

TEST(Json, RefusesTextThatIsNotUtf8) {
  for (const char* bad : {"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xe2\x82\"", "{\"\x80\": 1}", "\xff"}) {
    EXPECT_TRUE(error_of(bad).starts_with("byte ")) << error_of(bad);
  }
  EXPECT_EQ(error_of("[\"ab\xff\"]"),
            "byte 4: syntax error while parsing value - invalid string: ill-formed UTF-8 byte, found \"\\xff\\\"]\"");
  for (const char* bad : {R"("\ud800")", R"("\udc00")", R"("\ud800\u0041")"}) {
    EXPECT_NE(error_of(bad).find("surrogate"), std::string::npos) << error_of(bad);
  }
}

TEST(Json, RefusesDuplicateKeysAndSaysWhere) {
  EXPECT_EQ(error_of(R"({"a": 1, "b": 2, "a": 3})"), "byte 17: duplicate key \"a\"");
  EXPECT_EQ(error_of(R"([{"x": {"k\"\\": 1,    "k\"\\": 2}}])"), R"(byte 23: duplicate key "k\"\\")");
  EXPECT_EQ(error_of("{\"a\":1,\"\\u0061\":2}"), "byte 7: duplicate key \"a\"") << "compared after decoding";
  EXPECT_EQ(error_of(R"({"":1,"":2})"), "byte 6: duplicate key \"\"");
  EXPECT_TRUE(parse_json(R"({"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 1}]})"));
  const std::string key(5000, 'k');
  EXPECT_EQ(error_of("{\"" + key + "\":1,\"" + key + "\":2}"),
            "byte 5006: duplicate key \"" + std::string(80, 'k') + "\"...");
}

TEST(Json, FindsTheFirstDuplicateOfALargeObject) {
  std::string text = "{";
  for (int i = 0; i < 5000; ++i) text += str("\"key", i, "\":", i, ",");
  const size_t first = text.size();
  text += "\"key4000\":0,\"key17\":0,\"last\":1}";
  EXPECT_EQ(error_of(text), str("byte ", first, ": duplicate key \"key4000\""));
}

TEST(Json, RefusesDeepNesting) {
  const JsonLimits three{.max_depth = 3};
  EXPECT_TRUE(parse_json(R"([{"a": [1]}])", three));
  EXPECT_EQ(error_of(R"([{"a": [[]]}])", three), "byte 8: nesting deeper than 3 levels");
  EXPECT_EQ(error_of(R"([{"a": [{}]}])", three), "byte 8: nesting deeper than 3 levels");
  EXPECT_EQ(error_of(std::string(1000000, '[')), "byte 64: nesting deeper than 64 levels");
  EXPECT_EQ(error_of("[]", {.max_depth = 0}), "byte 0: nesting deeper than 0 levels");
  EXPECT_TRUE(parse_json("1", {.max_depth = 0}));
}

TEST(Json, RefusesLongText) {
  EXPECT_EQ(error_of("[1,2]", {.max_bytes = 4}), "expected at most 4 bytes, found 5");
  EXPECT_TRUE(parse_json("[1,2]", {.max_bytes = 5}));
}

TEST(Json, ErrorsDoNotQuoteMegabytes) {
  const std::string open = "[\"" + std::string(1 << 20, 'x');
  EXPECT_EQ(error_of(open),
            str("byte ",
                open.size(),
                ": syntax error while parsing value - invalid string: missing closing quote, found end "
                "of input"));
  EXPECT_LT(error_of("[" + std::string(100000, 'x')).size(), 200u);
  EXPECT_LT(error_of(std::string(100000, '7')).size(), 200u);
}

TEST(Json, DumpEscapesAndIndents) {
  Json json = Json::object();
  json.set("s", std::string("\"\\\n\r\t\b\f\x01\x7f\xc3\xa9"))
      .set("n", Json::list(std::vector<int>{1, 2}))
      .set("e", Json::array());
  json.set("o", Json::object());
  EXPECT_EQ(json.dump(), "{\"s\":\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\x7f\xc3\xa9\",\"n\":[1,2],\"e\":[],\"o\":{}}");
  EXPECT_EQ(Json::list(std::vector<int>{1}).dump(2), "[\n  1\n]");
  EXPECT_EQ(json.set("s", 0).dump(2), "{\n  \"s\": 0,\n  \"n\": [\n    1,\n    2\n  ],\n  \"e\": [],\n  \"o\": {}\n}");
}

TEST(Json, DumpRepairsStringsThatAreNotUtf8) {
  EXPECT_EQ(Json("a\xe2\x82z").dump(), "\"a\xef\xbf\xbdz\"");
  EXPECT_EQ(Json("\xff").dump(), "\"\xef\xbf\xbd\"");
}

TEST(Json, DumpedNumbersReadBackAsThemselves) {
  for (const double value :
       {0.0, -0.0, 1.0, 0.1, -2.5e-308, 1e22, 5e-324, 1.7976931348623157e308, 123456789012345680.0}) {
    const std::string text = Json(value).dump();
    const Result<Json> back = parse_json(text);
    ASSERT_TRUE(back) << text;
    EXPECT_EQ(back->kind(), Json::Kind::kDouble) << text;
    EXPECT_EQ(back->as_double(), value);
    EXPECT_EQ(std::signbit(back->as_double()), std::signbit(value)) << text;
  }
  EXPECT_EQ(Json(1.0).dump(), "1.0");
  EXPECT_EQ(Json(std::nan("")).dump(), "null");
  EXPECT_EQ(Json(-std::numeric_limits<double>::infinity()).dump(), "null");
  EXPECT_EQ(Json(std::numeric_limits<int64_t>::min()).dump(), "-9223372036854775808");
}

TEST(Json, BuildsValues) {
  EXPECT_EQ(Json(uint64_t{7}).kind(), Json::Kind::kInt);
  EXPECT_EQ(Json(std::numeric_limits<uint64_t>::max()).kind(), Json::Kind::kDouble);
  EXPECT_EQ(Json(uint32_t{4000000000u}).as_int(), 4000000000);
  EXPECT_TRUE(Json("text").is_string());
  EXPECT_TRUE(Json(nullptr).is_null());
  Json list;
  list.push(1).push("two");
  EXPECT_EQ(list.dump(), R"([1,"two"])");
  Json object;
  object.set("a", 1).set("b", 2).set("a", 3);
  EXPECT_EQ(object.dump(), R"({"a":3,"b":2})");
  EXPECT_EQ(object, *parse_json(R"({"a": 3, "b": 2})"));
  EXPECT_FALSE(object == *parse_json(R"({"a": 3, "b": 2.0})"));
}

TEST(Json, NamesItsKinds) {
  const Json all = *parse_json(R"([null, true, 1, 1.5, "s", [], {}])");
  std::string names;
  for (const Json& value : all.as_array()) names += str(value.kind_name(), " ");
  EXPECT_EQ(names, "null boolean integer number string array object ");
}

TEST(Json, ReadErrorsBeginWithThePath) {
  const testing::TempDir dir;
  std::ofstream(dir / "bad.json") << "{\"a\": 1, \"a\": 2}";
  Result<Json> json = read_json(dir / "bad.json");
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().message, str(dir / "bad.json", ": byte 9: duplicate key \"a\""));
  json = read_json(dir / "none.json");
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().message, str(dir / "none.json", ": cannot open: No such file or directory"));
  EXPECT_EQ(json.error().code, Errc::kNotFound);
  json = read_json(dir / "bad.json", {.max_bytes = 5});
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().message, str(dir / "bad.json", ": expected at most 5 bytes, found 16"));
}

TEST(JsonDeathTest, TheWrongKindIsABug) {
  EXPECT_DEATH((void)Json(1).as_string(), "a string wanted, this is: integer");
  EXPECT_DEATH((void)Json("s").as_double(), "a number wanted, this is: string");
}

// The shape of a large tokenizer.json: a vocabulary object of 128k members and as many merges. Linear work takes well
// under a second even with sanitizers on a busy machine; comparing all pairs of keys would take minutes.
TEST(Json, ALargeVocabularyIsNotQuadratic) {
  std::string text = "{\"vocab\":{";
  for (int i = 0; i < 128000; ++i) text += str(i == 0 ? "" : ",", "\"token number ", i, "\":", i);
  text += "},\"merges\":[";
  for (int i = 0; i < 128000; ++i) text += str(i == 0 ? "" : ",", "\"to ken ", i, "\"");
  text += "]}";
  const auto begin = std::chrono::steady_clock::now();
  const Result<Json> json = parse_json(text);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  ASSERT_TRUE(json) << json.error().message;
  EXPECT_EQ(json->find("vocab")->as_object().size(), 128000u);
  EXPECT_EQ(json->find("merges")->as_array().back().as_string(), "to ken 127999");
  EXPECT_LT(seconds, 10.0);
  RecordProperty("milliseconds", static_cast<int>(seconds * 1e3));
}

}  // namespace
}  // namespace lathe
