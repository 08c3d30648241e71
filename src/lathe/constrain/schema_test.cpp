// What the grammar of a schema accepts, keyword by keyword, and which schemas are refused with which words.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/grammar.h"

namespace lathe {
namespace {

using test::accepts;
using test::accepts_beginning;
using test::compile;

struct Case {
  const char* name;
  const char* schema;
  std::vector<const char*> valid;
  std::vector<const char*> invalid;
};

class SchemaKeywords : public testing::TestWithParam<Case> {};

TEST_P(SchemaKeywords, AcceptWhatTheyDescribe) {
  const Case& c = GetParam();
  const std::shared_ptr<const Grammar> grammar = compile(c.schema);
  for (const char* text : c.valid) EXPECT_TRUE(accepts(*grammar, text)) << c.schema << "\n" << text;
  for (const char* text : c.invalid) EXPECT_FALSE(accepts(*grammar, text)) << c.schema << "\n" << text;
}

const std::vector<Case> kValues = {
    {"null", R"({"type":"null"})", {"null", " null", "\nnull"}, {"nul", "nulll", "null ", "true", ""}},
    {"boolean", R"({"type":"boolean"})", {"true", "false"}, {"True", "tru", "0"}},
    {"integer",
     R"({"type":"integer"})",
     {"0", "7", "-12", "123456789012345678"},
     {"-", "01", "1.0", "1e3", "-0", "1234567890123456789"}},
    {"number", R"({"type":"number"})", {"0", "-1", "1.5", "1e9", "-2.5E-3", "0.125"}, {".5", "1.", "1e", "00", "+1"}},
    {"string",
     R"({"type":"string"})",
     {R"("")", R"("a b")", R"("\n\"\\")", R"("\u00e9")", R"("\ud83d\ude00")", "\"\xC3\xA9\"", "\"\xF0\x9F\x98\x80\""},
     {R"(")", R"("a)", "\"\n\"", R"("\x")", R"("\ud83d")", R"("\ude00")", "\"\xC3\"", "\"\xED\xA0\x80\"", "\"\xFF\""}},
    {"types", R"({"type":["string","null"]})", {"null", R"("a")"}, {"1", "true"}},
    {"anything", "{}", {"1", "null", R"({"a":[1,{"b":"c"}]})", "[[],{}]"}, {"{a:1}", "[1,]", "{,}"}},
    {"true", "true", {"[true]", "0"}, {""}},
    {"enum",
     R"({"enum":["red","green","grey",7,null,[1,2],{"k":true}]})",
     {R"("red")", R"("grey")", "7", "null", "[1,2]", R"({"k":true})"},
     {R"("gre")", R"("blue")", "8", "[1]", "[1, 2]"}},
    {"enum_of_a_type", R"({"type":"string","enum":["a",1]})", {R"("a")"}, {"1"}},
    {"const", R"({"const":{"a":[null,1.5]}})", {R"({"a":[null,1.5]})"}, {R"({"a":[]})", "1.5"}},
    {"const_of_an_enum", R"({"enum":[1,2,3],"const":2.0})", {"2"}, {"1", "3"}},
    {"enum_with_limits",
     R"({"enum":["a","bbb",1,5,"cc"],"minLength":2,"maximum":3,"pattern":"^b|c"})",
     {R"("bbb")", R"("cc")", "1"},
     {R"("a")", "5"}},
    {"min_length",
     R"({"type":"string","minLength":2,"maxLength":3})",
     {R"("ab")", R"("abc")", "\"\xC3\xA9\xF0\x9F\x98\x80\"", R"("\ud83d\ude00a")", R"("\n\n")"},
     {R"("")", R"("a")", R"("abcd")", "\"\xC3\xA9\""}},
    {"pattern",
     R"({"type":"string","pattern":"^[a-c]+\\d?$"})",
     {R"("abc")", R"("a1")"},
     {R"("")", R"("d")", R"("a12")", R"("1")"}},
    {"pattern_anywhere", R"({"type":"string","pattern":"b"})", {R"("b")", R"("abc")"}, {R"("")", R"("ac")"}},
    {"pattern_that_needs_escapes",
     R"({"type":"string","pattern":"^[\"\\\\\n]$"})",
     {R"("\"")", R"("\\")", R"("\n")"},
     {R"(""")", "\"\n\"", R"("n")"}},
    {"pattern_and_length",
     R"({"type":"string","pattern":"^a*$","minLength":2,"maxLength":3})",
     {R"("aa")", R"("aaa")"},
     {R"("a")", R"("aaaa")", R"("ab")"}},
    {"two_patterns",
     R"({"type":"string","allOf":[{"pattern":"^a"},{"pattern":"z$"}]})",
     {R"("az")", R"("abz")"},
     {R"("a")", R"("z")"}},
    {"date",
     R"({"type":"string","format":"date"})",
     {R"("2024-02-28")", R"("1999-12-31")"},
     {R"("2024-02-30")", R"("2024-13-01")", R"("2024-2-1")"}},
    {"date_time",
     R"({"type":"string","format":"date-time"})",
     {R"("2024-02-28T23:59:59Z")", R"("2024-02-28T00:00:00.123+01:00")"},
     {R"("2024-02-28")", R"("2024-02-28T24:00:00Z")"}},
    {"time", R"({"type":"string","format":"time"})", {R"("12:00:00Z")"}, {R"("12:00")", R"("25:00:00Z")"}},
    {"uuid",
     R"({"type":"string","format":"uuid"})",
     {R"("123e4567-e89b-12d3-a456-426614174000")"},
     {R"("123e4567e89b12d3a456426614174000")"}},
    {"email", R"({"type":"string","format":"email"})", {R"("a.b@c.org")"}, {R"("a")", R"("@c.org")", R"("a@b")"}},
    {"ipv4", R"({"type":"string","format":"ipv4"})", {R"("127.0.0.1")"}, {R"("256.0.0.1")", R"("1.2.3")"}},
    {"format_that_is_an_annotation", R"({"type":"string","format":"hostname"})", {R"("!")"}, {"1"}},
};

