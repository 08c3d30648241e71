#include "lathe/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <random>
#include <thread>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

using Ids = std::vector<int32_t>;

// Text of a byte in GPT-2's alphabet.
std::string alphabet(unsigned char byte) {
  std::string out;
  char32_t next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    const char32_t c = printable ? static_cast<char32_t>(b) : next++;
    if (b == byte) append_utf8(out, c);
  }
  return out;
}

Json added(int id, const char* content, bool special) {
  Json out;
  out.set("id", id).set("content", content).set("special", special).set("normalized", !special);
  return out;
}

// A tokenizer with a token for each byte (id = byte), words, a merge of each form and added tokens:
//   256 "he"  257 "ll"  258 "hell"  259 "hello"  260 " h"  261 " hello"  262 "ab" without a merge
//   300 <s> special  301 </s> special  302 →  303 <s>x  304 [w] a whole word  305 [t] strips both sides
Json tiny() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab.set(alphabet(static_cast<unsigned char>(byte)), byte);
  int next = 256;
  for (const char* text : {"he", "ll", "hell", "hello", "Ġh", "Ġhello", "ab"}) vocab.set(text, next++);
  Json merges = Json::array();
  for (const char* merge : {"h e", "l l", "he ll", "hell o"}) merges.push(merge);
  merges.push(Json::Array{"Ġ", "h"});
  merges.push(Json::Array{"Ġ", "hello"});
  Json model;
  model.set("type", "BPE").set("dropout", nullptr).set("unk_token", nullptr).set("byte_fallback", false);
  model.set("vocab", vocab).set("merges", merges);

  Json split, byte_level, pattern, stages;
  pattern.set("Regex", "\\s?\\p{L}+|\\p{N}");
  split.set("type", "Split").set("pattern", pattern).set("behavior", "Isolated").set("invert", false);
  byte_level.set("type", "ByteLevel").set("add_prefix_space", false).set("use_regex", false);
  stages.set("type", "Sequence").set("pretokenizers", Json::Array{split, byte_level});

  Json word = added(304, "[w]", false), strip = added(305, "[t]", false);
  word.set("single_word", true);
  strip.set("lstrip", true).set("rstrip", true);
  Json out;
  out.set("version", "1.0").set("normalizer", nullptr).set("pre_tokenizer", stages);
  out.set("decoder", byte_level).set("model", model);
  out.set("added_tokens",
          Json::Array{added(300, "<s>", true),
                      added(301, "</s>", true),
                      added(302, "→", false),
                      added(303, "<s>x", true),
                      word,
                      strip});
  return out;
}

Json& at(Json& json, std::string_view key) {
  for (auto& [name, value] : json.as_object()) {
    if (name == key) return value;
  }
  return json.set(key, nullptr), at(json, key);
}

Tokenizer must_parse(const Json& json, std::string_view config = "") {
  Result<Tokenizer> out = Tokenizer::parse(json.dump(), config);
  if (!out) ADD_FAILURE() << out.error().message;
  return *std::move(out);
}

std::string parse_error(const Json& json, std::string_view config = "") {
  const Result<Tokenizer> out = Tokenizer::parse(json.dump(), config);
  return out ? "accepted" : out.error().message;
}

constexpr AddedTokens kAll = AddedTokens::kRecognise;

TEST(Tokenizer, MergesByRankWithinPieces) {
  const Tokenizer t = must_parse(tiny());
  // " h" has a worse rank than what makes "hello", so the word is whole before the space is looked at.
  EXPECT_EQ(t.encode("hello hello", kAll), (Ids{259, 261}));
  EXPECT_EQ(t.encode("hell he", kAll), (Ids{258, ' ', 256}));
  EXPECT_EQ(t.encode("hallo", kAll), (Ids{'h', 'a', 257, 'o'}));
  EXPECT_EQ(t.encode("", kAll), Ids{});
  EXPECT_EQ(t.encode("12", kAll), (Ids{'1', '2'}));
  EXPECT_EQ(t.encode("é", kAll), (Ids{0xC3, 0xA9}));
  // In the vocabulary, but no merge makes it; asked twice, as the answer is remembered.
  EXPECT_EQ(t.encode("ab", kAll), (Ids{'a', 'b'}));
  EXPECT_EQ(t.encode("ab", kAll), (Ids{'a', 'b'}));
}

