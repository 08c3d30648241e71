// Schemas made to hurt: each is refused with one clear line, or compiled, within a fraction of a second.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "lathe/base/str.h"
#include "support/grammar.h"

namespace lathe {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string repeated(std::string_view text, int64_t times, std::string_view separator = ",") {
  std::string out;
  for (int64_t i = 0; i < times; ++i) out += str(i > 0 ? separator : "", text);
  return out;
}

// `make(i)` for each i, joined by commas.
template <class Make>
std::string list(int64_t count, const Make& make) {
  std::string out;
  for (int64_t i = 0; i < count; ++i) out += str(i > 0 ? "," : "", make(i));
  return out;
}

struct Bomb {
  std::string name;
  std::string schema;
  std::string message;  // how the refusal begins; empty: it compiles
};

std::vector<Bomb> bombs() {
  std::vector<Bomb> out;
  // References that double at each level: 2^30 alternatives, of one value and of many.
  out.push_back({"doubling_choice",
                 str(R"({"$ref":"#/$defs/d0","$defs":{)",
                     list(30,
                          [](int64_t i) {
                            return str("\"d",
                                       i,
                                       R"(":{"anyOf":[{"$ref":"#/$defs/d)",
                                       i + 1,
                                       R"("},{"allOf":[{"$ref":"#/$defs/d)",
                                       i + 1,
                                       R"("},{"minimum":)",
                                       i,
                                       "}]}]}");
                          }),
                     R"(,"d30":{"type":"integer"}}})"),
                 "#"});
  out.push_back({"doubling_values",
                 str(R"({"$ref":"#/$defs/d0","$defs":{)",
                     list(40,
                          [](int64_t i) {
                            return str("\"d",
                                       i,
                                       R"(":{"type":"array","prefixItems":[{"$ref":"#/$defs/d)",
                                       i + 1,
                                       R"("},{"$ref":"#/$defs/d)",
                                       i + 1,
                                       R"("}]})");
                          }),
                     R"(,"d40":{"type":"integer"}}})"),
                 ""});
  out.push_back(
      {"product_of_choices",
       str(R"({"type":"integer","allOf":[)",
           list(12,
                [](int64_t i) {
                  return str(
                      R"({"anyOf":[{"minimum":)", i, R"(},{"maximum":)", 100 + i, R"(},{"multipleOf":)", i + 1, "}]}");
                }),
           "]}"),
       "#"});
  out.push_back({"long_all_of",
                 str(R"({"allOf":[)", list(20'000, [](int64_t i) { return str(R"({"minimum":)", i, "}"); }), "]}"),
                 "#: expected at most 64 schemas for one value, found more"});
  out.push_back({"many_alternatives",
                 str(R"({"anyOf":[)", list(5000, [](int64_t i) { return str(R"({"const":)", i, "}"); }), "]}"),
                 "#/anyOf: expected at most 256 alternatives for one value, found more"});
  out.push_back({"many_branches",
                 str(R"({"type":"array","prefixItems":[)",
                     list(20,
                          [](int64_t i) {
                            return str(R"({"anyOf":[)",
                                       list(200, [&](int64_t k) { return str(R"({"const":)", i * 1000 + k, "}"); }),
                                       "]}");
                          }),
                     "]}"),
                 "#/prefixItems/"});
  out.push_back({"huge_enum",
                 str(R"({"enum":[)", list(60'000, [](int64_t i) { return str("\"value ", i * 7919, "\""); }), "]}"),
                 "#: const and enum values: expected at most 262144 bytes"});
  out.push_back({"large_enum",
                 str(R"({"enum":[)", list(10'000, [](int64_t i) { return str("\"value ", i * 7919, "\""); }), "]}"),
                 ""});
  out.push_back({"too_many_values",
                 str(R"({"enum":[)", repeated("1", 200'000), "]}"),
                 "#: expected at most 100000 values in the schema, found more"});
  out.push_back({"enums_against_each_other",
                 str(R"({"enum":[)",
                     list(40'000, [](int64_t i) { return str(i); }),
                     R"(],"allOf":[{"enum":[)",
                     list(40'000, [](int64_t i) { return str(i + 40'000); }),
                     "]}]}"),
                 "#: the schema is too complex"});
  out.push_back({"many_optional_properties",
                 str(R"({"type":"object","properties":{)",
                     list(5000, [](int64_t i) { return str("\"p", i, R"(":{"type":"null"})"); }),
                     "}}"),
                 "#: "});
  out.push_back({"optional_properties",
                 str(R"({"type":"object","properties":{)",
                     list(600, [](int64_t i) { return str("\"p", i, R"(":{"type":"null"})"); }),
                     "}}"),
                 ""});
  out.push_back({"required_properties",
                 str(R"({"type":"object","properties":{)",
                     list(1500, [](int64_t i) { return str("\"p", i, R"(":{"type":"integer"})"); }),
                     R"(},"required":[)",
                     list(1500, [](int64_t i) { return str("\"p", i, "\""); }),
                     "]}"),
                 ""});
  out.push_back({"long_key",
                 str(R"({"type":"object","properties":{")", std::string(1 << 20, 'k'), R"(":{}},"required":[]})"),
                 "#: "});
  out.push_back({"deep_schema", repeated(R"({"items":)", 30, "") + "{}" + repeated("}", 30, ""), ""});
  out.push_back({"deep_required",
                 repeated(R"({"type":"array","minItems":1,"items":)", 33, "") + "{}" + repeated("}", 33, ""),
                 "#: expected a schema that some value nested at most 32 deep satisfies"});
  out.push_back({"chain_of_references",
                 str(R"({"$ref":"#/$defs/d0","$defs":{)",
                     list(200, [](int64_t i) { return str("\"d", i, R"(":{"$ref":"#/$defs/d)", i + 1, R"("})"); }),
                     R"(,"d200":{}}})"),
                 "#/$defs/d64: nested deeper than 64"});
  out.push_back({"many_references_to_a_large_list",
                 str(R"({"type":"array","prefixItems":[)",
                     repeated(R"({"$ref":"#/$defs/d19999"})", 20'000),
                     R"(],"$defs":{)",
                     list(20'000, [](int64_t i) { return str("\"d", i, R"(":{"type":"null"})"); }),
                     "}}"),
                 "#"});
  out.push_back({"one_of_pairs",
                 str(R"({"oneOf":[)",
                     list(250,
                          [](int64_t i) {
                            return str(R"({"enum":[)", list(80, [&](int64_t k) { return str(i * 80 + k); }), "]}");
                          }),
                     "]}"),
                 "#: the schema is too complex"});
  out.push_back({"exponential_pattern",
                 R"x({"type":"string","pattern":"(a|b)*a(a|b){20}$"})x",
                 "#/pattern: pattern \"(a|b)*a(a|b){20}$\": needs an automaton of more than"});
  out.push_back(
      {"nested_repetitions", R"({"type":"string","pattern":"^(((a{100}){100}){100}){100}$"})", "#/pattern: pattern"});
  out.push_back({"empty_repetitions",
                 R"x({"type":"string","pattern":"((((((a*)*)*){1000}){1000}){1000})"})x",
                 "#/pattern: pattern"});
  out.push_back(
      {"long_pattern", str(R"({"type":"string","pattern":")", std::string(5000, 'a'), "\"}"), "#/pattern: pattern"});
  out.push_back({"wide_classes",
                 str(R"({"type":"string","pattern":")", repeated("\\\\W", 1300, ""), "\"}"),
                 "#/pattern: pattern"});
  out.push_back(
      {"many_patterns",
       str(R"({"type":"array","prefixItems":[)",
           list(2000,
                [](int64_t i) { return str(R"x({"type":"string","pattern":"(a|b)*a(a|b){9}c{)x", i % 1000, "}\"}"); }),
           "]}"),
       "#/prefixItems/"});
  out.push_back({"length_of_a_pattern",
                 R"({"type":"string","pattern":"^[a-z ]*$","maxLength":100000})",
                 "#/pattern: with minLength or maxLength"});
  out.push_back(
      {"large_counts",
       R"({"type":"array","items":{"type":"string","minLength":1000000,"maxLength":2000000},"maxItems":1000000})",
       ""});
  out.push_back({"long_prefix",
                 str(R"({"type":"array","prefixItems":[)",
                     list(20'000, [](int64_t i) { return str(R"({"const":)", i, "}"); }),
                     "]}"),
                 "#: expected at most 10000 subschemas"});
  out.push_back({"multiples",
                 str(R"({"type":"array","prefixItems":[)",
                     list(100, [](int64_t i) { return str(R"({"type":"integer","multipleOf":)", 900 + i, "}"); }),
                     "]}"),
                 "#"});
  return out;
}

TEST(SchemaLimits, NothingTakesLong) {
  for (const Bomb& bomb : bombs()) {
    SCOPED_TRACE(bomb.name);
    const Result<Json> schema = parse_json(bomb.schema);
    ASSERT_TRUE(schema) << schema.error().message;
    const auto start = std::chrono::steady_clock::now();
    const auto grammar = compile_json_schema(*schema);
    const double seconds = seconds_since(start);
    RecordProperty(bomb.name, str(seconds * 1e3, " ms"));
    std::printf("%-32s %8.1f ms  %s\n",
                bomb.name.c_str(),
                seconds * 1e3,
                grammar ? "compiles" : grammar.error().message.c_str());
    EXPECT_LT(seconds, 10.0);  // what does not end would take hours; usual are milliseconds, with sanitizers a second
    if (bomb.message.empty()) {
      EXPECT_TRUE(grammar) << grammar.error().message;
      continue;
    }
    ASSERT_FALSE(grammar);
    EXPECT_TRUE(grammar.error().message.starts_with(bomb.message)) << grammar.error().message;
    EXPECT_LT(grammar.error().message.size(), 600u);
  }
}

}  // namespace
}  // namespace lathe
