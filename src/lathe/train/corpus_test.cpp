#include "lathe/train/corpus.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "lathe/base/file.h"
#include "lathe/base/rng.h"
#include "lathe/base/str.h"
#include "lathe/train/corpus_filter.h"
#include "lathe/train/document_reader.h"
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
  EXPECT_EQ(corpus->statistics.find("train")->find("documents")->find("exact duplicate")->as_int(), 11);
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

}  // namespace
}  // namespace lathe::train