TEST(Tokenizer, IgnoreMergesTakesWholeTokens) {
  Json json = tiny();
  at(json, "model").set("ignore_merges", true);
  EXPECT_EQ(must_parse(json).encode("ab abc", kAll), (Ids{262, ' ', 'a', 'b', 'c'}));
}

TEST(Tokenizer, AddedTokens) {
  const Tokenizer t = must_parse(tiny());
  EXPECT_EQ(t.encode("<s>hello</s>", kAll), (Ids{300, 259, 301}));
  EXPECT_EQ(t.encode("<s>xyz", kAll), (Ids{303, 'y', 'z'}));  // the longest
  EXPECT_EQ(t.encode("<s", kAll), (Ids{'<', 's'}));
  EXPECT_EQ(t.encode("<s><s>", kAll), (Ids{300, 300}));
  EXPECT_EQ(t.encode("h→!", kAll), (Ids{'h', 302, '!'}));
  EXPECT_EQ(t.encode("<s>h→", AddedTokens::kPlain), (Ids{'<', 's', '>', 'h', 0xE2, 0x86, 0x92}));
  EXPECT_EQ(t.encode("a[w]", kAll), (Ids{'a', '[', 'w', ']'}));
  EXPECT_EQ(t.encode("[w]é", kAll), (Ids{'[', 'w', ']', 0xC3, 0xA9}));
  EXPECT_EQ(t.encode("-[w] [w]", kAll), (Ids{'-', 304, ' ', 304}));
  EXPECT_EQ(t.encode("a \u3000[t]\n b", kAll), (Ids{'a', 305, 'b'}));
  EXPECT_EQ(t.encode("  [t]  [t]", kAll), (Ids{305, 305}));
}

// DeepSeek's vocabularies leave out bytes that UTF-8 never has, and list their images in the alphabet as added tokens:
// these are the letters themselves, in the text and in what they decode to.
TEST(Tokenizer, LettersOfTheAlphabetAsAddedTokens) {
  Json json = tiny();
  Json::Object& vocab = at(at(json, "model"), "vocab").as_object();
  std::erase_if(vocab, [](const Json::Member& m) { return m.second == Json(0xFC); });
  at(json, "added_tokens").push(added(306, "ü", false));
  const Tokenizer t = must_parse(json);
  EXPECT_EQ(t.encode("hü", kAll), (Ids{'h', 306}));
  EXPECT_EQ(t.decode_bytes(Ids{306}, false), "ü");
  EXPECT_FALSE(t.is_marker(306));
  EXPECT_EQ(t.encode("hü", AddedTokens::kPlain), (Ids{'h', 0xC3, 0xBC}));

  Json listed = tiny();  // in model.vocab as well
  at(listed, "added_tokens").push(added(0xFC, "ü", false));
  const Tokenizer both = must_parse(listed);
  EXPECT_EQ(both.encode("hü", kAll), (Ids{'h', 0xFC}));
  EXPECT_EQ(both.decode_bytes(Ids{0xFC}, false), "ü");
  EXPECT_EQ(both.decode(both.encode("\xFC", kAll), false), "\uFFFD");
  EXPECT_EQ(parse_error([] {
              Json other = tiny();
              at(other, "added_tokens").push(added(306, "ü", false));
              return other;
            }()),
            "tokenizer.json: added_tokens: \"ü\" has id 306, model.vocab has 252");
}

