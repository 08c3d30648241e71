// The parts of an answer come from its text, the count of its thoughts from its tokens, whichever comes first.
#include "lathe/server/message_splitter.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace lathe::server {
namespace {

const Tokenizer& storyteller() {
  static const Tokenizer tokenizer =
      Tokenizer::open(std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller").value();
  return tokenizer;
}

// A byte a token, so that every cut of a text is one between tokens.
std::vector<SampledToken> tokens_of(std::string_view text) {
  std::vector<SampledToken> out;
  for (const char c : text) {
    int32_t id = 0;
    while (storyteller().token_bytes(id) != std::string_view(&c, 1)) ++id;
    out.push_back({.id = id, .logprob = 0.0, .top = {}});
  }
  return out;
}

AnswerOptions thinks(bool open = false) {
  AnswerOptions out;
  out.reasoning = true;
  out.reasoning_open = open;
  return out;
}

struct Split {
  AnswerMessage message;
  int64_t reasoning_tokens = 0;
};

// `text` in pieces of `step` tokens; `shown` of it is text, which comes `lag` pieces late.
Split split(const AnswerOptions& options, std::string_view text, size_t step, size_t lag, std::string_view shown) {
  MessageSplitter splitter(storyteller(), options);
  Split out;
  const auto take = [&out](const std::vector<AnswerEvent>& events) {
    for (const AnswerEvent& event : events) out.message.add(event);
  };
  const std::vector<SampledToken> tokens = tokens_of(text);
  for (size_t piece = 0; piece * step < tokens.size() || (piece - std::min(piece, lag)) * step < shown.size();
       ++piece) {
    const size_t begin = std::min(piece * step, tokens.size()), end = std::min(begin + step, tokens.size());
    const std::vector<SampledToken> some(tokens.begin() + static_cast<ptrdiff_t>(begin),
                                         tokens.begin() + static_cast<ptrdiff_t>(end));
    std::string_view certain;
    if (piece >= lag && (piece - lag) * step < shown.size()) certain = shown.substr((piece - lag) * step, step);
    take(splitter.push(some, certain));
  }
  take(splitter.finish());
  out.reasoning_tokens = splitter.reasoning_tokens();
  return out;
}

TEST(MessageSplitter, PartsAndCountDoNotDependOnTheCuts) {
  constexpr std::string_view kText = "<think>\nWhich one?</think>\n\nThis one.";
  for (const size_t step : {1, 2, 3, 7, 1000}) {
    for (const size_t lag : {0, 1, 5}) {
      SCOPED_TRACE(step * 100 + lag);
      const Split out = split(thinks(), kText, step, lag, kText);
      EXPECT_EQ(out.message.reasoning, "Which one?");
      EXPECT_EQ(out.message.content, "This one.");
      // From the token that completes <think> to the one that completes </think>.
      EXPECT_EQ(out.reasoning_tokens, static_cast<int64_t>(std::string_view("\nWhich one?</think>").size()) + 1);
    }
  }
}

TEST(MessageSplitter, APromptThatOpensThoughtsCountsFromTheFirstToken) {
  const AnswerOptions options = thinks(/*open=*/true);
  const Split out = split(options, "ab</think>c", 1, 0, "ab</think>c");
  EXPECT_EQ(out.message.reasoning, "ab");
  EXPECT_EQ(out.message.content, "c");
  EXPECT_EQ(out.reasoning_tokens, 10);
  const Split cut = split(options, "abc", 2, 0, "abc");
  EXPECT_EQ(cut.message.reasoning, "abc");
  EXPECT_EQ(cut.reasoning_tokens, 3);
}

// A stop string cuts the text; its tokens were made all the same.
TEST(MessageSplitter, TokensOfTextThatWasCutCount) {
  const AnswerOptions options = thinks(/*open=*/true);
  const Split out = split(options, "abSTOP", 1, 0, "ab");
  EXPECT_EQ(out.message.reasoning, "ab");
  EXPECT_EQ(out.reasoning_tokens, 6);
}

TEST(MessageSplitter, WithoutThoughtsNothingCounts) {
  EXPECT_EQ(split(thinks(), "a <think>b</think>", 1, 0, "a <think>b</think>").reasoning_tokens, 0);
  const Split out = split({}, "<think>a</think>b", 3, 0, "<think>a</think>b");
  EXPECT_EQ(out.message.content, "<think>a</think>b");
  EXPECT_EQ(out.message.reasoning, "");
  EXPECT_EQ(out.reasoning_tokens, 0);
}

TEST(MessageSplitter, CallsBehindThoughtsAreNoThoughts) {
  AnswerOptions options = thinks();
  options.tools = ToolFormat::kV31;
  MessageSplitter splitter(storyteller(), options);
  AnswerMessage message;
  const std::string call = std::string(kToolCallsBegin) + std::string(kToolCallBegin) + "f" + std::string(kToolSep) +
                           "{}" + std::string(kToolCallEnd) + std::string(kToolCallsEnd);
  for (const AnswerEvent& event : splitter.push(tokens_of("<think>a</think>"), "<think>a</think>")) message.add(event);
  const int64_t thoughts = splitter.reasoning_tokens();
  std::vector<SampledToken> tokens;
  for (const int32_t id : storyteller().encode(call, AddedTokens::kText)) {
    tokens.push_back({.id = id, .logprob = 0.0, .top = {}});
  }
  for (const AnswerEvent& event : splitter.push(tokens, call)) message.add(event);
  for (const AnswerEvent& event : splitter.finish()) message.add(event);
  EXPECT_EQ(message.reasoning, "a");
  ASSERT_EQ(message.tool_calls.size(), 1U);
  EXPECT_EQ(message.tool_calls[0].name, "f");
  EXPECT_EQ(message.tool_calls[0].arguments, "{}");
  EXPECT_EQ(splitter.reasoning_tokens(), thoughts);
  EXPECT_EQ(thoughts, 10);
}

}  // namespace
}  // namespace lathe::server
