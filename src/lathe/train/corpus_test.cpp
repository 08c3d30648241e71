#include "lathe/train/corpus.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <set>

#include "lathe/base/file.h"
#include "lathe/base/rng.h"
#include "lathe/base/str.h"
#include "lathe/train/corpus_filter.h"
#include "lathe/train/corpus_statistics.h"
#include "lathe/train/corpus_text.h"
#include "lathe/train/document_reader.h"
#include "lathe/train/prepare.h"
#include "lathe/train/recipe.h"
#include "support/temp_dir.h"

namespace lathe::train {
namespace {

std::vector<std::string> documents_of(const std::filesystem::path& path, std::string* error = nullptr) {
  Result<DocumentReader> reader = DocumentReader::open(path);
  std::vector<std::string> out;
  if (!reader) {
    if (error != nullptr) *error = reader.error().message;
    return out;
  }
  std::string text;
  while (true) {
    const Result<bool> more = reader->next(text);
    if (!more && error != nullptr) *error = more.error().message;
    if (!more || !*more) return out;
    out.push_back(text);
  }
}

// zstd's frame format with uncompressed blocks only: magic, a descriptor for a window, raw blocks of at most 100 bytes.
std::string zstd_frame(std::string_view text) {
  std::string out("\x28\xB5\x2F\xFD\x00\x58", 6);
  size_t at = 0;
  do {
    const size_t size = std::min<size_t>(100, text.size() - at);
    const bool last = at + size == text.size();
    const auto header = static_cast<uint32_t>(size << 3 | (last ? 1 : 0));
    for (int i = 0; i < 3; ++i) out += static_cast<char>(header >> (8 * i) & 0xFF);
    out += text.substr(at, size);
    at += size;
  } while (at < text.size());
  return out;
}

TEST(DocumentReader, CutsPlainTextAtSeparatorLines) {
  testing::TempDir folder;
  ASSERT_TRUE(write_file_atomically(
      folder / "a.txt", "One.\n\nTwo.\n<|endoftext|>\r\nx <|endoftext|>\n<|endoftext|>\n<|endoftext|>\nlast"));
  const std::vector<std::string> expected{"One.\n\nTwo.", "x <|endoftext|>", "last"};
  EXPECT_EQ(documents_of(folder / "a.txt"), expected);
  const std::string text = *read_file(folder / "a.txt");
  ASSERT_TRUE(write_file_atomically(folder / "a.txt.zst", zstd_frame(text.substr(0, 9)) + zstd_frame(text.substr(9))));
  EXPECT_EQ(documents_of(folder / "a.txt.zst"), expected);
  std::string error;
  std::string cut = zstd_frame(text);
  cut.resize(cut.size() - 5);
  ASSERT_TRUE(write_file_atomically(folder / "cut.zst", cut));
  (void)documents_of(folder / "cut.zst", &error);
  EXPECT_TRUE(error.ends_with("cut.zst: expected the end of a zstd frame, found the end of the file")) << error;
  ASSERT_TRUE(write_file_atomically(folder / "no.zst", "not packed"));
  (void)documents_of(folder / "no.zst", &error);
  EXPECT_NE(error.find("no.zst: not readable as zstd: "), std::string::npos) << error;
  ASSERT_TRUE(write_file_atomically(folder / "latin.txt", "caf\xE9"));
  EXPECT_EQ(documents_of(folder / "latin.txt"), std::vector<std::string>{"caf\xEF\xBF\xBD"});
}

TEST(DocumentReader, ReadsJsonLinesAndNamesTheLine) {
  testing::TempDir folder;
  ASSERT_TRUE(write_file_atomically(folder / "a.jsonl", "{\"text\": \"a\\nb\", \"id\": 1}\n\n{\"text\": \"c\"}\n"));
  EXPECT_EQ(documents_of(folder / "a.jsonl"), (std::vector<std::string>{"a\nb", "c"}));
  ASSERT_TRUE(write_file_atomically(folder / "b.jsonl", "{\"text\": \"a\"}\n{\"body\": \"c\"}\n"));
  std::string error;
  EXPECT_EQ(documents_of(folder / "b.jsonl", &error).size(), 1u);
  EXPECT_TRUE(error.ends_with("b.jsonl: line 2: expected an object with text in \"text\", found none")) << error;
}

TEST(CorpusFilter, CleansText) {
  EXPECT_EQ(cleaned("\r\n\r\na  \r\nb\x01\x7F\t\n\n\n\n c\r\n\n"), "a\nb\n\n c");
  EXPECT_EQ(cleaned("x\xC2\x85y \xC2\xA0z"), "xy \xC2\xA0z");
  EXPECT_EQ(cleaned(" \n\t\n"), "");
}

TEST(CorpusFilter, MeasuresShares) {
  EXPECT_DOUBLE_EQ(symbol_share("abc {}\xE2\x86\x92z"), 3.0 / 8.0);
  EXPECT_DOUBLE_EQ(repeated_line_share("a\nb\n\na\na\n"), 0.5);
  EXPECT_DOUBLE_EQ(stop_word_share("The cat, and THE dog"), 0.6);
  EXPECT_DOUBLE_EQ(stop_word_share(""), 0.0);
  EXPECT_DOUBLE_EQ(digit_share("a1\xC3\xA9"
                               "2"),
                   0.5);
  EXPECT_DOUBLE_EQ(mean_word_length("The \xC3\xA9t\xC3\xA9, a --"), 7.0 / 3.0);
  // Ten words have six sequences of five, of which the last one is the first.
  EXPECT_DOUBLE_EQ(repeated_phrase_share("a b c d e A, B c d e"), 1.0 / 6.0);
  EXPECT_DOUBLE_EQ(repeated_phrase_share("a b a b"), 0.0);
}

std::string words(uint64_t seed, int count) {
  Rng rng(seed);
  std::string out;
  for (int i = 0; i < count; ++i) {
    for (int64_t n = rng.next_int(2, 7); n > 0; --n) out += static_cast<char>('a' + rng.next_int(0, 25));
    out += ' ';
  }
  return out;
}

TEST(CorpusFilter, LeavesOutCopiesAndNearCopies) {
  CorpusFilter filter(DataRecipe{.drop_near_duplicates = true, .duplicate_similarity = 0.7});
  std::string base = words(1, 400);
  std::string same = base;
  std::string near = base;
  near.replace(near.size() / 2, 5, "other");
  std::string half = words(1, 200) + words(2, 200);
  std::string different = words(3, 400);
  EXPECT_EQ(filter.check(base), Verdict::kKept);
  EXPECT_EQ(filter.check(same), Verdict::kExactDuplicate);
  EXPECT_EQ(filter.check(near), Verdict::kNearDuplicate);
  EXPECT_EQ(filter.check(half), Verdict::kKept);
  EXPECT_EQ(filter.check(different), Verdict::kKept);
  // The estimate against the truth: half of the shingles of both are common, so a third of their union.
  EXPECT_NEAR(similarity(min_hash(base), min_hash(half)), 1.0 / 3.0, 0.18);
  EXPECT_EQ(similarity(min_hash(base), min_hash(base)), 1.0);
  EXPECT_LT(similarity(min_hash(base), min_hash(different)), 0.1);
}

// The text with every `every`-th word replaced.
std::string edited(const std::string& text, int every) {
  std::string out;
  int at = 0;
  each_word(text, [&](std::string_view word) {
    out += ++at % every == every / 2 ? str("edit", at) : std::string(word);
    out += ' ';
  });
  return out;
}

// Shingles in both texts over shingles in either, from the sets themselves.
double jaccard(const std::string& a, const std::string& b) {
  const auto shingles = [](const std::string& text) {
    std::set<uint64_t> out;
    each_phrase(text, [&](uint64_t phrase) { out.insert(phrase); });
    return out;
  };
  const std::set<uint64_t> left = shingles(a);
  const std::set<uint64_t> right = shingles(b);
  const auto both = static_cast<double>(std::ranges::count_if(left, [&](uint64_t s) { return right.contains(s); }));
  return both / (static_cast<double>(left.size() + right.size()) - both);
}

TEST(CorpusFilter, SignaturesEstimateTheSimilarity) {
  double squares = 0.0;
  int pairs = 0;
  for (const int every : {200, 60, 30, 15, 8}) {
    for (uint64_t seed = 0; seed < 8; ++seed) {
      const std::string a = words(100 * static_cast<uint64_t>(every) + seed, 400);
      const std::string b = edited(a, every);
      const double error = similarity(min_hash(a), min_hash(b)) - jaccard(a, b);
      EXPECT_LT(std::fabs(error), 0.25) << every;
      squares += error * error;
      ++pairs;
    }
  }
  EXPECT_LT(std::sqrt(squares / pairs), 0.075) << "0.5 / sqrt(64) at most, and less far from 0.5";
}

// Originals, then copies of them with every `every`-th word replaced, then as many texts of their own: how many copies
// and how many others are near duplicates.
std::array<int, 2> near_duplicates(int every) {
  constexpr uint64_t kTexts = 200;
  const auto original = [every](uint64_t i) { return words(1000 * static_cast<uint64_t>(every) + i, 300); };
  CorpusFilter filter(DataRecipe{.drop_near_duplicates = true, .duplicate_similarity = 0.8});
  std::array<int, 2> out{};
  for (uint64_t i = 0; i < 3 * kTexts; ++i) {
    const bool copy = i / kTexts == 1;
    std::string text = copy ? edited(original(i - kTexts), every) : original(i);
    out[copy ? 0 : 1] += filter.check(text) == Verdict::kNearDuplicate ? 1 : 0;
  }
  return out;
}

TEST(CorpusFilter, FindsNearCopiesWithPrecisionAndRecall) {
  // Similarities of about 0.91 and 0.5; the limit is 0.8.
  const auto [near_copies, near_others] = near_duplicates(100);
  EXPECT_GE(near_copies, 196) << "of 200";
  EXPECT_EQ(near_others, 0);
  const auto [half_copies, half_others] = near_duplicates(15);
  EXPECT_LE(half_copies, 2);
  EXPECT_EQ(half_others, 0);
}

TEST(CorpusFilter, TakesOutKnownParagraphs) {
  CorpusFilter filter(DataRecipe{.drop_known_paragraphs = true});
  const std::string shared = cleaned(words(1, 30));
  const std::string a = cleaned(words(2, 90));
  const std::string b = cleaned(words(3, 90));
  const std::string first = a + "\n\n" + shared + "\n\nYes.";
  std::string text = first;
  Edits edits;
  EXPECT_EQ(filter.check(text, &edits), Verdict::kKept);
  EXPECT_EQ(text, first);
  EXPECT_EQ(edits.paragraphs, 0);
  text = shared + "\n\n" + b + "\n\nYes.";
  EXPECT_EQ(filter.check(text, &edits), Verdict::kKept);
  EXPECT_EQ(text, b + "\n\nYes.") << "short paragraphs stay";
  EXPECT_EQ(edits.paragraphs, 1);
  text = shared;
  EXPECT_EQ(filter.check(text, &edits), Verdict::kKnownParagraphs);
}

TEST(CorpusFilter, TakesOutLinesOfManyDocuments) {
  const std::string notice = "This text was made freely available by somebody.";
  auto lines = std::make_unique<FrequentLines>(10);
  const auto document = [&](int i) { return str(notice, "\n\nStory number ", i, " has its own words.\nYes!"); };
  for (int i = 0; i < 12; ++i) lines->observe(document(i));
  for (int i = 0; i < 9; ++i) lines->observe("Nine documents are not many of them.");
  std::string twice = "One document that says it often.";
  for (int i = 0; i < 20; ++i) twice += "\nOne document that says it often.";
  lines->observe(twice);
  lines->finish();
  CorpusFilter filter(DataRecipe{}, std::move(lines));
  Edits edits;
  std::string text = document(3);
  EXPECT_EQ(filter.check(text, &edits), Verdict::kKept);
  EXPECT_EQ(text, "Story number 3 has its own words.\nYes!");
  EXPECT_EQ(edits.lines, 1);
  for (const std::string& kept : {std::string("Nine documents are not many of them."), twice}) {
    text = kept;
    EXPECT_EQ(filter.check(text, &edits), Verdict::kKept);
    EXPECT_EQ(text, kept);
  }
  text = notice;
  EXPECT_EQ(filter.check(text, &edits), Verdict::kFrequentLines);
}

TEST(CorpusFilter, CountsLinesInBoundedMemory) {
  // 1.5 million different lines, more than are counted at once; the notice is in one document of hundred.
  FrequentLines lines(10);
  constexpr int kLines = 1500;
  const std::string notice = "All rights are with whoever wrote it.";
  for (int i = 0; i < 1000; ++i) {
    std::string text = i % 100 == 0 ? notice : std::string();
    for (int j = 0; j < kLines; ++j) text += str("\nline of its own number ", i * kLines + j);
    lines.observe(text);
  }
  lines.finish();
  std::string text = notice + "\nline of its own number 7";
  EXPECT_EQ(lines.remove_from(text), 1);
  EXPECT_EQ(text, "line of its own number 7");
}

TEST(CorpusStatistics, EstimatesHowManyThingsDiffer) {
  for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{50}, int64_t{5000}, int64_t{60000}, int64_t{400000}}) {
    DistinctCounter counter;
    for (int round = 0; round < 2; ++round) {
      for (int64_t i = 0; i < count; ++i) counter.add(hash_text(str("word", i)));
    }
    EXPECT_NEAR(static_cast<double>(counter.estimate()), static_cast<double>(count), 0.03 * static_cast<double>(count));
  }
}

