#include "lathe/tokenizer/pretokenizer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lathe/base/str.h"

namespace lathe {
namespace {

using Strings = std::vector<std::string>;

class Collect final : public PieceSink {
 public:
  void piece(std::string_view piece) override { pieces.emplace_back(piece); }

  Strings pieces;
};

Result<Pretokenizer> parse(std::string_view text) {
  LATHE_TRY(const Json json, parse_json(text));
  return Pretokenizer::parse(json);
}

Strings split(std::string_view json, std::string_view text) {
  const Result<Pretokenizer> pretokenizer = parse(json);
  EXPECT_TRUE(pretokenizer) << (pretokenizer ? "" : pretokenizer.error().message);
  if (!pretokenizer) return {};
  Collect sink;
  PretokenizerRun run(*pretokenizer);
  run.split(text, sink);
  return sink.pieces;
}

std::string sequence(std::string_view stages) {
  return str(R"({"type":"Sequence","pretokenizers":[)",
             stages,
             R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})");
}

std::string split_stage(std::string_view pattern, std::string_view behavior, bool invert = false) {
  return str(R"({"type":"Split","pattern":)", pattern, R"(,"behavior":")", behavior, R"(","invert":)", invert, "},");
}

TEST(Pretokenizer, Behaviours) {
  const char* dash = R"({"String":"-"})";
  const auto with = [&](std::string_view behavior, bool invert = false) {
    return split(sequence(split_stage(dash, behavior, invert)), "the-final--countdown-");
  };
  EXPECT_EQ(with("Isolated"), (Strings{"the", "-", "final", "-", "-", "countdown", "-"}));
  EXPECT_EQ(with("Removed"), (Strings{"the", "final", "countdown"}));
  EXPECT_EQ(with("MergedWithPrevious"), (Strings{"the-", "final-", "-", "countdown-"}));
  EXPECT_EQ(with("MergedWithNext"), (Strings{"the", "-final", "-", "-countdown", "-"}));
  EXPECT_EQ(with("Contiguous"), (Strings{"the", "-", "final", "--", "countdown", "-"}));
  EXPECT_EQ(with("Removed", true), (Strings{"-", "-", "-", "-"}));
  EXPECT_EQ(with("Isolated", true), (Strings{"the", "-", "final", "-", "-", "countdown", "-"}));
  EXPECT_EQ(with("MergedWithPrevious", true), (Strings{"the", "-final", "-", "-countdown", "-"}));
}

TEST(Pretokenizer, StagesWorkOnWhatEarlierOnesLeft) {
  const std::string json = sequence(str(split_stage(R"({"Regex":"[\\r\\n]"})", "Isolated"),
                                        split_stage(R"({"Regex":"\\s?[a-z]+"})", "Isolated"),
                                        R"({"type":"Digits","individual_digits":true},)"));
  EXPECT_EQ(split(json, "ab  cd12\n\nx½"), (Strings{"ab", " ", " cd", "1", "2", "\n", "\n", "x", "½"}));
  EXPECT_EQ(split(json, ""), Strings{});
  EXPECT_EQ(split(sequence(R"({"type":"Digits","individual_digits":false},)"), "a12b3"),
            (Strings{"a", "12", "b", "3"}));
}

// The pieces are those of HuggingFace tokenizers 0.21.0.
TEST(Pretokenizer, EmptyMatchesPart) {
  const auto with = [&](std::string_view pattern, std::string_view behavior, std::string_view text) {
    return split(sequence(split_stage(str(R"({"Regex":")", pattern, R"("})"), behavior)), text);
  };
  for (const char* behavior : {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"}) {
    EXPECT_EQ(with("\\\\b", behavior, "ab cd"), (Strings{"ab", " ", "cd"})) << behavior;
    EXPECT_EQ(with("(?=[A-Z])", behavior, "aBéC"), (Strings{"a", "Bé", "C"})) << behavior;
    EXPECT_EQ(with("", behavior, "é!"), (Strings{"é", "!"})) << behavior;
  }
  EXPECT_EQ(with("a*", "Isolated", "baac"), (Strings{"b", "aa", "c"}));
  EXPECT_EQ(with("a*", "Removed", "baac"), (Strings{"b", "c"}));
  EXPECT_EQ(with("a*", "MergedWithPrevious", "baac"), (Strings{"baa", "c"}));
  EXPECT_EQ(with("a*", "MergedWithNext", "baac"), (Strings{"b", "aac"}));
  EXPECT_EQ(with("a*", "Contiguous", "baac"), (Strings{"b", "aa", "c"}));
}

// What a search gives up on stays one piece, also where gaps are dropped.
TEST(Pretokenizer, TextBeyondTheLimitsStaysOnePiece) {
  const std::string rest(100'000, 'a');
  for (const char* behavior : {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"}) {
    const Strings pieces = split(
        sequence(split_stage(R"({"Regex":"(?<!x)(?:a|a)+?c|b"})", behavior, std::string_view(behavior) == "Removed")),
        "b" + rest);
    const Strings expected = std::string_view(behavior) == "MergedWithNext" ? Strings{"b" + rest} : Strings{"b", rest};
    EXPECT_TRUE(pieces == expected) << behavior << ": " << pieces.size() << " pieces";
  }
}

TEST(Pretokenizer, ByteLevel) {
  EXPECT_EQ(split(R"({"type":"ByteLevel","add_prefix_space":false})", "It's  we'll 42 x!"),
            (Strings{"It", "'s", " ", " we", "'ll", " 42", " x", "!"}));
  EXPECT_EQ(split(R"({"type":"ByteLevel","add_prefix_space":true})", "ab cd"), (Strings{" ab", " cd"}));
  EXPECT_EQ(split(R"({"type":"ByteLevel"})", " ab"), (Strings{" ab"}));
  EXPECT_EQ(split(R"({"type":"ByteLevel","add_prefix_space":true,"use_regex":false})", "a"), (Strings{" a"}));
  // The space goes in front of every piece of the stages before.
  EXPECT_EQ(split(str(R"({"type":"Sequence","pretokenizers":[)",
                      split_stage(R"({"String":"-"})", "Isolated"),
                      R"({"type":"ByteLevel","add_prefix_space":true,"use_regex":false}]})"),
                  "a-b"),
            (Strings{" a", " -", " b"}));
}

TEST(Pretokenizer, RefusesByName) {
  const auto message = [](std::string_view json) {
    const Result<Pretokenizer> out = parse(json);
    return out ? std::string("accepted") : out.error().message;
  };
  const std::string none = "pre_tokenizer: no ByteLevel stage; only byte-level BPE is supported";
  EXPECT_EQ(message("null"), none);
  EXPECT_EQ(message(R"({"type":"Sequence","pretokenizers":[]})"), none);
  EXPECT_EQ(message("[]"), "pre_tokenizer: expected an object, found array");
  EXPECT_EQ(message("{}"), "pre_tokenizer: missing type");
  EXPECT_EQ(message(R"({"type":3})"), "pre_tokenizer.type: expected a string, found integer");
  EXPECT_EQ(message(R"({"type":"Metaspace"})"), "pre_tokenizer: unsupported type \"Metaspace\"");
  EXPECT_EQ(message(R"({"type":"Sequence"})"), "pre_tokenizer: expected an array pretokenizers");
  EXPECT_EQ(message(R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]})"),
            "pre_tokenizer.pretokenizers[1]: unsupported stage after ByteLevel");
  EXPECT_EQ(message(R"({"type":"ByteLevel","use_regex":1})"),
            "pre_tokenizer.use_regex: expected a boolean, found integer");
  EXPECT_EQ(
      message(sequence(split_stage(R"({"Regex":"a"})", "Sideways"))),
      "pre_tokenizer.pretokenizers[0].behavior: expected Isolated, Removed, MergedWithPrevious, MergedWithNext or "
      "Contiguous, found \"Sideways\"");
  EXPECT_EQ(message(sequence(split_stage(R"({"Regex":"(?<=a+)b"})", "Isolated"))),
            "pre_tokenizer.pretokenizers[0].pattern: regex \"(?<=a+)b\": byte 0: lookbehind assertion is not fixed "
            "length");
  EXPECT_EQ(message(sequence(split_stage(R"({"String":""})", "Isolated"))),
            "pre_tokenizer.pretokenizers[0].pattern: regex \"\": can match the empty string");
  EXPECT_EQ(message(sequence(split_stage(R"("a")", "Isolated"))),
            "pre_tokenizer.pretokenizers[0].pattern: expected {\"Regex\": ...} or {\"String\": ...}");
  EXPECT_EQ(message(sequence(R"({"type":"Split","behavior":"Isolated"},)")),
            "pre_tokenizer.pretokenizers[0].pattern: expected {\"Regex\": ...} or {\"String\": ...}");
  std::string many, deep;
  for (int i = 0; i < 40; ++i) many += R"({"type":"Digits"},)";
  EXPECT_EQ(message(sequence(many)), "pre_tokenizer.pretokenizers[32]: more than 32 stages");
  for (int i = 0; i < 20; ++i) deep += R"({"type":"Sequence","pretokenizers":[)";
  deep += R"({"type":"ByteLevel"})";
  for (int i = 0; i < 20; ++i) deep += "]}";
  EXPECT_NE(message(deep).find("sequences nested too deeply"), std::string::npos);
}

}  // namespace
}  // namespace lathe
