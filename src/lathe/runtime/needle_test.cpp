// Prompts of passkey retrieval: their length, the place of the key, what depends on what; scores against a plain pass
// over the same tokens.
#include "lathe/runtime/needle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace lathe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::filesystem::path storyteller_folder() {
  return std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller";
}

class Needle : public ::testing::Test {
 protected:
  Tokenizer tokenizer_ = Tokenizer::open(storyteller_folder()).value();

  NeedlePrompts prompts(NeedleOptions options = {}) { return NeedlePrompts::create(tokenizer_, options).value(); }
};

int64_t size_of(const std::vector<int32_t>& ids) {
  return static_cast<int64_t>(ids.size());
}

TEST(NamesKey, TheFirstNumberCounts) {
  EXPECT_TRUE(names_key(" 12345", "12345"));
  EXPECT_TRUE(names_key("The passkey is 12345.", "12345"));
  EXPECT_TRUE(names_key("12345 or 54321", "12345"));
  EXPECT_FALSE(names_key("54321 or 12345", "12345"));
  EXPECT_FALSE(names_key("123456", "12345"));
  EXPECT_FALSE(names_key("no idea", "12345"));
  EXPECT_FALSE(names_key("", "12345"));
}

TEST(NeedleGrid, IsThatOfThePaper) {
  EXPECT_THAT(needle_depths(), ElementsAre(0, 9, 18, 27, 36, 45, 55, 64, 73, 82, 91, 100));
  std::vector<int64_t> thousands = needle_lengths(100, 131072);
  for (int64_t& length : thousands) length = length / 1024;
  EXPECT_THAT(thousands, ElementsAre(1, 12, 24, 35, 47, 58, 70, 81, 93, 104, 116, 128));
  EXPECT_THAT(needle_lengths(150, 512).front(), 150);
  EXPECT_THAT(needle_lengths(150, 512).back(), 512);
  EXPECT_TRUE(std::ranges::is_sorted(needle_lengths(150, 512)));
  EXPECT_THAT(needle_lengths(512, 512), ElementsAre(512));
}

TEST_F(Needle, PromptsFillTheirLength) {
  const NeedlePrompts all = prompts();
  for (const int64_t length : {all.shortest(), all.shortest() + 1, int64_t{200}, int64_t{777}, int64_t{3000}}) {
    for (const double depth : {0.0, 0.3, 1.0}) {
      const NeedlePrompt prompt = all.make(length, depth, 0).value();
      const int64_t tokens = size_of(prompt.prompt) + prompt.room;
      EXPECT_LE(tokens, length);
      EXPECT_GT(tokens, length - 26) << "one more sentence would have fitted";
      EXPECT_EQ(tokenizer_.decode(prompt.answer, false), " " + prompt.key);
      EXPECT_EQ(tokenizer_.decode(prompt.prompt, true), prompt.text);
    }
  }
}

TEST_F(Needle, TheKeyStandsWhereItShould) {
  const NeedlePrompts all = prompts();
  const NeedlePrompt first = all.make(600, 0.0, 0).value();
  EXPECT_THAT(first.text, HasSubstr("passkey.\n\nThe passkey is " + first.key));
  EXPECT_EQ(first.depth, 0.0);
  const NeedlePrompt last = all.make(600, 1.0, 0).value();
  EXPECT_THAT(last.text, HasSubstr(last.key + " is the passkey.\n\nWhat is the passkey? The passkey is"));
  EXPECT_EQ(last.depth, 1.0);
  for (const double depth : {0.2, 0.5, 0.9}) {
    const NeedlePrompt prompt = all.make(2000, depth, 3).value();
    EXPECT_NEAR(prompt.depth, depth, 0.01);
    const auto at = static_cast<double>(prompt.text.find(prompt.key));
    EXPECT_NEAR(at / static_cast<double>(prompt.text.size()), depth, 0.05);
  }
}

TEST_F(Needle, SeedLengthDepthAndSampleDecide) {
  const NeedlePrompts all = prompts({.seed = 7});
  const NeedlePrompt one = all.make(400, 0.5, 2).value();
  EXPECT_EQ(one.prompt, prompts({.seed = 7}).make(400, 0.5, 2).value().prompt);
  std::set<std::string> keys = {one.key};
  keys.insert(all.make(400, 0.5, 3).value().key);
  keys.insert(all.make(401, 0.5, 2).value().key);
  keys.insert(all.make(400, 0.6, 2).value().key);
  keys.insert(prompts({.seed = 8}).make(400, 0.5, 2).value().key);
  EXPECT_EQ(keys.size(), 5U);
  for (int64_t sample = 0; sample < 50; ++sample) {
    const std::string key = all.make(all.shortest(), 0.5, sample).value().key;
    EXPECT_EQ(key.size(), 5U);
    EXPECT_NE(key.front(), '0');
  }
}

TEST_F(Needle, ATextOfOnesOwnKeepsItsOrderAndStartsOver) {
  const NeedlePrompts all = prompts({.filler = "Alpha one.  Beta two!\nGamma \"three?\" Delta four"});
  const NeedlePrompt prompt = all.make(300, 1.0, 0).value();
  EXPECT_THAT(prompt.text, HasSubstr("Alpha one. Beta two! Gamma \"three?\" Delta four Alpha one."));
  const Result<NeedlePrompts> none = NeedlePrompts::create(tokenizer_, {.filler = " \n "});
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().message, "expected a text to hide a key in, found no word");
}

