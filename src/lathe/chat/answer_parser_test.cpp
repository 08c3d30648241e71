// Answers come apart into reasoning, content and calls: the same parts however the text is cut, as soon as they are
// certain, and nothing of what the model wrote is lost.
#include "lathe/chat/answer_parser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <utility>

#include "lathe/base/rng.h"

namespace lathe {
namespace {

using Kind = AnswerEvent::Kind;

// Events as one line: R(reasoning) C(content) T0(name) A0(arguments).
std::string shown(const std::vector<AnswerEvent>& events) {
  std::string out;
  for (const AnswerEvent& e : events) {
    const std::string index = std::to_string(e.index);
    switch (e.kind) {
      case Kind::kReasoning:
        out += "R(" + e.text + ")";
        break;
      case Kind::kContent:
        out += "C(" + e.text + ")";
        break;
      case Kind::kToolCall:
        out += "T" + index + "(" + e.name + ")";
        break;
      case Kind::kArguments:
        out += "A" + index + "(" + e.text + ")";
        break;
    }
  }
  return out;
}

// Adjacent pieces of one kind joined.
void join(std::vector<AnswerEvent>& into, std::vector<AnswerEvent> events) {
  for (AnswerEvent& e : events) {
    if (!into.empty() && into.back().kind == e.kind && e.kind != Kind::kToolCall) {
      into.back().text += e.text;
    } else {
      into.push_back(std::move(e));
    }
  }
}

// `text` in one piece, and the end.
std::string parsed(const AnswerOptions& options, std::string_view text) {
  AnswerParser parser(options);
  std::vector<AnswerEvent> events = parser.push(text);
  join(events, parser.finish());
  return shown(events);
}

// What each push gives, then what finish gives.
std::vector<std::string> stream(const AnswerOptions& options, const std::vector<std::string>& pieces) {
  AnswerParser parser(options);
  std::vector<std::string> out;
  for (const std::string& piece : pieces) out.push_back(shown(parser.push(piece)));
  out.push_back(shown(parser.finish()));
  return out;
}

using Texts = std::vector<std::string>;

const AnswerOptions kV3{.tools = ToolFormat::kV3};
const AnswerOptions kV31{.tools = ToolFormat::kV31};
const AnswerOptions kThinks{.reasoning = true};
const AnswerOptions kThinksOpen{.reasoning = true, .reasoning_open = true};
const AnswerOptions kAll{.tools = ToolFormat::kV3, .reasoning = true};

const std::string kBegin(kToolCallsBegin);
const std::string kEnd(kToolCallsEnd);
const std::string kCall(kToolCallBegin);
const std::string kCallEnd(kToolCallEnd);
const std::string kSep(kToolSep);

std::string v3_call(const std::string& name, const std::string& arguments) {
  return kCall + "function" + kSep + name + "\n```json\n" + arguments + "\n```" + kCallEnd;
}

std::string v31_call(const std::string& name, const std::string& arguments) {
  return kCall + name + kSep + arguments + kCallEnd;
}

TEST(AnswerParser, PlainTextIsContentAtOnce) {
  EXPECT_EQ(stream({}, {"a<", "think>", kBegin}), (Texts{"C(a<)", "C(think>)", "C(" + kBegin + ")", ""}));
  EXPECT_EQ(stream(kAll, {"  \n", "Hel", "lo"}), (Texts{"", "C(  \nHel)", "C(lo)", ""}));
  EXPECT_EQ(parsed(kAll, ""), "");
  EXPECT_EQ(parsed(kAll, " \n"), "C( \n)");
}

TEST(AnswerParser, ReasoningIsSplitOff) {
  EXPECT_EQ(parsed(kThinks, "<think>\nHm.\n\nSo.\n</think>\n\nFour."), "R(Hm.\n\nSo.)C(Four.)");
  EXPECT_EQ(parsed(kThinks, "\n<think>a</think>b"), "R(a)C(b)");
  EXPECT_EQ(parsed(kThinksOpen, "\nHm.</think>Four."), "R(Hm.)C(Four.)");
  EXPECT_EQ(parsed(kThinks, "<think>\n\n</think>\n\nFour."), "C(Four.)");
  // Only where an answer begins.
  EXPECT_EQ(parsed(kThinks, "In <think>x</think>"), "C(In <think>x</think>)");
  EXPECT_EQ(parsed(kThinks, "<think>a</think>b<think>c</think>"), "R(a)C(b<think>c</think>)");
  EXPECT_EQ(parsed({.tools = ToolFormat::kV3}, "<think>a</think>b"), "C(<think>a</think>b)");
}

TEST(AnswerParser, ReasoningThatIsCutOffEndsAsItIs) {
  EXPECT_EQ(parsed(kThinks, "<think>\nHm. </thi"), "R(Hm. </thi)");
  EXPECT_EQ(parsed(kThinks, "<thi"), "C(<thi)");
  EXPECT_EQ(parsed(kThinksOpen, "Hm.\n"), "R(Hm.\n)");
  EXPECT_EQ(parsed(kThinks, "<think>"), "");
}

TEST(AnswerParser, NoMoreIsHeldBackThanMayBecomeAMarker) {
  EXPECT_EQ(stream(kThinksOpen, {"a </", "b", "\n</th", "ink", "> \n", "c "}),
            (Texts{"R(a)", "R( </b)", "", "", "", "C(c )", ""}));
  EXPECT_EQ(stream(kV3, {"a<", "b", "<｜tool", "x", kBegin.substr(0, 7), kBegin.substr(7), "no"}),
            (Texts{"C(a)", "C(<b)", "", "C(<｜toolx)", "", "", "C(" + kBegin + "no)", ""}));
  const std::string head = kBegin + kCall + "function" + kSep;
  EXPECT_EQ(stream(kV3, {head, "get", "_x", "\n```js", "on\n{\"a\"", ": 1}", "\n``", "`", kCallEnd, kEnd}),
            (Texts{"", "", "", "", "T0(get_x)A0({\"a\")", "A0(: 1})", "", "", "", "", ""}));
  // Two backticks and a space close nothing; nor does a fence with more behind it.
  EXPECT_EQ(stream(kV3, {head + "f\n```json\n", "{\"a``", " ", "b\n```\n", "c"}),
            (Texts{"T0(f)", "A0({\"a)", "A0(``)", "A0( b)", "A0(\n```\nc)", ""}));
  EXPECT_EQ(stream(kV31, {kCall, "f", kSep, "{} ", "<", kCallEnd.substr(1)}),
            (Texts{"", "", "T0(f)", "A0({})", "", "", ""}));
}

TEST(AnswerParser, CallsOfV3) {
  const std::string one = v3_call("get_weather", "{\"city\": \"Paris\"}");
  EXPECT_EQ(parsed(kV3, kBegin + one + kEnd), "T0(get_weather)A0({\"city\": \"Paris\"})");
  EXPECT_EQ(parsed(kV3, "See:\n\n" + kBegin + one + "\n" + v3_call("f", "{}") + kEnd),
            "C(See:\n\n)T0(get_weather)A0({\"city\": \"Paris\"})T1(f)A1({})");
  // Text in a list of calls and behind it.
  EXPECT_EQ(parsed(kV3, kBegin + one + "\nand\n" + v3_call("f", "{}") + kEnd + "\nDone"),
            "T0(get_weather)A0({\"city\": \"Paris\"})C(and\n)T1(f)A1({})C(Done)");
  // Backticks and markers of other kinds in the arguments.
  const std::string code = "{\"code\": \"```py\\nx\\n```\", \"t\": \"</think>" + kSep + "\"}";
  EXPECT_EQ(parsed(kV3, kBegin + v3_call("run", code) + kEnd), "T0(run)A0(" + code + ")");
  EXPECT_EQ(parsed(kAll, "<think>\nHm.\n</think>\n\n" + kBegin + one + kEnd),
            "R(Hm.)T0(get_weather)A0({\"city\": \"Paris\"})");
  EXPECT_EQ(parsed({.tools = ToolFormat::kV3, .reasoning = true, .reasoning_open = true}, kBegin + "</think>" + one),
            "R(" + kBegin + ")T0(get_weather)A0({\"city\": \"Paris\"})");
}

TEST(AnswerParser, CallsOfV31) {
  const std::string one = v31_call("get_weather", "{\"city\": \"Paris\"}");
  EXPECT_EQ(parsed(kV31, kBegin + one + v31_call("f.g-h_1", "{}") + kEnd),
            "T0(get_weather)A0({\"city\": \"Paris\"})T1(f.g-h_1)A1({})");
  EXPECT_EQ(parsed(kV31, "Ok." + kBegin + one + kEnd), "C(Ok.)T0(get_weather)A0({\"city\": \"Paris\"})");
  // A function of that name, not V3's type.
  EXPECT_EQ(parsed(kV31, kBegin + v31_call("function", "{\"a\":\"```\"}") + kEnd), "T0(function)A0({\"a\":\"```\"})");
}

TEST(AnswerParser, SlipsThatModelsAreKnownForAreCallsAllTheSame) {
  const std::string v3 = "function" + kSep + "f\n```json\n{}";
  for (const std::string& text : {
           "<｜tool_calls_begin｜>" + kCall + v3 + "\n```" + kCallEnd + kEnd,
           "<｜tool▁calls｜>\n" + kCall + v3 + "\n```" + kCallEnd + kEnd,
           kBegin + v3 + "\n```" + kCallEnd + kEnd,                                        // no call begins
           kCall + v3 + "\n```" + kCallEnd,                                                // no list
           kBegin + kCall + v3 + "```\n" + kCallEnd + kEnd,                                // fence at the line's end
           kBegin + kCall + v3 + "\n" + kCallEnd + kEnd,                                   // no closing fence
           kBegin + kCall + v3 + "\n```" + kEnd,                                           // no end of the call
           kBegin + kCall + v3 + "\n```",                                                  // no end at all
           kBegin + kCall + "function" + kSep + "f\n{}" + kCallEnd + kEnd,                 // no fences
           kBegin + kCall + "function" + kSep + "f ```json{}\n```" + kCallEnd + kEnd,      // one line
           kBegin + kCall + "function" + kSep + "f\n\n```json\n\n{}```" + kCallEnd + kEnd  // more lines
       }) {
    EXPECT_EQ(parsed(kV3, text), "T0(f)A0({})") << text;
  }
}

TEST(AnswerParser, MalformedCallsAreContentAsTheyWereWritten) {
  for (const std::string& text : {
           kBegin + "Hello",
           kBegin,
           kCall,
           kBegin + kEnd,
           kBegin + kCall + "method" + kSep + "f\n```json\n{}\n```" + kCallEnd + kEnd,
           kBegin + kCall + "function" + kSep + "\n```json\n{}\n```" + kCallEnd + kEnd,
           kBegin + kCall + "function" + kSep + "grüß\n```json\n{}\n```" + kCallEnd + kEnd,
           kBegin + kCall + "function" + kSep + std::string(65, 'f') + "\n```json\n{}\n```" + kCallEnd + kEnd,
           kBegin + kCall + "function" + kSep + "f" + std::string(20, '\n') + "```json\n{}\n```" + kCallEnd + kEnd,
           kBegin + kCall + "function" + kSep + "f\nwith {}" + kCallEnd + kEnd,
           kBegin + kCall + "function" + kSep + "f\n```js",  // cut off
           kCallEnd + kEnd + kSep,
       }) {
    EXPECT_EQ(parsed(kV3, text), "C(" + text + ")");
  }
  EXPECT_EQ(parsed(kV31, kBegin + kCall + "a b" + kSep + "{}"), "C(" + kBegin + kCall + "a b" + kSep + "{})");
  // A good call behind a bad one.
  EXPECT_EQ(parsed(kV31, kBegin + kCall + "?" + v31_call("f", "{}")), "C(" + kBegin + kCall + "?)T0(f)A0({})");
}

TEST(AnswerParser, ArgumentsThatAreCutOffOrNoJsonComeAsTheyAre) {
  EXPECT_EQ(parsed(kV3, kBegin + kCall + "function" + kSep + "f\n```json\n{\"a\": \"x"), "T0(f)A0({\"a\": \"x)");
  EXPECT_EQ(parsed(kV31, kBegin + v31_call("f", "not json") + kEnd), "T0(f)A0(not json)");
  EXPECT_EQ(parsed(kV31, kBegin + v31_call("f", "") + kEnd), "T0(f)");
}

TEST(AnswerParser, IdsAndIndicesTellCallsApart) {
  AnswerParser parser({.tools = ToolFormat::kV31, .id_seed = "5eed_2"});
  AnswerMessage message;
  for (const AnswerEvent& e : parser.push("Hi " + kBegin + v31_call("f", "{}") + v31_call("g", "[1]") + kEnd)) {
    message.add(e);
  }
  EXPECT_EQ(message.content, "Hi ");
  ASSERT_EQ(message.tool_calls.size(), 2u);
  EXPECT_EQ(message.tool_calls[0].id, "call_5eed_2_0");
  EXPECT_EQ(message.tool_calls[1].id, "call_5eed_2_1");
  EXPECT_EQ(message.tool_calls[1].name, "g");
  EXPECT_EQ(message.tool_calls[1].arguments, "[1]");
}

TEST(AnswerParser, TellsWhereReasoningIs) {
  AnswerParser parser(kThinks);
  EXPECT_FALSE(parser.in_reasoning() || parser.past_reasoning());
  parser.push("<think>");
  EXPECT_TRUE(parser.in_reasoning());
  EXPECT_FALSE(parser.past_reasoning());
  parser.push("a</think");
  EXPECT_TRUE(parser.in_reasoning());
  parser.push(">");
  EXPECT_TRUE(!parser.in_reasoning() && parser.past_reasoning());
  EXPECT_TRUE(AnswerParser(kThinksOpen).in_reasoning());
  EXPECT_TRUE(AnswerParser(kV3).past_reasoning());
}

// Texts of markers, parts of markers and what stands between them.
std::string random_text(Rng& rng, bool with_separators) {
  constexpr std::array kWords = std::to_array<std::string_view>({
      "<think>",
      "</think>",
      kToolCallsBegin,
      kToolCallsEnd,
      kToolCallBegin,
      kToolCallEnd,
      "function",
      "get_weather",
      "\n",
      " ",
      "```",
      "```json",
      "\n```json\n",
      "`",
      "{",
      "{\"a\": \"b\"}",
      "}",
      "text",
      "ü",
      "<｜",
      "<",
      "\xef\xbd",
      "<｜tool",
      "<｜tool_calls_begin｜>",
  });
  std::string out;
  const int64_t words = rng.next_int(0, 24);
  for (int64_t i = 0; i < words; ++i) {
    const int64_t kind = rng.next_int(0, 9);
    if (kind < 7) {
      out += kWords[static_cast<size_t>(rng.next_int(0, std::ssize(kWords) - 1))];
    } else if (!with_separators) {
      out += " x";
    } else if (kind == 7) {
      out += kSep;
    } else {
      const std::string head = kind == 8 ? kCall + "function" + kSep + "f\n```json\n" : kCall + "g" + kSep;
      out += head.substr(0, static_cast<size_t>(rng.next_int(1, std::ssize(head) + 8)));
    }
  }
  return out;
}

AnswerOptions random_options(Rng& rng) {
  constexpr std::array kFormats = {ToolFormat::kNone, ToolFormat::kV3, ToolFormat::kV31};
  AnswerOptions out{.tools = kFormats[static_cast<size_t>(rng.next_int(0, 2))], .reasoning = rng.next_int(0, 1) == 1};
  out.reasoning_open = out.reasoning && rng.next_int(0, 1) == 1;
  return out;
}

TEST(AnswerParser, CutsMakeNoDifference) {
  constexpr uint64_t kSeed = 20260514;
  Rng rng(kSeed);
  int64_t calls = 0;
  for (int round = 0; round < 20000; ++round) {
    const AnswerOptions options = random_options(rng);
    const std::string text = random_text(rng, /*with_separators=*/true);
    const std::string expected = parsed(options, text);
    AnswerParser parser(options);
    std::vector<AnswerEvent> events;
    const int64_t longest = rng.next_int(0, 1) == 0 ? 1 : 12;
    for (size_t at = 0; at < text.size();) {
      const std::string_view piece = std::string_view(text).substr(at, static_cast<size_t>(rng.next_int(1, longest)));
      join(events, parser.push(piece));
      at += piece.size();
    }
    join(events, parser.finish());
    ASSERT_EQ(shown(events), expected) << "seed " << kSeed << ", round " << round << ": " << text;
    calls += std::ranges::count(events, Kind::kToolCall, &AnswerEvent::kind);
  }
  EXPECT_GT(calls, 500);  // or the texts would show nothing
}

// Without a separator nothing is a call.
TEST(AnswerParser, WhatIsNoCallIsNeverLost) {
  constexpr uint64_t kSeed = 7;
  Rng rng(kSeed);
  for (int round = 0; round < 5000; ++round) {
    const std::string text = random_text(rng, /*with_separators=*/false);
    const AnswerOptions options{.tools = round % 2 == 0 ? ToolFormat::kV3 : ToolFormat::kV31};
    ASSERT_EQ(parsed(options, text), text.empty() ? "" : "C(" + text + ")") << "seed " << kSeed << ", round " << round;
  }
}

TEST(AnswerParser, LongAnswersOfBrokenMarkersTakeLinearTime) {
  std::string text;
  for (int i = 0; i < 40000; ++i) text += kBegin;
  AnswerParser parser(kV3);
  std::vector<AnswerEvent> events = parser.push(text);
  join(events, parser.finish());
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].text, text);
}

}  // namespace
}  // namespace lathe