// What kText recognises: single letters (and Latin-1, where byte-level vocabularies keep bytes), nothing that is marked
// special, nothing longer.
TEST(Tokenizer, TextRecognisesLettersOnly) {
  Json json = tiny();
  Json::Object& vocab = at(at(json, "model"), "vocab").as_object();
  std::erase_if(vocab, [](const Json::Member& m) { return m.second == Json(0xFC) || m.second == Json(0xF7); });
  Json& list = at(json, "added_tokens");
  list.push(added(306, "ü", false)).push(added(307, "÷", false)).push(added(308, "ж", true));
  list.push(added(309, "ж2", false)).push(added(310, "üb", false)).push(added(311, "中", false));
  list.push(added('!', "!", false)).push(added(313, "e\u0301", false));
  const Tokenizer t = must_parse(json);
  constexpr AddedTokens kText = AddedTokens::kText;
  EXPECT_EQ(t.encode("hü÷中", kText), (Ids{'h', 306, 307, 311}));
  EXPECT_EQ(t.encode("übh", kText), (Ids{306, 'b', 'h'}));
  EXPECT_EQ(t.encode("übh", kAll), (Ids{310, 'h'}));
  EXPECT_EQ(t.encode("hüh", AddedTokens::kPlain), (Ids{'h', 0xC3, 0xBC, 'h'}));
  for (const char* text : {"<s>", "</s>x", "<s>x", "→", "ж", "ж2", "e\u0301", "[w]", " [t] "}) {
    EXPECT_EQ(t.encode(text, kText), t.encode(text, AddedTokens::kPlain)) << text;
    EXPECT_NE(t.encode(text, kText), t.encode(text, kAll)) << text;
  }
  EXPECT_EQ(t.encode("!ü", kText), (Ids{'!', 306}));
  const TextPart parts[] = {{"<s>he", kAll}, {"llo<s>ü", kText}, {"ü", AddedTokens::kPlain}};
  EXPECT_EQ(t.encode(parts), (Ids{300, 259, '<', 's', '>', 306, 0xC3, 0xBC}));
}

// Tokens with `normalized` false are searched in the whole text first.
TEST(Tokenizer, RawAddedTokensComeBeforeNormalizedOnes) {
  Json json = tiny();
  at(json, "added_tokens").push(added(306, "a<s", false));
  EXPECT_EQ(must_parse(json).encode("a<s>", kAll), (Ids{'a', 300}));
}

TEST(Tokenizer, Decodes) {
  const Tokenizer t = must_parse(tiny());
  EXPECT_EQ(t.decode_bytes(Ids{300, 261, 0xC3, 301}, false), "<s> hello\xC3</s>");
  EXPECT_EQ(t.decode_bytes(Ids{300, 261, 302, 301}, true), " hello→");
  EXPECT_EQ(t.decode(Ids{0xC3, 'a', 0xC3, 0xA9}, false), "\uFFFDaé");
  EXPECT_EQ(t.decode_bytes(Ids{-1, 'a', 299, 306, 1 << 30}, false), "a");  // outside the vocabulary, and a hole
  EXPECT_EQ(t.token_bytes(261), " hello");
  EXPECT_EQ(t.token_bytes(302), "→");
  EXPECT_EQ(t.token_bytes(299), "");
  EXPECT_EQ(t.token_bytes(-5), "");
}

TEST(Tokenizer, Ids) {
  const Tokenizer t = must_parse(tiny());
  EXPECT_EQ(t.vocabulary_size(), 306);
  EXPECT_TRUE(t.contains(0) && t.contains(262) && t.contains(305));
  EXPECT_FALSE(t.contains(-1) || t.contains(263) || t.contains(299) || t.contains(306));
  EXPECT_TRUE(t.is_special(300));
  EXPECT_FALSE(t.is_special(302) || t.is_special(299) || t.is_special(-1) || t.is_special(306));
  EXPECT_TRUE(t.is_marker(300) && t.is_marker(302));
  EXPECT_FALSE(t.is_marker('h') || t.is_marker(299) || t.is_marker(-1));
  EXPECT_EQ(t.find("<s>"), 300);
  EXPECT_EQ(t.find(" hello"), 261);
  EXPECT_EQ(t.find("→"), 302);
  EXPECT_EQ(t.find("nothing"), std::nullopt);
  EXPECT_EQ(t.find(""), std::nullopt);
}

// A special token that the model's vocabulary also lists must not come out of plain text.
TEST(Tokenizer, PlainTextNeverGivesASpecialToken) {
  Json json = tiny();
  at(at(json, "model"), "vocab").set("EOT", 310);
  at(json, "model").set("ignore_merges", true);
  at(json, "added_tokens").push(added(310, "EOT", true));
  const Tokenizer t = must_parse(json);
  EXPECT_EQ(t.encode("EOT", AddedTokens::kPlain), (Ids{'E', 'O', 'T'}));
  EXPECT_EQ(t.encode("EOT", kAll), (Ids{310}));
  at(at(json, "model"), "vocab").set("EO", 311);
  at(at(json, "model"), "merges").push("E O").push("EO T");
  EXPECT_EQ(parse_error(json), "tokenizer.json: model.merges[7]: \"EOT\" is a special token");
}