TEST_F(Needle, TheChatFormIsAUsersMessage) {
  const ChatTemplate chat =
      ChatTemplate::compile("<{{ messages[0].role }}>{{ messages[0].content }}<assistant>").value();
  const NeedlePrompt prompt = prompts({.chat = &chat}).make(400, 0.5, 0).value();
  const std::string text = tokenizer_.decode(prompt.prompt, true);
  EXPECT_EQ(text, "<user>" + prompt.text + "<assistant>");
  EXPECT_THAT(text, HasSubstr(prompt.key));
  EXPECT_TRUE(prompt.text.ends_with("Answer with the number alone."));
  EXPECT_EQ(tokenizer_.decode(prompt.answer, false), prompt.key);
  const ChatTemplate broken = ChatTemplate::compile("{{ raise_exception('no') }}").value();
  EXPECT_FALSE(NeedlePrompts::create(tokenizer_, {.chat = &broken}).has_value());
}

class NeedleScores : public Needle {
 protected:
  std::unique_ptr<Engine> engine_ = Engine::open({.model = storyteller_folder(), .threads = 2}).value();

  // Mean log-probability and reciprocal rank of the answer, from the logits of all positions.
  std::pair<double, double> plain_scores(const NeedlePrompt& prompt) {
    std::vector<int32_t> ids = prompt.prompt;
    ids.insert(ids.end(), prompt.answer.begin(), prompt.answer.end());
    std::vector<std::vector<float>> rows;
    const auto vocab = engine_->config().vocab_size;
    EXPECT_TRUE(engine_->score(ids, [&](int64_t, int64_t count, const float* logits) {
      for (int64_t i = 0; i < count; ++i) rows.emplace_back(logits + i * vocab, logits + (i + 1) * vocab);
      return true;
    }));
    double logprob = 0.0;
    double reciprocal = 0.0;
    for (size_t i = 0; i < prompt.answer.size(); ++i) {
      const std::vector<float>& row = rows[prompt.prompt.size() - 1 + i];
      const float wanted = row[static_cast<size_t>(prompt.answer[i])];
      double sum = 0.0;
      for (const float value : row) sum += std::exp(static_cast<double>(value - wanted));
      logprob -= std::log(sum);
      reciprocal += 1.0 / static_cast<double>(1 + std::ranges::count_if(row, [&](float v) { return v > wanted; }));
    }
    const auto count = static_cast<double>(prompt.answer.size());
    return {logprob / count, reciprocal / count};
  }
};

TEST_F(NeedleScores, AgreeWithAPassOverTheSameTokens) {
  const NeedlePrompt prompt = prompts().make(260, 0.5, 0).value();
  const NeedleScore score = score_needle(*engine_, prompt, {}).value();
  const auto [logprob, reciprocal] = plain_scores(prompt);
  EXPECT_NEAR(score.logprob, logprob, 1e-4);
  EXPECT_NEAR(score.reciprocal_rank, reciprocal, 1e-9);
  EXPECT_EQ(score.exact, names_key(score.text, prompt.key));
  EXPECT_GT(score.computed, size_of(prompt.prompt));
}

TEST_F(NeedleScores, AnAnswerThatIsGivenNeedsNoSecondPass) {
  // What the model says anyhow is taken for the key.
  NeedlePrompt prompt = prompts().make(200, 0.5, 1).value();
  Request request;
  request.prompt = prompt.prompt;
  request.max_tokens = prompt.room;
  request.sampling.temperature = 0.0;
  const Completion completion = engine_->generate(std::move(request)).value();
  ASSERT_GE(completion.tokens.size(), 3U);
  prompt.answer.clear();
  for (size_t i = 0; i < 3; ++i) prompt.answer.push_back(completion.tokens[i].id);
  const NeedleScore score = score_needle(*engine_, prompt, {}).value();
  EXPECT_EQ(score.reciprocal_rank, 1.0);
  EXPECT_EQ(score.computed, size_of(prompt.prompt) + static_cast<int64_t>(completion.tokens.size()));
  EXPECT_NEAR(score.logprob, plain_scores(prompt).first, 0.02);
  EXPECT_LT(score.logprob, 0.0);
}

TEST_F(NeedleScores, StopWhenToldTo) {
  const NeedlePrompt prompt = prompts().make(260, 0.5, 0).value();
  int all = 0;
  ASSERT_TRUE(score_needle(*engine_, prompt, [&] { return ++all > 0; }).has_value());
  ASSERT_GE(all, 3) << "asked in both passes";
  for (const int allowed : {0, 1, all - 1}) {
    int asked = 0;
    const Result<NeedleScore> score = score_needle(*engine_, prompt, [&] { return ++asked <= allowed; });
    ASSERT_FALSE(score.has_value()) << allowed;
    EXPECT_EQ(score.error().code, Errc::kCancelled);
  }
  EXPECT_TRUE(score_needle(*engine_, prompt, {}).has_value()) << "the engine can be used again";
}

}  // namespace
}  // namespace lathe