TEST(CorpusFilter, AppliesTheLimits) {
  CorpusFilter filter(DataRecipe{
      .min_chars = 4, .max_chars = 60, .max_symbol_ratio = 0.3, .max_repetition = 0.4, .min_stop_words = 0.2});
  const auto verdict = [&](std::string text) { return filter.check(text); };
  EXPECT_EQ(verdict(" \n"), Verdict::kEmpty);
  EXPECT_EQ(verdict("\xC3\xA9\xC3\xA9"), Verdict::kTooShort);
  EXPECT_EQ(verdict(std::string(61, 'x')), Verdict::kTooLong);
  EXPECT_EQ(verdict("{{{{ the }}}}"), Verdict::kSymbols);
  EXPECT_EQ(verdict("the\nthe\nthe\nthe"), Verdict::kRepetition);
  EXPECT_EQ(verdict("lorem ipsum dolor sit amet"), Verdict::kFewStopWords);
  EXPECT_EQ(verdict("it was the end of the day"), Verdict::kKept);

  CorpusFilter more(
      DataRecipe{.max_digit_ratio = 0.3, .min_word_length = 2.0, .max_word_length = 9.0, .max_repeated_phrases = 0.2});
  const auto other = [&](std::string text) { return more.check(text); };
  EXPECT_EQ(other("in 1984 and 1985"), Verdict::kDigits);
  EXPECT_EQ(other("a b c d e"), Verdict::kWordLength);
  EXPECT_EQ(other("incomprehensibilities"), Verdict::kWordLength);
  EXPECT_EQ(other("he said that it was, he said that it was"), Verdict::kKept) << "one of six sequences comes again";
  EXPECT_EQ(other("he said that it was, he said that it was he"), Verdict::kPhrases) << "two of seven do";
}