TEST(Tokenizer, BytesWithoutToken) {
  Json json = tiny();
  Json::Object& vocab = at(at(json, "model"), "vocab").as_object();
  std::erase_if(vocab, [](const Json::Member& m) { return m.second == Json(0xFF) || m.second == Json(int{'z'}); });
  const Tokenizer t = must_parse(json);
  EXPECT_EQ(t.encode("azb", kAll), (Ids{'a', 'b'}));  // left out, as the original library does without unk_token
  EXPECT_EQ(t.encode("a\xFF\xFE", kAll), (Ids{'a', 0xEF, 0xBF, 0xBD, 0xFE}));
  at(json, "model").set("unk_token", "<s>");
  EXPECT_EQ(parse_error(json), "tokenizer.json: model.unk_token: expected null, found \"<s>\"");
  Json full = tiny();
  at(full, "model").set("unk_token", "<s>");
  EXPECT_EQ(parse_error(full), "accepted");  // nothing can be unknown
}

std::string random_bytes(std::mt19937& random) {
  std::string out;
  static const char* const kParts[] = {"hello",
                                       " ",
                                       "→",
                                       "<s>",
                                       "é",
                                       "中",
                                       "\U0001F600",
                                       "\n",
                                       "12",
                                       "\xC3",
                                       "\xF0\x9F",
                                       "\xED\xA0\x80",
                                       "\xFF",
                                       "\x80",
                                       "ab",
                                       "</s>",
                                       "\0"};
  for (size_t n = random() % 12; n > 0; --n) {
    if (random() % 4 == 0) {
      out += static_cast<char>(random() % 256);
    } else {
      out += kParts[random() % std::size(kParts)];
    }
  }
  return out;
}

TEST(Tokenizer, RoundTripsEveryByteString) {
  const Tokenizer t = must_parse(tiny());
  std::mt19937 random(11);
  for (int i = 0; i < 20000; ++i) {
    std::string text = random_bytes(random);
    ASSERT_EQ(t.decode_bytes(t.encode(text, AddedTokens::kPlain), false), text) << quoted(text);
    ASSERT_EQ(t.decode_bytes(t.encode(text, kAll), false), text) << quoted(text);
  }
}

TEST(Tokenizer, StreamGivesWholeCharactersAndTheSameText) {
  const Tokenizer t = must_parse(tiny());
  std::mt19937 random(12);
  for (int i = 0; i < 5000; ++i) {
    Ids ids;
    for (size_t n = random() % 20; n > 0; --n) ids.push_back(static_cast<int32_t>(random() % 320));
    const Ids encoded = t.encode(random_bytes(random), kAll);
    ids.insert(ids.end(), encoded.begin(), encoded.end());
    for (const bool skip : {false, true}) {
      StreamDecoder stream(t, skip);
      std::string text;
      for (const int32_t id : ids) {
        const std::string part = stream.push(id);
        ASSERT_TRUE(is_valid_utf8(part));
        text += part;
      }
      text += stream.finish();
      ASSERT_EQ(text, t.decode(ids, skip));
    }
  }
}