const std::vector<Case> kNumbers = {
    {"minimum", R"({"type":"integer","minimum":-3})", {"-3", "-1", "0", "99"}, {"-4", "-10", "-3.0"}},
    {"maximum", R"({"type":"integer","maximum":12})", {"12", "9", "0", "-500"}, {"13", "20", "100"}},
    {"between",
     R"({"type":"integer","minimum":95,"maximum":1005})",
     {"95", "99", "100", "999", "1005"},
     {"94", "9", "1006", "2000"}},
    {"exclusive", R"({"type":"integer","exclusiveMinimum":1,"exclusiveMaximum":4})", {"2", "3"}, {"1", "4"}},
    {"negative",
     R"({"type":"integer","minimum":-20,"maximum":-5})",
     {"-20", "-5", "-11"},
     {"-4", "-21", "5", "0", "-0"}},
    {"fraction",
     R"({"type":"number","minimum":0.5,"maximum":2})",
     {"0.5", "0.75", "1", "1.999", "2", "2.0"},
     {"0.4", "0", "2.1", "2.0001", "0.49", "-1"}},
    {"exclusive_fraction",
     R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1})",
     {"0.1", "0.99", "0.001"},
     {"0", "0.0", "1", "1.0", "0.00"}},
    {"integer_within_fractions", R"({"type":"integer","minimum":0.5,"maximum":2.5})", {"1", "2"}, {"0", "3"}},
    {"multiple", R"({"type":"integer","multipleOf":7})", {"0", "7", "-14", "700"}, {"1", "8", "-15"}},
    {"multiple_and_bounds",
     R"({"type":"integer","multipleOf":5,"minimum":12,"maximum":31})",
     {"15", "20", "30"},
     {"10", "12", "31", "35"}},
    {"two_multiples", R"({"type":"integer","multipleOf":2,"allOf":[{"multipleOf":3}]})", {"6", "12"}, {"2", "3"}},
    {"tightest", R"({"minimum":1,"allOf":[{"minimum":3},{"exclusiveMinimum":3}],"type":"integer"})", {"4"}, {"3", "1"}},
};