TEST(Corpus, IsPreparedOnceAndMadeAnewWhenItsTextChanges) {
  testing::TempDir folder;
  std::string text;
  for (uint64_t i = 0; i < 30; ++i) text += words(i % 20, 60) + "\n<|endoftext|>\n";
  ASSERT_TRUE(write_file_atomically(folder / "train.txt", text));
  ASSERT_TRUE(write_file_atomically(folder / "valid.txt", words(5, 60) + "\n<|endoftext|>\n" + words(99, 60)));
  Recipe recipe;
  recipe.data.train = {(folder / "train.txt").string()};
  recipe.data.valid = {(folder / "valid.txt").string()};
  recipe.tokenizer.vocab_size = 300;
  Result<PreparedTokenizer> tokenizer = prepare_tokenizer(recipe, folder / "cache", {});
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->tokenizer.vocabulary_size(), 300);
  const Result<PreparedCorpus> corpus = prepare_corpus(recipe, *tokenizer, folder / "cache", {});
  ASSERT_TRUE(corpus) << corpus.error().message;
  ASSERT_EQ(corpus->train.size(), 1u);
  // Of 30 documents ten are copies, and one more lies in the validation text.
  EXPECT_EQ(corpus->train[0].documents(), 19);
  EXPECT_EQ(corpus->valid.documents(), 2);
  const Json& train = *corpus->statistics.find("train");
  EXPECT_EQ(train.find("documents")->find("exact duplicate")->as_int(), 11);
  EXPECT_EQ(train.find("words")->as_int(), 19 * 60);
  EXPECT_EQ(train.find("files")->as_array()[0].find("documents_read")->as_int(), 30);
  EXPECT_EQ(train.find("files")->as_array()[0].find("tokens")->as_int(), corpus->train[0].tokens());
  const Result<std::string> removed = read_file(corpus->folder / "removed.jsonl");
  ASSERT_TRUE(removed);
  EXPECT_EQ(std::ranges::count(*removed, '\n'), 11);
  EXPECT_TRUE(removed->starts_with(R"({"reason":"exact duplicate","set":"train","text":")")) << *removed;
  std::vector<int32_t> ids;
  corpus->train[0].shards[0].read(0, ids);
  EXPECT_EQ(ids.front(), 0);
  EXPECT_EQ(ids.back(), 1);
  EXPECT_EQ(tokenizer->tokenizer.decode(ids, true), cleaned(words(0, 60)));

  const auto folders = [&] {
    return std::distance(std::filesystem::directory_iterator(folder / "cache"), std::filesystem::directory_iterator());
  };
  EXPECT_EQ(folders(), 2);
  // A second run finds everything and reads no text.
  ASSERT_TRUE(prepare_corpus(recipe, *tokenizer, folder / "cache", [] { return true; }));
  ASSERT_TRUE(write_file_atomically(folder / "train.txt", text + words(77, 60)));
  const Result<PreparedCorpus> stopped = prepare_corpus(recipe, *tokenizer, folder / "cache", [] { return true; });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, Errc::kCancelled);
  const Result<PreparedCorpus> grown = prepare_corpus(recipe, *tokenizer, folder / "cache", {});
  ASSERT_TRUE(grown);
  EXPECT_EQ(grown->train[0].documents(), 20);

  recipe.data.valid = {(folder / "none.txt").string()};
  EXPECT_NE(prepare_corpus(recipe, *tokenizer, folder / "cache", {}).error().message.find("data.valid: "),
            std::string::npos);
  recipe.data.train.clear();
  EXPECT_EQ(prepare_tokenizer(recipe, folder / "cache", {}).error().message,
            "data.train: expected files, found none (--set data.train=FILE)");
}