TEST(Tokenizer, StreamHoldsBackUnfinishedCharacters) {
  const Tokenizer t = must_parse(tiny());
  StreamDecoder stream(t, true);
  EXPECT_EQ(stream.push(0xE4), "");
  EXPECT_EQ(stream.push(0xB8), "");
  EXPECT_EQ(stream.push(300), "");  // special tokens do not break a character
  EXPECT_EQ(stream.push(0xAD), "中");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

TEST(Tokenizer, EncodesFromManyThreads) {
  const Tokenizer t = must_parse(tiny());
  const std::string text = "hello hell ab <s> ab hello he";
  const Ids expected = must_parse(tiny()).encode(text, kAll);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 200; ++k) EXPECT_EQ(t.encode(text, kAll), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Tokenizer, LongRunsTakeNearLinearTime) {
  const Tokenizer t = must_parse(tiny());
  for (const char* unit : {"h", "l", " ", "hello", "<s", "1", "\xFF"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(t.decode_bytes(t.encode(text, kAll), false), text);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    EXPECT_LT(taken.count(), 5.0) << quoted(unit);  // at most 0.2 s at rest
  }
}

TEST(Tokenizer, Config) {
  const Json json = tiny();
  const Tokenizer none = must_parse(json);
  EXPECT_EQ(none.bos_id(), std::nullopt);
  EXPECT_EQ(none.eos_id(), std::nullopt);
  EXPECT_EQ(none.bos_text(), "");
  EXPECT_FALSE(none.add_bos());
  EXPECT_EQ(none.chat_template(), "");

  const Tokenizer t = must_parse(
      json,
      R"({"bos_token":"<s>","eos_token":{"content":"</s>","special":true},"chat_template":"hi","unk_token":null})");
  EXPECT_EQ(t.bos_id(), 300);
  EXPECT_EQ(t.eos_id(), 301);
  EXPECT_EQ(t.bos_text(), "<s>");
  EXPECT_EQ(t.eos_text(), "</s>");
  EXPECT_TRUE(t.add_bos());
  EXPECT_EQ(t.chat_template(), "hi");

  EXPECT_FALSE(must_parse(json, R"({"bos_token":"<s>","add_bos_token":false})").add_bos());
  EXPECT_FALSE(must_parse(json, R"({"bos_token":null})").add_bos());
  EXPECT_EQ(must_parse(json, R"({"bos_token":" hello"})").bos_id(), 261);
  const char* list = R"({"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]})";
  EXPECT_EQ(must_parse(json, list).chat_template(), "d");
  EXPECT_EQ(must_parse(json, R"({"chat_template":[{"name":"tool_use","template":"t"}]})").chat_template(), "");
}

TEST(Tokenizer, ConfigErrors) {
  const auto message = [](std::string_view config) { return parse_error(tiny(), config); };
  EXPECT_EQ(message("[]"), "tokenizer_config.json: document: expected an object, found array");
  EXPECT_NE(message("{").find("tokenizer_config.json: byte "), std::string::npos);
  EXPECT_EQ(message(R"({"bos_token":"<nope>"})"),
            "tokenizer_config.json: bos_token: \"<nope>\" is not in the vocabulary");
  EXPECT_EQ(message(R"({"eos_token":7})"),
            "tokenizer_config.json: eos_token: expected a string or an object with content, found 7");
  EXPECT_EQ(message(R"({"add_bos_token":true})"),
            "tokenizer_config.json: add_bos_token: true, but there is no bos_token");
  EXPECT_EQ(message(R"({"add_bos_token":1})"),
            "tokenizer_config.json: add_bos_token: expected a boolean, found integer");
  EXPECT_EQ(message(R"({"add_eos_token":true})"), "tokenizer_config.json: add_eos_token: expected false, found true");
  EXPECT_EQ(message(R"({"chat_template":1})"),
            "tokenizer_config.json: chat_template: expected a string or an array, found integer");
  EXPECT_EQ(message(R"({"chat_template":["x"]})"),
            "tokenizer_config.json: chat_template: expected {\"name\": ..., \"template\": ...}, found \"x\"");
}

// Sets model.<key> or, with an empty section, <key>.
std::string error_with(std::string_view section, std::string_view key, Json value) {
  Json json = tiny();
  (section.empty() ? json : at(json, section)).set(key, std::move(value));
  return parse_error(json);
}