const std::vector<Case> kArrays = {
    {"items",
     R"({"type":"array","items":{"type":"integer"}})",
     {"[]", "[1]", "[1, 2]", "[ 1,2 ]", "[\n  1\n]"},
     {"[1,]", "[true]", "[1 2]", "["}},
    {"min_items", R"({"type":"array","items":{"const":1},"minItems":2})", {"[1,1]", "[1,1,1]"}, {"[]", "[1]"}},
    {"max_items", R"({"type":"array","items":{"const":1},"maxItems":2})", {"[]", "[1,1]"}, {"[1,1,1]"}},
    {"exact_items",
     R"({"type":"array","items":{"const":1},"minItems":3,"maxItems":3})",
     {"[1,1,1]"},
     {"[1,1]", "[1,1,1,1]"}},
    {"no_items", R"({"type":"array","maxItems":0})", {"[]", "[ ]"}, {"[1]"}},
    {"items_false", R"({"type":"array","items":false})", {"[]"}, {"[1]"}},
    {"prefix_items",
     R"({"type":"array","prefixItems":[{"type":"string"},{"type":"integer"}],"items":{"type":"null"}})",
     {"[]", R"(["a"])", R"(["a",1])", R"(["a",1,null,null])"},
     {"[1]", R"(["a",null])", R"(["a",1,2])"}},
    {"closed_prefix",
     R"({"type":"array","prefixItems":[{"const":1},{"const":2}],"items":false,"minItems":2})",
     {"[1,2]"},
     {"[1]", "[1,2,3]", "[2,1]"}},
    {"counted_behind_a_prefix",
     R"({"type":"array","prefixItems":[{"const":0}],"items":{"const":1},"minItems":2,"maxItems":3})",
     {"[0,1]", "[0,1,1]"},
     {"[0]", "[0,1,1,1]", "[1,1]"}},
    {"nested",
     R"({"type":"array","items":{"type":"array","items":{"const":1},"maxItems":1}})",
     {"[[],[1]]"},
     {"[1]", "[[1,1]]"}},
    {"unique_where_it_says_nothing", R"({"type":"array","maxItems":1,"uniqueItems":true})", {"[1]"}, {"[1,2]"}},
};

const std::vector<Case> kObjects = {
    {"properties",
     R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"boolean"}},"required":["a"]})",
     {R"({"a":1})", R"({"a": 1, "b": true})", "{\n  \"a\": 1\n}"},
     {"{}", R"({"b":true})", R"({"b":true,"a":1})", R"({"a":1,"a":2})", R"({"a":true})", R"({"a":1,})"}},
    {"optional",
     R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"required":["b"]})",
     {R"({"b":2})", R"({"a":1,"b":2})", R"({"b":2,"c":3})", R"({"a":1,"b":2,"c":3})"},
     {R"({"a":1})", R"({"c":3})", R"({"a":1,"c":3})", R"({"c":3,"b":2})"}},
    {"all_optional",
     R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2}},"additionalProperties":false})",
     {"{}", "{ }", R"({"a":1})", R"({"b":2})", R"({"a":1,"b":2})"},
     {R"({"c":1})", "{,}", R"({"a":1 "b":2})"}},
    {"required_without_a_schema", R"({"type":"object","required":["x"]})", {R"({"x":[1]})"}, {"{}", R"({"y":1})"}},
    {"additional",
     R"({"type":"object","properties":{"a":{"const":1}},"additionalProperties":{"type":"integer"}})",
     {"{}", R"({"a":1,"b":2})", R"({"zz":5,"y":6})", R"({"":0})", R"({"ab":7})"},
     {R"({"b":"x"})", R"({"b":2,"b":3})", R"({"b":2,"a":1})", R"({"a":2})"}},
    {"map",
     R"({"type":"object","additionalProperties":{"type":"boolean"}})",
     {"{}", R"({"x":true,"y":false})"},
     {R"({"x":true,"x":true})", R"({"x":1})"}},
    {"free_object", R"({"type":"object"})", {"{}", R"({"a":{"b":null}})"}, {R"({"a":1,"a":1})", "[]", "{1:2}"}},
    {"keys_have_one_spelling", R"({"type":"object"})", {R"({"\n":1})"}, {R"({"\u000a":1})", R"({"\u0061":1})"}},
    {"min_properties",
     R"({"type":"object","additionalProperties":{"const":1},"minProperties":2,"maxProperties":3})",
     {R"({"a":1,"b":1})", R"({"a":1,"b":1,"c":1})"},
     {"{}", R"({"a":1})", R"({"a":1,"b":1,"c":1,"d":1})"}},
    {"no_properties", R"({"type":"object","maxProperties":0})", {"{}"}, {R"({"a":1})"}},
    {"pattern_properties",
     R"({"type":"object","patternProperties":{"^s":{"type":"string"},"^i":{"type":"integer"}},"additionalProperties":false})",
     {"{}", R"({"s1":"x","i":1})", R"({"i":1,"s":""})"},
     {R"({"s":1})", R"({"x":1})", R"({"s":"","s":""})"}},
    {"pattern_and_others",
     R"({"type":"object","patternProperties":{"^n":{"type":"null"}},"additionalProperties":{"type":"integer"}})",
     {R"({"n":null,"a":1})"},
     {R"({"n":1})", R"({"a":null})"}},
    {"pattern_and_name",
     R"({"type":"object","properties":{"n1":{"type":["integer","null"]}},"patternProperties":{"^n":{"type":"null"}}})",
     {R"({"n1":null})", R"({"n2":null})"},
     {R"({"n1":1})"}},
    {"escaped_key",
     R"({"type":"object","properties":{"a\"b\n":{"const":1}},"required":["a\"b\n"]})",
     {R"({"a\"b\n":1})"},
     {"{}"}},
};

