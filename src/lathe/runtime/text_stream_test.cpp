// Text comes out as soon as it is certain and never later than that: whole characters, nothing of a stop string.
#include "lathe/runtime/text_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "lathe/base/rng.h"

namespace lathe {
namespace {

const Tokenizer& storyteller() {
  static const Tokenizer tokenizer =
      Tokenizer::open(std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller").value();
  return tokenizer;
}

int32_t id_of(std::string_view text) {
  const std::optional<int32_t> id = storyteller().find(text);
  EXPECT_TRUE(id.has_value()) << text;
  return id.value_or(-1);
}

// What each push gives, then what finish gives.
std::vector<std::string> stream(const std::vector<int32_t>& ids,
                                std::vector<std::string> stop,
                                bool* stopped = nullptr,
                                int64_t min_tokens = 0) {
  TextStream text(&storyteller(), std::move(stop), {}, min_tokens);
  std::vector<std::string> out;
  for (const int32_t id : ids) out.push_back(text.push(id));
  out.push_back(text.finish());
  if (stopped != nullptr) *stopped = text.stopped();
  return out;
}

std::vector<int32_t> letters(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(id_of(std::string(1, c)));
  return ids;
}

using Texts = std::vector<std::string>;

TEST(TextStream, WithoutStopStringsTextComesAtOnce) {
  EXPECT_EQ(stream(letters("abc"), {}), (Texts{"a", "b", "c", ""}));
  EXPECT_EQ(stream({}, {"x"}), (Texts{""}));
}

TEST(TextStream, WithoutATokenizerTextStaysEmpty) {
  TextStream text(nullptr, {"a"});
  EXPECT_EQ(text.push(5), "");
  EXPECT_EQ(text.finish(), "");
  EXPECT_FALSE(text.stopped());
}

TEST(TextStream, SpecialTokensHaveTextWhereTheyAreWanted) {
  const int32_t bos = storyteller().bos_id().value();
  const int32_t eos = storyteller().eos_id().value();
  ASSERT_NE(bos, eos);
  TextStream hidden(&storyteller(), {});
  EXPECT_EQ(hidden.push(eos) + hidden.push(id_of("a")) + hidden.push(bos), "a");
  TextStream shown(&storyteller(), {}, {eos});
  EXPECT_EQ(shown.push(eos), storyteller().eos_text());
  EXPECT_EQ(shown.push(bos), "");
  EXPECT_EQ(shown.push(id_of("a")), "a");
}

TEST(TextStream, AStopStringSplitOverTokensIsHeldAndCut) {
  bool stopped = false;
  EXPECT_EQ(stream(letters("xaENDy"), {"END"}, &stopped), (Texts{"x", "a", "", "", "", "", ""}));
  EXPECT_TRUE(stopped);
}

TEST(TextStream, AFalseAlarmIsReleasedWhenItIsOver) {
  bool stopped = true;
  EXPECT_EQ(stream(letters("aENxb"), {"END"}, &stopped), (Texts{"a", "", "", "ENx", "b", ""}));
  EXPECT_FALSE(stopped);
  // Part of a false alarm may begin the next one.
  EXPECT_EQ(stream(letters("aab"), {"ab"}, &stopped), (Texts{"", "a", "", ""}));
  EXPECT_TRUE(stopped);
}

TEST(TextStream, TheEndReleasesWhatWasHeld) {
  EXPECT_EQ(stream(letters("aEN"), {"END"}), (Texts{"a", "", "", "EN"}));
}

TEST(TextStream, TheEarliestOfSeveralStopStringsCuts) {
  bool stopped = false;
  EXPECT_EQ(stream(letters("xbcd"), {"cd", "bc"}, &stopped), (Texts{"x", "", "", "", ""}));
  EXPECT_TRUE(stopped);
  EXPECT_EQ(stream(letters("aba"), {"abab", "ba"}, &stopped), (Texts{"", "", "a", ""}));
  EXPECT_TRUE(stopped) << "the shorter one is complete first";
}

TEST(TextStream, StopStringsCountBehindTheLeastTokensOnly) {
  bool stopped = false;
  EXPECT_EQ(stream(letters("ENDxENDy"), {"END"}, &stopped, 3), (Texts{"", "", "END", "x", "", "", "", "", ""}));
  EXPECT_TRUE(stopped);
  EXPECT_EQ(stream(letters("ENDx"), {"END"}, &stopped, 2), (Texts{"", "", "", "", ""}));
  EXPECT_TRUE(stopped) << "it ends with the third token";
  // Held for the longer one, the shorter one lies in the first tokens.
  EXPECT_EQ(stream(letters("abx"), {"ab", "abc"}, &stopped, 2), (Texts{"", "", "abx", ""}));
  EXPECT_FALSE(stopped);
  EXPECT_EQ(stream(letters("aEN"), {"EN"}, &stopped, 9), (Texts{"a", "", "EN", ""}));
  EXPECT_FALSE(stopped);
}

TEST(TextStream, EmptyStopStringsAreIgnored) {
  bool stopped = true;
  EXPECT_EQ(stream(letters("ab"), {"", ""}, &stopped), (Texts{"a", "b", ""}));
  EXPECT_FALSE(stopped);
}

TEST(TextStream, CharactersComeOutWhole) {
  const std::vector<int32_t> fox = storyteller().encode("🦊", AddedTokens::kPlain);
  ASSERT_GT(fox.size(), 1u) << "the vocabulary spells it in bytes";
  Texts out = stream(fox, {});
  for (size_t i = 0; i + 2 < out.size(); ++i) EXPECT_EQ(out[i], "");
  EXPECT_EQ(out[out.size() - 2], "🦊");
  // A stop string inside text of several bytes per character.
  bool stopped = false;
  std::vector<int32_t> ids = fox;
  ids.insert(ids.end(), fox.begin(), fox.end());
  std::string text;
  for (const std::string& piece : stream(ids, {"🦊🦊"}, &stopped)) text += piece;
  EXPECT_TRUE(stopped);
  EXPECT_EQ(text, "");
}

TEST(TextStream, ABrokenCharacterAtTheEndBecomesAReplacement) {
  std::vector<int32_t> fox = storyteller().encode("🦊", AddedTokens::kPlain);
  fox.pop_back();
  std::string text;
  for (const std::string& piece : stream(fox, {})) text += piece;
  EXPECT_EQ(text, "\xEF\xBF\xBD");
}

TEST(TextStream, SpecialTokensHaveNoText) {
  EXPECT_EQ(stream({*storyteller().bos_id(), id_of("a"), *storyteller().eos_id()}, {}), (Texts{"", "a", "", ""}));
}

// Random texts over two letters and random stop strings: what has come out after each token is everything before the
// first stop string that ends behind the least tokens, less the longest end that may still become one.
TEST(TextStream, EveryPushReleasesExactlyWhatIsCertain) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    Rng rng(seed);
    const auto word = [&](int64_t length) {
      std::string out;
      for (int64_t i = 0; i < length; ++i) out += rng.next_int(0, 2) == 0 ? 'b' : 'a';
      return out;
    };
    std::vector<std::string> stop;
    for (int64_t i = rng.next_int(0, 3); i > 0; --i) stop.push_back(word(rng.next_int(1, 5)));
    const std::string all = word(30);
    const auto least = static_cast<size_t>(std::max<int64_t>(rng.next_int(-10, 12), 0));
    TextStream text(&storyteller(), stop, {}, static_cast<int64_t>(least));
    std::string released;
    for (size_t n = 1; n <= all.size(); ++n) {
      released += text.push(id_of(all.substr(n - 1, 1)));
      const std::string seen = all.substr(0, n);
      size_t cut = std::string::npos;
      for (const std::string& s : stop) {
        size_t at = seen.find(s);
        while (at != std::string::npos && at + s.size() <= least) at = seen.find(s, at + 1);
        cut = std::min(cut, at);
      }
      ASSERT_EQ(text.stopped(), cut != std::string::npos) << "seed " << seed;
      if (cut != std::string::npos) {
        ASSERT_EQ(released, seen.substr(0, cut)) << "seed " << seed;
        break;
      }
      size_t held = 0;
      for (const std::string& s : stop) {
        for (size_t k = 1; k < s.size() && k <= n; ++k) {
          if (seen.ends_with(s.substr(0, k))) held = std::max(held, k);
        }
      }
      ASSERT_EQ(released, seen.substr(0, n - held)) << "seed " << seed;
    }
    if (text.stopped()) continue;
    ASSERT_EQ(released + text.finish(), all) << "seed " << seed;
  }
}

}  // namespace
}  // namespace lathe