TEST(Tokenizer, ModelErrors) {
  const std::string file = "tokenizer.json: ";
  EXPECT_EQ(parse_error(Json::array()), file + "document: expected an object, found array");
  EXPECT_EQ(error_with("", "model", nullptr), file + "model: expected an object, found null");
  EXPECT_EQ(error_with("model", "type", "Unigram"), file + "model.type: expected \"BPE\", found \"Unigram\"");
  EXPECT_EQ(error_with("model", "dropout", 0.1), file + "model.dropout: expected null, found 0.1");
  EXPECT_EQ(error_with("model", "dropout", 0.0), "accepted");
  EXPECT_EQ(error_with("model", "byte_fallback", true), file + "model.byte_fallback: expected false, found true");
  EXPECT_EQ(error_with("model", "fuse_unk", true), file + "model.fuse_unk: expected false, found true");
  EXPECT_EQ(error_with("model", "fuse_unk", 3), file + "model.fuse_unk: expected a boolean, found integer");
  EXPECT_EQ(error_with("model", "continuing_subword_prefix", "##"),
            file + "model.continuing_subword_prefix: expected null, found \"##\"");
  EXPECT_EQ(error_with("model", "end_of_word_suffix", "</w>"),
            file + "model.end_of_word_suffix: expected null, found \"</w>\"");
  EXPECT_EQ(error_with("model", "end_of_word_suffix", ""), "accepted");
  EXPECT_EQ(error_with("model", "ignore_merges", "yes"),
            file + "model.ignore_merges: expected a boolean, found string");
  EXPECT_EQ(error_with("", "normalizer", *parse_json(R"({"type":"NFC"})")),
            file + "normalizer: unsupported normalizer \"NFC\"");
  EXPECT_EQ(error_with("", "normalizer", *parse_json(R"({"type":"Sequence","normalizers":[{"type":"NFKC"}]})")),
            file + "normalizer: unsupported normalizer \"NFKC\"");
  EXPECT_EQ(error_with("", "normalizer", *parse_json(R"({"type":"Sequence","normalizers":[]})")), "accepted");
  EXPECT_EQ(error_with("", "normalizer", 5), file + "normalizer: unsupported normalizer 5");
  EXPECT_EQ(error_with("", "decoder", *parse_json(R"({"type":"WordPiece"})")),
            file + "decoder: expected ByteLevel, found \"WordPiece\"");
  EXPECT_EQ(error_with("", "decoder", nullptr), file + "decoder: expected ByteLevel, found null");
  EXPECT_EQ(error_with("", "pre_tokenizer", nullptr),
            file + "pre_tokenizer: no ByteLevel stage; only byte-level BPE is supported");
}

TEST(Tokenizer, VocabularyAndMergeErrors) {
  const std::string file = "tokenizer.json: ";
  const auto with_token = [](std::string_view text, Json id) {
    Json json = tiny();
    at(at(json, "model"), "vocab").set(text, std::move(id));
    return parse_error(json);
  };
  EXPECT_EQ(error_with("model", "vocab", 1), file + "model.vocab: expected an object, found integer");
  EXPECT_EQ(error_with("model", "vocab", Json::object()), file + "model.vocab: no tokens");
  EXPECT_EQ(with_token("cd", -1), file + "model.vocab[\"cd\"]: expected an id from 0 to 16777215, found -1");
  EXPECT_EQ(with_token("cd", 1 << 24), file + "model.vocab[\"cd\"]: expected an id from 0 to 16777215, found 16777216");
  EXPECT_EQ(with_token("cd", 1.5), file + "model.vocab[\"cd\"]: expected an integer id, found number");
  EXPECT_EQ(with_token("cd", 5), file + "model.vocab[\"cd\"]: id 5 is given twice");
  EXPECT_EQ(with_token("", 400), file + "model.vocab: empty token text for id 400");
  EXPECT_EQ(with_token("c d", 400),
            file + "model.vocab[\"c d\"]: not in the byte-level alphabet and not an added token");
  EXPECT_EQ(with_token("中", 400), file + "model.vocab[\"中\"]: not in the byte-level alphabet and not an added token");

  const auto with_merge = [](Json merge) {
    Json json = tiny();
    at(at(json, "model"), "merges").push(std::move(merge));
    return parse_error(json);
  };
  EXPECT_EQ(error_with("model", "merges", nullptr), file + "model.merges: expected an array, found null");
  EXPECT_EQ(with_merge("h"), file + "model.merges[6]: expected two tokens, found \"h\"");
  EXPECT_EQ(with_merge("h e l"), file + "model.merges[6]: expected two tokens, found \"h e l\"");
  EXPECT_EQ(with_merge("h "), file + "model.merges[6]: expected two tokens, found \"h \"");
  EXPECT_EQ(with_merge(Json::Array{"h"}), file + "model.merges[6]: expected two tokens, found array");
  EXPECT_EQ(with_merge(Json::Array{"h", 1}), file + "model.merges[6]: expected two tokens, found array");
  EXPECT_EQ(with_merge("xx e"), file + "model.merges[6]: \"xx\" is not in model.vocab");
  EXPECT_EQ(with_merge("h 中"), file + "model.merges[6]: \"中\" is not in model.vocab");
  EXPECT_EQ(with_merge("e h"), file + "model.merges[6]: \"eh\" is not in model.vocab");
}

