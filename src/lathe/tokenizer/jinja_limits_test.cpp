// What hostile templates may cost: every case ends in an error, soon and in little memory.
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "lathe/tokenizer/chat_template.h"

namespace lathe {
namespace {

std::string repeat(std::string_view text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

// The error's text; fails when the template renders or takes unreasonably long (sanitizer builds included).
std::string refusal(std::string_view source,
                    const TemplateLimits& limits = {},
                    const Json& variables = Json::object()) {
  const auto begin = std::chrono::steady_clock::now();
  Result<ChatTemplate> compiled = ChatTemplate::compile(source, limits);
  std::string message;
  if (!compiled.has_value()) {
    message = compiled.error().message;
  } else {
    const Result<std::string> result = compiled->render(variables);
    message = result.has_value() ? "rendered " + std::to_string(result->size()) + " bytes" : result.error().message;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20)) << source.substr(0, 200);
  return message;
}

constexpr const char* kSteps = "line 1: template takes more than 1000000 steps";
constexpr const char* kBytes = "line 1: template handles more than 67108864 bytes of strings";
constexpr const char* kNesting = "line 1: the template nests deeper than 64";

TEST(JinjaLimits, Steps) {
  EXPECT_EQ(refusal("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"), kSteps);
  EXPECT_EQ(refusal("{% for a in range(100000) %}{% set x = [1, 2, 3, 4, 5, 6, 7, 8] * 4 %}{% endfor %}"), kSteps);
  EXPECT_EQ(refusal("{{ [0] * 1000000000 }}"), kSteps);
  EXPECT_EQ(refusal("{% set x = range(100000) | list %}{% for a in x %}{{ a in x }}{% endfor %}"), kSteps);
  EXPECT_EQ(refusal("{% set x = range(100000) | list %}{{ (x + x + x + x) | sort == x | unique | list }}"), kSteps);
  EXPECT_EQ(refusal("{{ range(100001) }}"), "line 1: range: more than 100000 numbers");
  EXPECT_EQ(refusal("{{ 1 + 1 }}", {.max_steps = 2}), "line 1: template takes more than 2 steps");
}

TEST(JinjaLimits, Strings) {
  EXPECT_EQ(refusal("{{ 'a' * 1000000000 }}"), kBytes);
  EXPECT_EQ(refusal("{{ 'aa' * 9223372036854775807 }}"), kBytes);
  EXPECT_EQ(refusal("{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}"),
            kBytes);
  EXPECT_EQ(refusal("{% set s = 'a' * 100000 %}{{ s.replace('a', s) }}"), kBytes);
  EXPECT_EQ(refusal("{% set s = 'a' * 1000000 %}{{ ([s] * 1000) | join }}"), kBytes);
  EXPECT_EQ(refusal("{% set s = 'a' * 1000000 %}{{ ([s] * 1000) | tojson }}"), kBytes);
  EXPECT_EQ(refusal("{% set s = '\\n' * 100000 %}{{ s | indent(1000, blank=true) }}"), kBytes);
  // Searches that a naive algorithm makes quadratic.
  EXPECT_EQ(refusal("{% set s = 'a' * 2000000 %}{% set t = 'a' * 1000000 + 'b' %}"
                    "{% for i in range(100) %}{% if t in s %}{% endif %}{% endfor %}"),
            kBytes);
  EXPECT_EQ(refusal("{% set s = 'a' * 2000000 %}{% for i in range(100) %}{{ s | length }}{% endfor %}"), kBytes);
}

TEST(JinjaLimits, Output) {
  EXPECT_EQ(refusal("{% set s = 'a' * 100000 %}{% for i in range(100) %}{{ s }}{% endfor %}"),
            "line 1: output is larger than 4194304 bytes");
  EXPECT_EQ(refusal("abcdef", {.max_output_bytes = 5}), "line 1: output is larger than 5 bytes");
  EXPECT_EQ(refusal("abcde", {.max_output_bytes = 5}), "rendered 5 bytes");
}

TEST(JinjaLimits, NestingOfTheSource) {
  const int n = 100'000;
  EXPECT_EQ(refusal("{{ " + repeat("(", n) + repeat(")", n) + " }}"), kNesting);
  EXPECT_EQ(refusal("{{ " + repeat("[", n) + repeat("]", n) + " }}"), kNesting);
  EXPECT_EQ(refusal("{{ " + repeat("{1:", n) + "1" + repeat("}", n) + " }}"), kNesting);
  EXPECT_EQ(refusal("{{ " + repeat("not ", n) + "1 }}"), kNesting);
  EXPECT_EQ(refusal("{{ " + repeat("-", n) + "1 }}"), kNesting);
  EXPECT_EQ(refusal("{{ x" + repeat(".a", n) + " }}"), kNesting);
  EXPECT_EQ(refusal("{{ x" + repeat("[0]", n) + " }}"), kNesting);
  EXPECT_EQ(refusal("{{ x" + repeat("()", n) + " }}"), kNesting);
  EXPECT_EQ(refusal("{{ x" + repeat("|list", n) + " }}"), kNesting);
  EXPECT_EQ(refusal("{{ x" + repeat(" if x", n) + " }}"), kNesting);
  EXPECT_EQ(refusal("{{ x" + repeat(" if x else x", n / 2) + " }}"), kNesting);
  EXPECT_EQ(refusal("{% set " + repeat("(", n) + "a" + repeat(")", n) + " = 1 %}"), kNesting);
  EXPECT_EQ(refusal(repeat("{% if x %}", n)), kNesting);
  EXPECT_EQ(refusal(repeat("{% for x in x %}", 20'000)), kNesting);
  // Long chains of one level are no nesting.
  EXPECT_EQ(refusal("{{ 1" + repeat("+1", n) + " }}"), "rendered 6 bytes");
  EXPECT_EQ(refusal("{{ ''" + repeat("~''", n) + " }}"), "rendered 0 bytes");
  EXPECT_EQ(refusal("{{ 0" + repeat(" or 0", n) + " }}"), "rendered 1 bytes");
  EXPECT_EQ(refusal("{{ 0" + repeat(" == 0", n) + " }}"), "rendered 4 bytes");
  EXPECT_EQ(refusal("{% if 0 %}" + repeat("{% elif 0 %}", 20'000) + "{% endif %}"), "rendered 0 bytes");
  EXPECT_EQ(refusal(std::string((1 << 20) + 1, 'x')), "chat template: 1048577 bytes exceed 1048576");
}

TEST(JinjaLimits, Recursion) {
  EXPECT_EQ(refusal("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), "line 1: macro calls nest deeper than 64");
  EXPECT_EQ(refusal("{% macro m(a, b=m(a)) %}{% endmacro %}{{ m(1) }}"), "line 1: macro calls nest deeper than 64");
  const std::string wide = "{% macro m() %}" + repeat("{% if 1 %}", 40) + "{{ " + repeat("[", 20) + "m()" +
                           repeat("]", 20) + " }}" + repeat("{% endif %}", 40) + "{% endmacro %}{{ m() }}";
  EXPECT_EQ(refusal(wide), "line 1: evaluation nests too deep");
  EXPECT_EQ(refusal("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}"),
            "line 1: macro calls nest deeper than 64");
  EXPECT_EQ(refusal("{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}"),
            kSteps);
}

TEST(JinjaLimits, NestingOfValues) {
  const std::string deep = "line 1: values nest deeper than 128";
  EXPECT_EQ(refusal("{% set n = namespace(v=1) %}{% for i in range(9999) %}{% set n.v = [n.v] %}{% endfor %}"), deep);
  EXPECT_EQ(refusal("{% set n = namespace(v=1) %}{% for i in range(9999) %}{% set n.v = {'a': n.v} %}{% endfor %}"),
            deep);
  EXPECT_EQ(refusal("{% set n = namespace(v=1) %}{% for i in range(9999) %}{% for a in [n.v] %}{% set n.v = loop %}"
                    "{% endfor %}{% endfor %}"),
            deep);
  EXPECT_EQ(refusal("{% set n = namespace(v=1) %}{% for i in range(9999) %}{% set n.v = [n.v].count %}{% endfor %}"),
            deep);
  // A long chain of namespaces is allowed; taking it down must not recurse.
  EXPECT_EQ(refusal("{% set n = namespace(v=1) %}{% for i in range(50000) %}{% set n.v = namespace(v=n.v) %}"
                    "{% endfor %}"),
            "rendered 0 bytes");
  // Shared values that print or compare exponentially large.
  const std::string laughs =
      "{% set n = namespace(v=['lol'], w=['lol']) %}{% for i in range(100) %}{% set n.v = [n.v, n.v, n.v] %}"
      "{% set n.w = [n.w, n.w, n.w] %}{% endfor %}";
  EXPECT_EQ(refusal(laughs + "{{ n.v }}"), kSteps);
  EXPECT_EQ(refusal(laughs + "{{ n.v | tojson }}"), kSteps);
  EXPECT_EQ(refusal(laughs + "{{ n.v == n.w }}"), kSteps);
  EXPECT_EQ(refusal(laughs + "{{ n.v < n.w }}"), kSteps);
  EXPECT_EQ(refusal(laughs + "{{ [n.v, n.w] | sort }}"), kSteps);
}

TEST(JinjaLimits, NestingOfVariables) {
  Json nested = Json::array();
  for (int i = 0; i < 1000; ++i) {
    Json outer = Json::array();
    outer.push(std::move(nested));
    nested = std::move(outer);
  }
  EXPECT_EQ(refusal("{{ x }}", {}, Json(Json::Object{{"x", std::move(nested)}})), "x: JSON nests deeper than 128");
}

TEST(JinjaLimits, LimitsThemselves) {
  const std::string range = "template limits: expected max_steps and max_output_bytes above 0 and max_depth in 1..64";
  EXPECT_EQ(refusal("x", {.max_steps = 0}), range + ", found 0, 4194304 and 64");
  EXPECT_EQ(refusal("x", {.max_output_bytes = -1}), range + ", found 1000000, -1 and 64");
  EXPECT_EQ(refusal("x", {.max_depth = 65}), range + ", found 1000000, 4194304 and 65");
}

}  // namespace
}  // namespace lathe
