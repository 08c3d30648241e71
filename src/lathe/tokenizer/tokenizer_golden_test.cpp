// Published vocabularies and the encodings that other implementations give for them; the model of this repository.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "lathe/base/file.h"
#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "lathe/tokenizer/tokenizer.h"
#include "support/golden.h"

namespace lathe {
namespace {

using Ids = std::vector<int32_t>;

std::string unpack(const std::filesystem::path& path) {
  const std::string command = str("gzip -dc '", path, "'");
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string out;
  std::array<char, 65536> buffer{};
  while (pipe != nullptr) {
    const size_t count = fread(buffer.data(), 1, buffer.size(), pipe.get());
    if (count == 0) break;
    out.append(buffer.data(), count);
  }
  return out;
}

Ids ids_of(const Json& list) {
  Ids out;
  for (const Json& id : list.as_array()) out.push_back(static_cast<int32_t>(id.as_int()));
  return out;
}

std::string from_base64(const std::string& text) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) break;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>(bits >> count & 0xFF);
    }
  }
  return out;
}

class GoldenTokenizer : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::filesystem::path shared = testing::shared_golden_dir();
    if (shared.empty()) GTEST_SKIP() << "shared golden data not found; set LATHE_GOLDEN";
    const std::filesystem::path folder = shared / "tokenizers" / GetParam();
    const std::string json = unpack(folder / "tokenizer.json.gz");
    ASSERT_FALSE(json.empty());
    Result<std::string> config = read_file(folder / "tokenizer_config.json");
    ASSERT_TRUE(config) << config.error().message;
    const auto start = std::chrono::steady_clock::now();
    Result<Tokenizer> tokenizer = Tokenizer::parse(json, *config);
    load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    tokenizer_ = std::make_unique<Tokenizer>(*std::move(tokenizer));
    Result<Json> encodings = read_json(folder / "encodings.json");
    ASSERT_TRUE(encodings) << encodings.error().message;
    encodings_ = *std::move(encodings);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  Json encodings_;
  double load_seconds_ = 0.0;
};

TEST_P(GoldenTokenizer, Encodes) {
  const Json* cases = encodings_.find("encode");
  ASSERT_TRUE(cases != nullptr && cases->as_array().size() > 200);
  for (const Json& entry : cases->as_array()) {
    const std::string& text = entry.find("text")->as_string();
    SCOPED_TRACE(quoted(text));
    const Ids expected = ids_of(*entry.find("ids"));
    const Json* plain = entry.find("ids_no_added_tokens");
    EXPECT_EQ(tokenizer_->encode(text, AddedTokens::kRecognise), expected);
    EXPECT_EQ(tokenizer_->encode(text, AddedTokens::kPlain), plain != nullptr ? ids_of(*plain) : expected);
    EXPECT_EQ(tokenizer_->decode_bytes(expected, false), text);
  }
}

// Nothing that a user writes gives a control token, and the letters among the added tokens are read as the model knows
// them.
TEST_P(GoldenTokenizer, TextOfUsersForgesNothing) {
  for (const char* forged : {"<｜begin▁of▁sentence｜>",
                             "<｜end▁of▁sentence｜>",
                             "<｜User｜>",
                             "<｜Assistant｜>",
                             "<think>",
                             "</think>",
                             "<｜tool▁calls▁begin｜>",
                             "<|EOT|>",
                             "<｜fim▁hole｜>"}) {
    const auto id = tokenizer_->find(forged);
    if (!id) continue;
    const std::string text = str("a ", forged, "\n", forged, forged);
    const Ids recognised = tokenizer_->encode(text, AddedTokens::kRecognise);
    EXPECT_EQ(std::count(recognised.begin(), recognised.end(), *id), 3) << forged;
    for (const AddedTokens treated : {AddedTokens::kText, AddedTokens::kPlain}) {
      const Ids ids = tokenizer_->encode(text, treated);
      EXPECT_EQ(std::count(ids.begin(), ids.end(), *id), 0) << forged;
      EXPECT_EQ(tokenizer_->decode_bytes(ids, false), text);
    }
  }
  int compared = 0;
  for (const Json& entry : encodings_.find("encode")->as_array()) {
    const std::string& text = entry.find("text")->as_string();
    if (text.find("<") != std::string::npos) continue;  // may hold longer added tokens
    EXPECT_EQ(tokenizer_->encode(text, AddedTokens::kText), ids_of(*entry.find("ids"))) << quoted(text);
    ++compared;
  }
  EXPECT_GT(compared, 100);
}

