// The interpreter against jinja2: tests/golden/jinja/cases.json, written by tools/golden/make_jinja_cases.py.
#include <gtest/gtest.h>

#include <ctime>

#include "lathe/base/json.h"
#include "lathe/tokenizer/chat_template.h"
#include "support/golden.h"

namespace lathe {
namespace {

std::tm leap_day() {
  std::tm parts{};
  parts.tm_year = 124, parts.tm_mon = 1, parts.tm_mday = 29;
  parts.tm_hour = 13, parts.tm_min = 5, parts.tm_sec = 9;
  parts.tm_wday = 4, parts.tm_yday = 59;
  return parts;
}

Result<std::string> render(std::string_view source, const Json& variables) {
  LATHE_TRY(ChatTemplate compiled, ChatTemplate::compile(source));
  compiled.set_clock(leap_day);
  return compiled.render(variables);
}

TEST(Jinja, RendersWhatJinja2Renders) {
  const Result<Json> document = read_json(testing::golden_dir() / "jinja" / "cases.json");
  ASSERT_TRUE(document.has_value()) << document.error().message;
  const Json& variables = *document->find("variables");
  const Json::Array& cases = document->find("cases")->as_array();
  EXPECT_GE(cases.size(), 150u);
  for (const Json& item : cases) {
    const std::string& source = item.find("source")->as_string();
    SCOPED_TRACE(item.find("name")->as_string() + ": " + source);
    const Result<std::string> actual = render(source, variables);
    const Json* expected = item.find("expected");
    if (expected != nullptr) {
      ASSERT_TRUE(actual.has_value()) << actual.error().message;
      EXPECT_EQ(*actual, expected->as_string());
    } else {
      EXPECT_FALSE(actual.has_value()) << "rendered " << *actual << ", but jinja2 says "
                                       << item.find("jinja2_says")->as_string();
    }
  }
}

std::string error_of(std::string_view source, const Json& variables = Json::object()) {
  const Result<std::string> result = render(source, variables);
  return result.has_value() ? "rendered: " + *result : result.error().message;
}

TEST(Jinja, ErrorsOfTheSourceNameLineAndThing) {
  EXPECT_EQ(error_of("a\n{% include 'x' %}"), "line 2: tag 'include' is not supported");
  EXPECT_EQ(error_of("{% foo %}"), "line 1: unknown tag \"foo\"");
  EXPECT_EQ(error_of("\n\n{{ 1 | nope }}"), "line 3: unknown filter \"nope\"");
  EXPECT_EQ(error_of("{{ x | escape }}"), "line 1: unknown filter \"escape\"");
  EXPECT_EQ(error_of("{{ x | map('nope') }}"), "line 1: unknown filter \"nope\"");
  EXPECT_EQ(error_of("{{ x | selectattr('a', 'nope') }}"), "line 1: unknown test \"nope\"");
  EXPECT_EQ(error_of("{{ 1 is nope }}"), "line 1: unknown test \"nope\"");
  EXPECT_EQ(error_of("{{ (1] }}"), "line 1: unexpected ']', expected ')'");
  EXPECT_EQ(error_of("{{ ) }}"), "line 1: unexpected ')'");
  EXPECT_EQ(error_of("a\n{{ 'b\nc }}"), "line 2: string without its closing quote");
  EXPECT_EQ(error_of("{{ 1"), "line 1: missing '}}' at the end of the template");
  EXPECT_EQ(error_of("{% if x"), "line 1: missing '%}' at the end of the template");
  EXPECT_EQ(error_of("{# x"), "line 1: missing end of comment tag");
  EXPECT_EQ(error_of("\n{% raw %} x"), "line 2: missing end of raw directive");
  EXPECT_EQ(error_of("\n{% if true %}\nx"), "line 3: missing '{% endif %}' for the block that begins here");
  EXPECT_EQ(error_of("{% endfor %}"), "line 1: 'endfor' without the tag it belongs to");
  EXPECT_EQ(error_of("{% for a in b recursive %}{% endfor %}"), "line 1: recursive loops are not supported");
  EXPECT_EQ(error_of("{% continue %}"), "line 1: 'continue' outside a loop");
  EXPECT_EQ(error_of("{% for i in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}"),
            "line 1: 'break' outside a loop");
  EXPECT_EQ(error_of("{{ f(*a) }}"), "line 1: argument unpacking with \"*\" is not supported");
  EXPECT_EQ(error_of("{{ 99999999999999999999 }}"), "line 1: number 99999999999999999999 is out of range");
  EXPECT_EQ(error_of("{{ 1e999 }}"), "line 1: number 1e999 is out of range");
  EXPECT_EQ(error_of("{{ 007 }}"), "line 1: number 007 has a leading zero");
  EXPECT_EQ(error_of("{{ '\\ud800' }}"), "line 1: escape \\u does not name a character");
  EXPECT_EQ(error_of("{{ '\\x4' }}"), "line 1: escape \\x needs 2 hexadecimal digits");
  EXPECT_EQ(error_of("{{ '\\N{DASH}' }}"), "line 1: escape \\N is not supported");
  EXPECT_EQ(error_of("{{ 1 ! 2 }}"), "line 1: unexpected character \"!\"");
  EXPECT_EQ(error_of("{{ a b }}"), "line 1: expected '}}', found \"b\"");
  EXPECT_EQ(error_of("{% set 1 = 2 %}"), "line 1: expected a name, found \"1\"");
  EXPECT_EQ(error_of("ok\n\xff"), "line 2: the template is not valid UTF-8");
}

TEST(Jinja, ErrorsWhileRenderingNameTheLine) {
  EXPECT_EQ(error_of("\n{{ x.y }}"), "line 2: \"x\" is undefined");
  EXPECT_EQ(error_of("{{ d.a.b }}", Json(Json::Object{{"d", Json::object()}})),
            "line 1: 'dict object' has no attribute \"a\"");
  EXPECT_EQ(error_of("{{ 'a' + 1 }}"), "line 1: '+' does not apply to str and int");
  EXPECT_EQ(error_of("{{ 'a' + none }}"), "line 1: '+' does not apply to str and NoneType");
  EXPECT_EQ(error_of("{{ '%s' % 1 }}"), "line 1: string formatting with '%' is not supported");
  EXPECT_EQ(error_of("{{ 'a'.format(1) }}"), "line 1: method 'str.format' is not available in templates");
  EXPECT_EQ(error_of("{{ {}.update({}) }}"), "line 1: method 'dict.update' is not available in templates");
  EXPECT_EQ(error_of("{{ [].append(1) }}"), "line 1: method 'list.append' is not available in templates");
  EXPECT_EQ(error_of("{{ 'a'.nope() }}"), "line 1: 'str object' has no attribute \"nope\"");
  EXPECT_EQ(error_of("{{ ''.__class__.__mro__ }}"), "line 1: 'str object' has no attribute \"__class__\"");
  EXPECT_EQ(error_of("{{ 9223372036854775807 + 1 }}"), "line 1: integer overflow in '+'");
  EXPECT_EQ(error_of("{{ -(0 - 9223372036854775807 - 1) }}"), "line 1: integer overflow in '-'");
  EXPECT_EQ(error_of("{{ (0 - 9223372036854775807 - 1) // -1 }}"), "line 1: integer overflow in '//'");
  EXPECT_EQ(error_of("{{ 10 ** 19 }}"), "line 1: integer overflow in '**'");
  EXPECT_EQ(error_of("{{ 1 % 0 }}"), "line 1: division by zero");
  EXPECT_EQ(error_of("{{ range(3) }}"), "line 1: a generator or range has no text; use the list filter");
  EXPECT_EQ(error_of("{{ namespace() }}"), "line 1: a value of type namespace has no text");
  EXPECT_EQ(error_of("{{ namespace() | tojson }}"), "line 1: a value of type namespace has no JSON form");
  EXPECT_EQ(error_of("{% for a, b in [[1]] %}{% endfor %}"), "line 1: expected 2 values to unpack, found 1");
  EXPECT_EQ(error_of("{% set d = {} %}{% set d.a = 1 %}"),
            "line 1: cannot set attribute 'a' of 'd': expected a namespace, found dict");
  EXPECT_EQ(error_of("{% macro m(a) %}\n{{ a.b }}{% endmacro %}{{ m() }}"), "line 2: parameter 'a' was not provided");
  EXPECT_EQ(error_of("{% macro m() %}{% endmacro %}{{ m(1) }}"), "line 1: macro 'm' takes 0 arguments, found 1");
  EXPECT_EQ(error_of("{% macro m() %}{% endmacro %}{{ m(x=1) }}"), "line 1: macro 'm': argument 'x' is unknown");
  EXPECT_EQ(error_of("{{ 'a' | trim(foo=1) }}"), "line 1: trim: unknown argument \"foo\"");
  EXPECT_EQ(error_of("{{ '{\"a\":' | from_json }}").substr(0, 17), "line 1: from_json");
  EXPECT_EQ(error_of("{{ strftime_now('%Q') }}"), "line 1: strftime_now: unknown directive \"%Q\"");
  EXPECT_EQ(error_of("\n{{ raise_exception('Roles must\nalternate') }}"), "Roles must alternate");
}

TEST(Jinja, FromJsonGivesValues) {
  const Json variables(Json::Object{{"text", "{\"a\": [1, \"x\"]}"}});
  EXPECT_EQ(*render("{{ (text | from_json).a[1] }}{{ from_json(text)['a'][0] }}", variables), "x1");
}

TEST(Jinja, NamespacesMayFormCycles) {
  EXPECT_EQ(*render("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}{{ ns.me.me.l[0] == ns }}",
                    Json::object()),
            "True");
  EXPECT_EQ(error_of("{% set ns = namespace() %}{% set ns.l = [ns] %}{{ ns.l }}"),
            "line 1: a value of type namespace has no text");
}

TEST(Jinja, MacroOutlivesTheLoopThatDefinedIt) {
  EXPECT_EQ(*render("{% set ns = namespace() %}{% for i in [1] %}{% macro m() %}[{{ i }}]{% endmacro %}{{ m() }}"
                    "{% set ns.m = m %}{% endfor %}{{ ns.m() }}",
                    Json::object()),
            "[1][]");
}

}  // namespace
}  // namespace lathe