const std::vector<Case> kCombinations = {
    {"any_of",
     R"({"anyOf":[{"type":"integer"},{"type":"string","maxLength":1},{"const":null}]})",
     {"1", R"("a")", "null"},
     {R"("ab")", "true"}},
    {"any_of_objects",
     R"({"anyOf":[{"type":"object","properties":{"k":{"const":"a"},"x":{"type":"integer"}},"required":["k","x"]},
                  {"type":"object","properties":{"k":{"const":"ab"},"y":{"type":"boolean"}},"required":["k","y"]}]})",
     {R"({"k":"a","x":1})", R"({"k":"ab","y":true})"},
     {R"({"k":"a","y":true})", R"({"k":"ab","x":1})"}},
    {"one_of", R"({"oneOf":[{"type":"integer"},{"type":"string"}]})", {"1", R"("a")"}, {"1.5"}},
    {"one_of_by_a_member",
     R"({"oneOf":[{"type":"object","properties":{"t":{"const":1}},"required":["t"]},
                  {"type":"object","properties":{"t":{"const":2}},"required":["t"]}]})",
     {R"({"t":1})", R"({"t":2})"},
     {R"({"t":3})", "{}"}},
    {"all_of",
     R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},
                  {"type":"object","properties":{"b":{"type":"null"}},"required":["b"]},
                  {"properties":{"a":{"minimum":5}}}]})",
     {R"({"a":5,"b":null})"},
     {R"({"a":4,"b":null})", R"({"a":5})", R"({"b":null})"}},
    {"any_of_beside_keywords",
     R"({"type":"integer","anyOf":[{"maximum":3},{"minimum":10}]})",
     {"3", "10", "-5"},
     {"4", "9"}},
    {"any_of_twice",
     R"({"type":"integer","anyOf":[{"maximum":3},{"minimum":10}],"allOf":[{"anyOf":[{"minimum":0},{"maximum":-9}]}]})",
     {"0", "-9", "12"},
     {"-1", "5"}},
    {"ref",
     R"({"type":"array","items":{"$ref":"#/$defs/n"},"$defs":{"n":{"type":"integer","minimum":3}}})",
     {"[3]"},
     {"[2]"}},
    {"ref_beside_keywords",
     R"({"$ref":"#/$defs/n","maximum":4,"$defs":{"n":{"type":"integer","minimum":3}}})",
     {"3", "4"},
     {"5", "2"}},
    {"ref_with_escapes", R"({"$ref":"#/$defs/a~1b%25","$defs":{"a/b%":{"const":1}}})", {"1"}, {"2"}},
    {"ref_into_an_array",
     R"({"anyOf":[{"type":"null"},{"type":"array","items":{"$ref":"#/anyOf/0"}}]})",
     {"null", "[null]"},
     {"[[]]"}},
    {"recursion",
     R"({"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"type":"null"},{"$ref":"#"}]}},"required":["v","next"]})",
     {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":null}})"},
     {R"({"v":1})", R"({"v":1,"next":{}})"}},
    {"recursive_list", R"({"type":"array","items":{"$ref":"#"}})", {"[]", "[[],[[]]]"}, {"[1]"}},
    {"annotations",
     R"({"$schema":"x","title":"t","description":"d","default":1,"examples":[1],"$comment":"c","deprecated":true,"type":"null"})",
     {"null"},
     {"1"}},
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Values, SchemaKeywords, testing::ValuesIn(kValues), name_of);
INSTANTIATE_TEST_SUITE_P(Numbers, SchemaKeywords, testing::ValuesIn(kNumbers), name_of);
INSTANTIATE_TEST_SUITE_P(Arrays, SchemaKeywords, testing::ValuesIn(kArrays), name_of);
INSTANTIATE_TEST_SUITE_P(Objects, SchemaKeywords, testing::ValuesIn(kObjects), name_of);
INSTANTIATE_TEST_SUITE_P(Combinations, SchemaKeywords, testing::ValuesIn(kCombinations), name_of);