TEST(Tokenizer, AddedTokenErrors) {
  const std::string file = "tokenizer.json: ";
  const auto with_added = [](Json token) {
    Json json = tiny();
    at(json, "added_tokens").push(std::move(token));
    return parse_error(json);
  };
  EXPECT_EQ(error_with("", "added_tokens", 1), file + "added_tokens: expected an array, found integer");
  EXPECT_EQ(error_with("", "added_tokens", nullptr), "accepted");
  EXPECT_EQ(with_added("x"), file + "added_tokens[6]: expected an object, found string");
  EXPECT_EQ(with_added(added(-3, "x", false)),
            file + "added_tokens[6].id: expected an id from 0 to 16777215, found -3");
  EXPECT_EQ(with_added(added(400, "", false)), file + "added_tokens[6].content: expected 1 to 1024 bytes, found 0");
  EXPECT_EQ(with_added(added(400, std::string(2000, 'x').c_str(), false)),
            file + "added_tokens[6].content: expected 1 to 1024 bytes, found 2000");
  EXPECT_EQ(with_added(*parse_json(R"({"id":400,"content":3})")),
            file + "added_tokens[6].content: expected a string, found integer");
  EXPECT_EQ(with_added(*parse_json(R"({"id":400,"content":"q","lstrip":"no"})")),
            file + "added_tokens[6].lstrip: expected a boolean, found string");
  EXPECT_EQ(with_added(added(300, "qq", false)), file + "added_tokens: id 300 is given twice, to \"<s>\" and \"qq\"");
  EXPECT_EQ(with_added(added(400, "<s>", false)), file + "added_tokens: \"<s>\" is given twice, as 300 and 400");
  EXPECT_EQ(with_added(added(259, "qq", false)),
            file + "added_tokens: \"qq\" has id 259, which model.vocab gives to \"hello\"");
  EXPECT_EQ(with_added(added(400, "hello", false)), file + "added_tokens: \"hello\" has id 400, model.vocab has 259");
  EXPECT_EQ(with_added(added(259, "hello", false)), "accepted");
}

TEST(Tokenizer, Open) {
  const testing::TempDir folder;
  const auto write = [&](const char* name, const std::string& text) { std::ofstream(folder / name) << text; };
  const auto open_error = [&] {
    const Result<Tokenizer> out = Tokenizer::open(folder.path());
    return out ? std::string("accepted") : out.error().message;
  };
  EXPECT_NE(open_error().find("tokenizer.json"), std::string::npos);
  write("tokenizer.json", tiny().dump());
  ASSERT_EQ(open_error(), "accepted");
  write("tokenizer_config.json", "");
  EXPECT_EQ(open_error(), str(folder / "tokenizer_config.json", ": empty file"));
  write("tokenizer_config.json", R"({"bos_token":"<s>","chat_template":"from config"})");
  EXPECT_EQ(Tokenizer::open(folder.path())->chat_template(), "from config");
  write("chat_template.jinja", "from file");
  const Result<Tokenizer> out = Tokenizer::open(folder.path());
  ASSERT_TRUE(out);
  EXPECT_EQ(out->chat_template(), "from file");
  EXPECT_EQ(out->bos_id(), 300);
  write("tokenizer.json", "{\"model\":3}");
  EXPECT_EQ(open_error(), str(folder.path(), ": tokenizer.json: model: expected an object, found integer"));
}

// Whatever is cut off or changed in the file: an answer or an error, and encoding still works.
TEST(Tokenizer, SurvivesDamagedFiles) {
  const std::string good = tiny().dump();
  std::mt19937 random(13);
  for (int i = 0; i < 1500; ++i) {
    std::string text = good;
    if (i % 3 == 0) text.resize(random() % text.size());
    for (int k = 0; k < 3 && !text.empty(); ++k) text[random() % text.size()] = "0\"[]{},:-\\a9\xFF"[random() % 13];
    const Result<Tokenizer> out = Tokenizer::parse(text, "");
    if (out) {
      out->decode(out->encode("hello <s> → 12 \xFF", kAll), true);
    } else {
      EXPECT_EQ(out.error().message.find('\n'), std::string::npos) << out.error().message;
    }
  }
}

}  // namespace
}  // namespace lathe
