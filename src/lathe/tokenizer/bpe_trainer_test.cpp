#include "lathe/tokenizer/bpe_trainer.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/rng.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {
namespace {

TrainedTokenizer trained(const std::vector<std::string>& texts, const BpeTrainerOptions& options) {
  Result<BpeTrainer> trainer = BpeTrainer::create(options);
  EXPECT_TRUE(trainer) << trainer.error().message;
  for (const std::string& text : texts) trainer->add(text);
  return trainer->train();
}

std::vector<std::string> merges_of(const TrainedTokenizer& tokenizer) {
  const Result<Json> json = parse_json(tokenizer.tokenizer_json);
  std::vector<std::string> out;
  for (const Json& merge : json->find("model")->find("merges")->as_array()) out.push_back(merge.as_string());
  return out;
}

TEST(BpeTrainer, MergesTheMostFrequentPairFirstAndTheLowestOfEqualOnes) {
  // hug x 10, pug x 5, pun x 12, bun x 4, hugs x 5 (the example of the BPE chapter of many courses): u g 20, then of
  // u n 16, h ug 15. Leading spaces would be a letter of their own, so that each word is a text here.
  std::vector<std::string> texts;
  for (const auto& [word, count] :
       std::map<std::string, int>{{"hug", 10}, {"pug", 5}, {"pun", 12}, {"bun", 4}, {"hugs", 5}}) {
    for (int i = 0; i < count; ++i) texts.push_back(word);
  }
  const TrainedTokenizer tokenizer = trained(texts, {.vocab_size = 258 + 3});
  EXPECT_EQ(merges_of(tokenizer), (std::vector<std::string>{"u g", "u n", "h ug"}));
  EXPECT_EQ(tokenizer.vocab_size, 261);
  // a b and c d come equally often.
  EXPECT_EQ(merges_of(trained({"cd", "ab", "cd", "ab"}, {.vocab_size = 300})),
            (std::vector<std::string>{"a b", "c d"}));
}

TEST(BpeTrainer, CountsOverlappingPairsRight) {
  // aaaa: the pair a a occurs three times, and aa aa once after the merge.
  EXPECT_EQ(merges_of(trained({"aaaa", "aaaa"}, {.vocab_size = 300})), (std::vector<std::string>{"a a", "aa aa"}));
  EXPECT_EQ(merges_of(trained({"aaa", "aaa"}, {.vocab_size = 300})), (std::vector<std::string>{"a a", "aa a"}));
}

// The definition, without queues or lists: count every pair anew before each merge.
std::vector<std::string> by_definition(const std::vector<std::string>& words, int64_t merges) {
  std::vector<std::vector<std::string>> cut;
  std::map<std::string, int> rank;  // ids: bytes in order, then merges
  for (int c = 0; c < 128; ++c) rank[std::string(1, static_cast<char>(c))] = c;
  for (const std::string& word : words) {
    std::vector<std::string> letters;
    for (const char c : word) letters.emplace_back(1, c);
    cut.push_back(letters);
  }
  std::vector<std::string> out;
  while (static_cast<int64_t>(out.size()) < merges) {
    std::map<std::pair<int, int>, std::pair<int, std::pair<std::string, std::string>>> counts;
    for (const auto& word : cut) {
      for (size_t i = 0; i + 1 < word.size(); ++i) {
        auto& entry = counts[{rank[word[i]], rank[word[i + 1]]}];
        ++entry.first;
        entry.second = {word[i], word[i + 1]};
      }
    }
    int best = 1;
    std::pair<std::string, std::string> pair;
    for (const auto& [key, entry] : counts) {
      if (entry.first > best) {
        best = entry.first;
        pair = entry.second;
      }
    }
    if (best < 2) break;
    out.push_back(pair.first + " " + pair.second);
    const std::string merged = pair.first + pair.second;
    rank.emplace(merged, 128 + static_cast<int>(out.size()));
    for (auto& word : cut) {
      for (size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] != pair.first || word[i + 1] != pair.second) continue;
        word[i] = merged;
        word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
    }
  }
  return out;
}

TEST(BpeTrainer, AgreesWithTheDefinitionOnRandomWords) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    std::vector<std::string> words;
    for (int i = 0; i < 60; ++i) {
      std::string word;
      for (int64_t n = rng.next_int(1, 9); n > 0; --n) word += static_cast<char>('a' + rng.next_int(0, 3));
      words.push_back(word);
    }
    EXPECT_EQ(merges_of(trained(words, {.vocab_size = 258 + 60})), by_definition(words, 60));
  }
}

TEST(BpeTrainer, ItsTokenizerReadsAndWritesEveryText) {
  const std::string text = "Once upon a time, in 1875, there was a m\xC3\xBCller; he'd three sons.\n\n\tThe end!\n";
  for (const SplitPattern pattern : {SplitPattern::kGpt2, SplitPattern::kDeepseek}) {
    const TrainedTokenizer files = trained({text, text, text}, {.vocab_size = 320, .pattern = pattern});
    const Result<Tokenizer> tokenizer = Tokenizer::parse(files.tokenizer_json, files.tokenizer_config_json);
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    EXPECT_EQ(tokenizer->vocabulary_size(), files.vocab_size);
    EXPECT_EQ(tokenizer->bos_id(), 0);
    EXPECT_EQ(tokenizer->eos_id(), 1);
    EXPECT_TRUE(tokenizer->add_bos());
    const std::vector<int32_t> ids = tokenizer->encode(text, AddedTokens::kPlain);
    EXPECT_LT(ids.size(), text.size() / 2);
    EXPECT_EQ(tokenizer->decode(ids, false), text);
    const std::string other = "\xF0\x9F\x90\x89 99999 \xE4\xB8\xAD\xE6\x96\x87 {}";
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(other, AddedTokens::kPlain), false), other);
  }
}

TEST(BpeTrainer, TheOrderOfTextsDoesNotMatterAndMemoryIsBounded) {
  std::vector<std::string> texts;
  Rng rng(3);
  for (int i = 0; i < 300; ++i) {
    std::string text = "the king ";
    for (int j = 0; j < 5; ++j) text += static_cast<char>('a' + rng.next_int(0, 25));
    texts.push_back(text);
  }
  const TrainedTokenizer forwards = trained(texts, {.vocab_size = 400});
  const TrainedTokenizer backwards = trained({texts.rbegin(), texts.rend()}, {.vocab_size = 400});
  EXPECT_EQ(forwards.tokenizer_json, backwards.tokenizer_json);
  Result<BpeTrainer> bounded = BpeTrainer::create({.vocab_size = 400, .max_words = 50});
  ASSERT_TRUE(bounded);
  for (const std::string& text : texts) bounded->add(text);
  EXPECT_LE(bounded->words(), 51);
  const Result<BpeTrainer> refused = BpeTrainer::create({.vocab_size = 200});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "vocab_size: expected at least 258, found 200");
}

}  // namespace
}  // namespace lathe