TEST(Schema, JsonObjectsAreAnyObjectAndNothingElse) {
  const std::shared_ptr<const Grammar> grammar = compile(R"({"type":"object"})");
  EXPECT_TRUE(accepts(*grammar, R"({"a": [1, 2.5e3, {"b": null}], "c": "d"})"));
  for (const char* text : {"[]", "1", R"("a")", "null", R"({"a":1,"a":2})"})
    EXPECT_FALSE(accepts(*grammar, text)) << text;
}

TEST(Schema, WhiteSpaceIsBounded) {
  const std::shared_ptr<const Grammar> grammar = compile(R"({"type":"array","items":{"const":1}})");
  EXPECT_TRUE(accepts(*grammar, "[\n" + std::string(20, ' ') + "1]"));
  EXPECT_FALSE(accepts_beginning(*grammar, "[\n" + std::string(21, ' ')));
  EXPECT_FALSE(accepts_beginning(*grammar, "[\n\n\n"));
  EXPECT_FALSE(accepts_beginning(*grammar, "[  "));
}

TEST(Schema, NestingEndsWhereTheLimitIs) {
  const std::shared_ptr<const Grammar> grammar = compile(R"({"type":"array","items":{"$ref":"#"}})");
  EXPECT_TRUE(accepts(*grammar, std::string(32, '[') + std::string(32, ']')));
  EXPECT_FALSE(accepts_beginning(*grammar, std::string(33, '[')));
}

// Members of allOf are written in the document's order, wherever their schemas lie in memory.
TEST(Schema, MembersComeInTheOrderOfTheDocument) {
  const char* schema = R"({"allOf":[{"$ref":"#/$defs/b"},{"properties":{"z":{"const":1}},"required":["z"]}],
    "properties":{"m":{"const":1}},"required":["m"],"type":"object",
    "$defs":{"b":{"properties":{"a":{"const":1}},"required":["a"]}}})";
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(accepts(*compile(schema), R"({"m":1,"z":1,"a":1})"));
}

struct Refusal {
  const char* schema;
  Errc code;
  const char* message;  // how it begins
};