TEST(Corpus, SaysWhatIsInItAndHowItIsMixed) {
  testing::TempDir folder;
  std::string tales;
  std::string letters;
  for (uint64_t i = 0; i < 40; ++i) tales += words(i, 60) + "\n<|endoftext|>\n";
  for (uint64_t i = 0; i < 10; ++i) letters += words(1000 + i % 5, 80) + "\n<|endoftext|>\n";
  ASSERT_TRUE(write_file_atomically(folder / "tales.txt", tales));
  ASSERT_TRUE(write_file_atomically(folder / "letters.txt", letters));
  Recipe recipe;
  recipe.output = (folder / "run").string();
  recipe.data.train = {(folder / "tales.txt").string(), (folder / "letters.txt").string()};
  recipe.data.weights = {3.0, 1.0};
  recipe.tokenizer.vocab_size = 300;
  recipe.train.max_steps = 10;
  recipe.train.sequence_length = 128;
  const Result<DataSummary> summary = prepare_data(recipe, {});
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_EQ(summary->planned_tokens, 10 * 128 * 16);
  ASSERT_EQ(summary->mixture.size(), 2u);
  const MixtureShare& second = summary->mixture[1];
  EXPECT_EQ(second.name, "letters.txt");
  EXPECT_DOUBLE_EQ(second.share, 0.25);
  EXPECT_DOUBLE_EQ(second.passes, 0.25 * 20480.0 / static_cast<double>(second.tokens));
  const std::string text = summary->text();
  EXPECT_NE(text.find("train1: 5 of 10 documents, "), std::string::npos) << text;
  EXPECT_NE(text.find("  left out: 5 exact duplicate\n  400 words, about "), std::string::npos) << text;
  EXPECT_NE(text.find("  letters.txt: 25.0 %, "), std::string::npos) << text;
  EXPECT_EQ(summary->json().find("statistics")->find("train1")->find("tokens")->as_int(), second.tokens);

  // Filters that recipes once did not have are in the name only when they are used.
  const std::string name = summary->tokens.filename().string();
  recipe.data.drop_known_paragraphs = true;
  EXPECT_NE(prepare_data(recipe, {})->tokens.filename(), name);
  recipe.data.drop_known_paragraphs = false;
  recipe.data.weights.clear();
  const Result<DataSummary> whole = prepare_data(recipe, {});
  ASSERT_TRUE(whole);
  ASSERT_EQ(whole->mixture.size(), 1u);
  EXPECT_NE(whole->text().find("  letters.txt: 5 of 10 documents, "), std::string::npos) << whole->text();
}

}  // namespace
}  // namespace lathe::train
