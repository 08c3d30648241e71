#include "lathe/constrain/tool_grammar.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "lathe/constrain/constraint.h"
#include "support/grammar.h"

namespace lathe {
namespace {

constexpr int32_t kEos = 0;

// The bytes (id = byte + 1), and the markers of a syntax as special tokens behind them.
std::shared_ptr<const TokenTable> table_with(const std::vector<std::string>& markers) {
  std::vector<std::string> tokens{""};
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  std::vector<std::pair<std::string, int32_t>> special;
  for (const std::string& marker : markers) {
    special.emplace_back(marker, static_cast<int32_t>(tokens.size()));
    tokens.emplace_back();
  }
  return *TokenTable::build(tokens, std::move(special));
}

std::vector<std::string> markers_of(const ToolCallSyntax& s) {
  return {s.calls_begin, s.call_begin, s.separator, s.call_end, s.calls_end};
}

// Text in which ~0 to ~4 stand for the markers; false at the first token that is not allowed.
bool write(TokenConstraint& constraint, std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const bool marker = text[i] == '~';
    const int32_t id = marker ? 257 + (text[++i] - '0') : static_cast<unsigned char>(text[i]) + 1;
    if (!constraint.accept(id)) return false;
  }
  return true;
}

class ToolCalls : public testing::Test {
 protected:
  std::unique_ptr<TokenConstraint> begin(const ToolCallSyntax& syntax, int32_t max_calls) {
    const auto grammar = compile_tool_calls({{"get", &get_}, {"get_all", nullptr}}, syntax, max_calls);
    EXPECT_TRUE(grammar) << grammar.error().message;
    return *make_constraint(*grammar, table_with(markers_of(syntax)), {kEos});
  }

  Json get_ = test::json(R"({"properties":{"id":{"type":"integer"}},"required":["id"]})");
};

TEST_F(ToolCalls, AreWrittenAsTheModelDoes) {
  const auto one = begin(v31_call_syntax(), 2);
  EXPECT_TRUE(write(*one, R"(~0~1get~2{"id":1}~3~1get_all~2{"any":[]}~3~4)"));
  EXPECT_TRUE(one->finished());
  const auto older = begin(v3_call_syntax(), 2);
  EXPECT_TRUE(
      write(*older, "~0~1function~2get\n```json\n{\"id\":1}\n```~3\n~1function~2get_all\n```json\n{}\n```~3~4"));
  EXPECT_TRUE(older->finished());
}

TEST_F(ToolCalls, HaveNoOtherNameArgumentsOrNumber) {
  EXPECT_FALSE(write(*begin(v31_call_syntax(), 2), "x"));
  EXPECT_FALSE(write(*begin(v31_call_syntax(), 2), "~0~4"));
  EXPECT_FALSE(write(*begin(v31_call_syntax(), 2), "~0~1got"));
  EXPECT_FALSE(write(*begin(v31_call_syntax(), 2), "~0~1get_a~2"));
  EXPECT_FALSE(write(*begin(v31_call_syntax(), 2), R"(~0~1get~2{"id":"1")"));
  EXPECT_FALSE(write(*begin(v31_call_syntax(), 2), R"(~0~1get~2[)"));
  EXPECT_FALSE(write(*begin(v31_call_syntax(), 1), R"(~0~1get~2{"id":1}~3~1)"));
  const auto unfinished = begin(v31_call_syntax(), 1);
  EXPECT_TRUE(write(*unfinished, R"(~0~1get~2{"id":1}~3)"));
  EXPECT_FALSE(unfinished->accept(kEos));
}

TEST_F(ToolCalls, RefuseWhatCannotBe) {
  const ToolCallSyntax syntax = v31_call_syntax();
  const Json wrong = test::json(R"({"not":{}})");
  const auto message = [&](const std::vector<CallableTool>& tools, int32_t most) {
    const auto grammar = compile_tool_calls(tools, syntax, most);
    return grammar ? std::string() : grammar.error().message;
  };
  EXPECT_EQ(message({}, 1), "tool calls: expected tools and 1 to 128 calls, found 0 and 1");
  EXPECT_EQ(message({{"a", nullptr}}, 0), "tool calls: expected tools and 1 to 128 calls, found 1 and 0");
  EXPECT_EQ(message({{"a b", nullptr}}, 1), "tool \"a b\": expected a name of up to 64 characters a-z A-Z 0-9 _ - .");
  EXPECT_EQ(message({{"a", &wrong}}, 1), "tool \"a\": #/not: this keyword is not supported");
  const auto grammar = compile_tool_calls({{"a", nullptr}}, syntax, 1);
  const auto without = prepare_grammar(*grammar, table_with({}));
  ASSERT_FALSE(without);
  EXPECT_EQ(without.error().code, Errc::kUnsupported);
}

}  // namespace
}  // namespace lathe