TEST(Schema, RefusalsNameThePlaceAndTheReason) {
  const std::vector<Refusal> refusals = {
      {R"({"properties":{"a":{"not":{}}}})", Errc::kUnsupported, "#/properties/a/not: this keyword is not supported"},
      {R"({"if":{},"then":{}})", Errc::kUnsupported, "#/if: this keyword is not supported"},
      {R"({"items":{"contains":{}}})", Errc::kUnsupported, "#/items/contains: this keyword is not supported"},
      {R"({"$defs":{"a/b":{"propertyNames":{}}},"$ref":"#/$defs/a~1b"})",
       Errc::kUnsupported,
       "#/$defs/a~1b/propertyNames: this keyword is not supported"},
      {R"({"dependentRequired":{}})", Errc::kUnsupported, "#/dependentRequired: "},
      {R"({"unevaluatedProperties":false})", Errc::kUnsupported, "#/unevaluatedProperties: "},
      {R"({"$dynamicRef":"#a"})", Errc::kUnsupported, "#/$dynamicRef: "},
      {R"({"type":"array","uniqueItems":true})", Errc::kUnsupported, "#/uniqueItems: not supported where"},
      {R"({"$ref":"http://x/y"})", Errc::kUnsupported, "#/$ref: expected a pointer into this schema"},
      {R"({"$ref":"#/$defs/a"})", Errc::kInvalidArgument, "#/$ref: nothing is at \"#/$defs/a\""},
      {R"({"$ref":"#"})", Errc::kInvalidArgument, "#/$ref: the reference leads to itself"},
      {R"({"anyOf":[{"$ref":"#"}]})", Errc::kInvalidArgument, "#/anyOf/0/$ref: the reference leads to itself"},
      {R"({"type":"str"})", Errc::kInvalidArgument, "#/type: expected a type's name"},
      {R"({"type":[]})", Errc::kInvalidArgument, "#: expected a schema that some value"},
      {R"({"items":{"minItems":-1},"type":"array"})",
       Errc::kInvalidArgument,
       "#/items/minItems: expected a non-negative integer"},
      {R"({"maxLength":1.5})", Errc::kInvalidArgument, "#/maxLength: expected a non-negative integer"},
      {R"({"properties":[]})", Errc::kInvalidArgument, "#/properties: expected an object, found array"},
      {R"({"required":[1]})", Errc::kInvalidArgument, "#/required: expected strings"},
      {R"({"required":"a"})", Errc::kInvalidArgument, "#/required: expected an array, found string"},
      {R"({"enum":{}})", Errc::kInvalidArgument, "#/enum: expected an array, found object"},
      {R"({"anyOf":[]})", Errc::kInvalidArgument, "#/anyOf: expected at least one schema"},
      {R"({"allOf":[3]})", Errc::kInvalidArgument, "#/allOf/0: expected a schema, found integer"},
      {R"({"properties":{"a":3}})", Errc::kInvalidArgument, "#/properties/a: expected a schema, found integer"},
      {R"({"minimum":"1","type":"integer"})", Errc::kInvalidArgument, "#/minimum: expected a number, found string"},
      {R"({"multipleOf":0,"type":"integer"})", Errc::kInvalidArgument, "#/multipleOf: expected a positive number"},
      {R"({"multipleOf":0.1,"type":"number"})",
       Errc::kUnsupported,
       "#/multipleOf: expected an integer up to 1000, found 0.1"},
      {R"({"pattern":5})", Errc::kInvalidArgument, "#/pattern: expected a string"},
      {R"x({"pattern":"(?=a)"})x", Errc::kUnsupported, "#/pattern: pattern \"(?=a)\": byte 0: look-around"},
      {R"({"pattern":"(a)\\1"})", Errc::kUnsupported, "#/pattern: pattern \"(a)\\\\1\": byte 3: escape"},
      {R"({"patternProperties":{"^a$":{}}})", Errc::kUnsupported, "#/patternProperties: patterns that leave a limited"},
      {R"({"properties":{"a":{}},"additionalProperties":{},"minProperties":2})",
       Errc::kUnsupported,
       "#/minProperties: not supported beside properties"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})",
       Errc::kUnsupported,
       "#/oneOf: branches 0 and 1 are not seen to exclude"},
      {R"({"const":{"a":1},"required":["b"]})", Errc::kUnsupported, "#: an object or array in const or enum"},
      {R"({"type":"integer","minimum":5,"maximum":4})", Errc::kInvalidArgument, "#: expected a schema that some value"},
      {R"({"type":"string","pattern":"^a$","minLength":2})",
       Errc::kInvalidArgument,
       "#: expected a schema that some value"},
      {R"({"type":"object","properties":{"a":false},"required":["a"]})",
       Errc::kInvalidArgument,
       "#: expected a schema that some value"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
       Errc::kInvalidArgument,
       "#: expected a schema that some value"},
      {"false", Errc::kInvalidArgument, "#: expected a schema that some value"},
      {"3", Errc::kInvalidArgument, "#: expected a schema, found integer"},
      {R"({"properties":{"a":{"$id":"x","type":"null"}}})",
       Errc::kUnsupported,
       "#/properties/a/$id: a schema within a schema"},
  };
  for (const Refusal& refusal : refusals) {
    const auto grammar = compile_json_schema(test::json(refusal.schema));
    ASSERT_FALSE(grammar) << refusal.schema;
    EXPECT_EQ(grammar.error().code, refusal.code) << refusal.schema;
    EXPECT_TRUE(grammar.error().message.starts_with(refusal.message)) << refusal.schema << "\n"
                                                                      << grammar.error().message;
  }
}

}  // namespace
}  // namespace lathe