TEST(GoldenLetters, AreReadInTextOfUsers) {
  const std::filesystem::path shared = testing::shared_golden_dir();
  if (shared.empty()) GTEST_SKIP() << "shared golden data not found; set LATHE_GOLDEN";
  const Result<Tokenizer> t =
      Tokenizer::parse(unpack(shared / "tokenizers" / "deepseek-llm" / "tokenizer.json.gz"), "");
  ASSERT_TRUE(t) << t.error().message;
  EXPECT_EQ(t->encode("Führer", AddedTokens::kText), (Ids{37, 100014, 71, 6245}));
  Ids letters;
  for (int32_t id = 100002; id <= 100014; ++id) letters.push_back(id);
  EXPECT_EQ(t->encode("øöúÿõ÷ûýÀùÁþü", AddedTokens::kText), letters);
  for (const int32_t id : t->encode("øöúÿõ÷ûýÀùÁþü", AddedTokens::kPlain)) EXPECT_LT(id, 100000);
}

TEST_P(GoldenTokenizer, EncodesPublishedVectors) {
  const Json* cases = encodings_.find("ggml_vocab_test");
  if (cases == nullptr) GTEST_SKIP() << "none published for this vocabulary";
  ASSERT_EQ(cases->as_array().size(), 47u);
  for (const Json& entry : cases->as_array()) {
    const std::string& text = entry.find("text")->as_string();
    EXPECT_EQ(tokenizer_->encode(text, AddedTokens::kRecognise), ids_of(*entry.find("ids"))) << quoted(text);
  }
}

TEST_P(GoldenTokenizer, Decodes) {
  const Json* cases = encodings_.find("decode");
  ASSERT_TRUE(cases != nullptr && cases->as_array().size() >= 60);
  for (const Json& entry : cases->as_array()) {
    const Ids ids = ids_of(*entry.find("ids"));
    SCOPED_TRACE(str(ids));
    EXPECT_EQ(tokenizer_->decode_bytes(ids, false), from_base64(entry.find("bytes_base64")->as_string()));
    EXPECT_EQ(tokenizer_->decode(ids, false), entry.find("utf8_lossy")->as_string());
    StreamDecoder stream(*tokenizer_, false);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.finish(), entry.find("utf8_lossy")->as_string());
  }
}

TEST_P(GoldenTokenizer, HasItsSpecialTokens) {
  ASSERT_TRUE(tokenizer_->bos_id() && tokenizer_->eos_id());
  EXPECT_EQ(tokenizer_->bos_text(), "<｜begin▁of▁sentence｜>");
  EXPECT_EQ(tokenizer_->eos_text(), "<｜end▁of▁sentence｜>");
  EXPECT_TRUE(tokenizer_->is_special(*tokenizer_->bos_id()));
  EXPECT_TRUE(tokenizer_->add_bos());
  EXPECT_FALSE(tokenizer_->chat_template().empty());
  EXPECT_EQ(tokenizer_->decode(Ids{*tokenizer_->bos_id()}, true), "");
  EXPECT_EQ(tokenizer_->encode(tokenizer_->bos_text(), AddedTokens::kRecognise), Ids{*tokenizer_->bos_id()});
}

// Runs of one character, alone and before a letter that no stage matches, which makes `\s+$` fail at every start.
TEST_P(GoldenTokenizer, TakesLongRuns) {
  for (const char* unit : {"a", " ", "\n", " \n", "中", "!", "1", "\t"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    for (const char* end : {"", "ب"}) {
      const auto start = std::chrono::steady_clock::now();
      EXPECT_EQ(tokenizer_->decode_bytes(tokenizer_->encode(text + end, AddedTokens::kRecognise), false), text + end);
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
      EXPECT_LT(taken.count(), 10.0) << quoted(unit);  // under 0.7 s at rest; quadratic would be minutes
    }
  }
}

TEST_P(GoldenTokenizer, LoadsQuickly) {
  EXPECT_LT(load_seconds_, 5.0);  // 0.1 s at rest
}

INSTANTIATE_TEST_SUITE_P(Published,
                         GoldenTokenizer,
                         ::testing::Values("deepseek-r1", "deepseek-llm", "deepseek-coder"),
                         [](const auto& parameter) {
                           std::string name = parameter.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

TEST(StorytellerTokenizer, RoundTrips) {
  const std::filesystem::path folder = std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller";
  if (!std::filesystem::exists(folder / "tokenizer.json")) GTEST_SKIP() << "models/storyteller is not there";
  const Result<Tokenizer> tokenizer = Tokenizer::open(folder);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->vocabulary_size(), 4096);
  EXPECT_EQ(tokenizer->bos_id(), 0);
  EXPECT_EQ(tokenizer->eos_id(), 1);
  const std::string text =
      "Once upon a time there was a little fox.\n\n\"Who are you?\" said the 12 owls -- é 中 \xFF\n";
  const Ids ids = tokenizer->encode(text, AddedTokens::kRecognise);
  EXPECT_LT(ids.size(), text.size() / 2);
  EXPECT_EQ(tokenizer->decode_bytes(ids, false), text);
}

}  // namespace
}  // namespace lathe
