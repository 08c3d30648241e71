// Tokenizers out of GGUF files: the published vocabularies, written as the lists that other programs' converters write,
// give the ids that their tokenizer.json gives.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "lathe/base/file.h"
#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/formats/gguf_tokenizer.h"
#include "lathe/formats/gguf_writer.h"
#include "lathe/model/model_files.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

using testing::TempDir;
using Ids = std::vector<int32_t>;

std::string unpack(const std::filesystem::path& path) {
  const std::string command = str("gzip -dc '", path, "'");
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string out;
  std::array<char, 65536> buffer{};
  for (size_t count = 1; pipe != nullptr && count > 0;) {
    count = fread(buffer.data(), 1, buffer.size(), pipe.get());
    out.append(buffer.data(), count);
  }
  return out;
}

Ids ids_of(const Json& list) {
  Ids out;
  for (const Json& id : list.as_array()) out.push_back(static_cast<int32_t>(id.as_int()));
  return out;
}

using Keys = std::vector<std::pair<std::string, GgufValue>>;

// The lists of a vocabulary. Special is what says so or looks like it; numbers without a token are fillers.
Keys keys_of(const Json& tokenizer, const std::string& pre) {
  const Json& model = *tokenizer.find("model");
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  const auto set = [&](const Json& id, const std::string& text, int32_t type) {
    const auto at = static_cast<size_t>(id.as_int());
    if (tokens.size() <= at) {
      tokens.resize(at + 1);
      types.resize(at + 1, 5);
    }
    tokens[at] = text;
    types[at] = type;
  };
  for (const auto& [text, id] : model.find("vocab")->as_object()) set(id, text, 1);
  for (const Json& added : tokenizer.find("added_tokens")->as_array()) {
    const std::string& text = added.find("content")->as_string();
    const bool looks_special = text.starts_with("<｜") || text.starts_with("<|");
    set(*added.find("id"), text, added.find("special")->as_bool() || looks_special ? 3 : 4);
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (types[i] == 5) tokens[i] = str("[PAD", i, "]");
  }
  std::vector<std::string> merges;
  for (const Json& merge : model.find("merges")->as_array()) {
    merges.push_back(merge.is_string() ? merge.as_string()
                                       : str(merge.as_array()[0].as_string(), " ", merge.as_array()[1].as_string()));
  }
  return {{"general.architecture", std::string("deepseek2")},
          {"tokenizer.ggml.model", std::string("gpt2")},
          {"tokenizer.ggml.pre", pre},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.merges", merges}};
}

void write_keys(const std::filesystem::path& path, const Keys& keys) {
  const Status written = write_gguf(path, keys, {}, {});
  ASSERT_TRUE(written) << written.error().message;
}

Result<Tokenizer> tokenizer_of(const std::filesystem::path& path) {
  LATHE_TRY(const ModelFiles files, ModelFiles::open(path));
  return files.tokenizer();
}

std::string error_of(const std::filesystem::path& path) {
  const Result<Tokenizer> tokenizer = tokenizer_of(path);
  return tokenizer ? "accepted" : tokenizer.error().message.substr(path.string().size() + 2);
}

TEST(GgufTokenizer, PublishedVocabulariesGiveTheSameIds) {
  const std::filesystem::path shared = testing::shared_golden_dir();
  if (shared.empty()) GTEST_SKIP() << "shared golden data not found; set LATHE_GOLDEN";
  const TempDir dir;
  for (const auto& [name, pre] : {std::pair<std::string, std::string>{"deepseek-llm", "deepseek-llm"},
                                  {"deepseek-coder", "deepseek-coder"},
                                  {"deepseek-r1", "deepseek-v3"}}) {
    SCOPED_TRACE(name);
    const std::filesystem::path folder = shared / "tokenizers" / name;
    Result<Json> source = parse_json(unpack(folder / "tokenizer.json.gz"));
    ASSERT_TRUE(source) << source.error().message;
    EXPECT_EQ(pre_tokenizer_name(*source->find("pre_tokenizer")), pre);
    write_keys(dir / "m.gguf", keys_of(*source, pre));
    const Result<Tokenizer> tokenizer = tokenizer_of(dir / "m.gguf");
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    const Result<Json> encodings = read_json(folder / "encodings.json");
    ASSERT_TRUE(encodings) << encodings.error().message;
    for (const Json& entry : encodings->find("encode")->as_array()) {
      const std::string& text = entry.find("text")->as_string();
      const Ids expected = ids_of(*entry.find("ids"));
      const Json* plain = entry.find("ids_no_added_tokens");
      EXPECT_EQ(tokenizer->encode(text, AddedTokens::kRecognise), expected) << quoted(text);
      EXPECT_EQ(tokenizer->encode(text, AddedTokens::kPlain), plain != nullptr ? ids_of(*plain) : expected);
      EXPECT_EQ(tokenizer->decode_bytes(expected, false), text);
    }
  }
}

// The 256 letters of the byte-level alphabet and a few tokens more.
Keys small_keys() {
  std::vector<std::string> tokens;
  int next = 0;
  for (int b = 0; b < 256; ++b) {
    const bool direct = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    std::string letter;
    append_utf8(letter, static_cast<char32_t>(direct ? b : 0x100 + next++));
    tokens.push_back(letter);
  }
  std::vector<int32_t> types(tokens.size(), 1);
  for (const auto& [text, type] :
       {std::pair<std::string, int32_t>{"he", 1}, {"<s>", 3}, {"</s>", 3}, {"<think>", 4}, {"两", 1}, {"[PAD5]", 5}}) {
    tokens.push_back(text);
    types.push_back(type);
  }
  return {{"general.architecture", std::string("deepseek2")},
          {"tokenizer.ggml.model", std::string("gpt2")},
          {"tokenizer.ggml.pre", std::string("gpt-2")},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.merges", std::vector<std::string>{"h e"}},
          {"tokenizer.ggml.bos_token_id", uint32_t{257}},
          {"tokenizer.ggml.eos_token_id", uint32_t{258}},
          {"tokenizer.ggml.add_bos_token", false},
          {"tokenizer.chat_template", std::string("{{ bos_token }}x")}};
}

void replace(Keys& keys, const std::string& key, GgufValue value) {
  for (auto& [name, old] : keys) {
    if (name != "tokenizer.ggml." + key) continue;
    old = std::move(value);
    return;
  }
}

TEST(GgufTokenizer, TokenTypesAndSettingsAreRead) {
  const TempDir dir;
  write_keys(dir / "m.gguf", small_keys());
  const Result<Tokenizer> tokenizer = tokenizer_of(dir / "m.gguf");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->encode("he<s>", AddedTokens::kRecognise), (Ids{256, 257}));
  EXPECT_EQ(tokenizer->bos_id(), 257);
  EXPECT_EQ(tokenizer->eos_id(), 258);
  EXPECT_FALSE(tokenizer->add_bos());
  EXPECT_TRUE(tokenizer->is_special(257));
  EXPECT_FALSE(tokenizer->is_special(259));
  EXPECT_EQ(tokenizer->find("<think>"), 259);
  EXPECT_EQ(tokenizer->token_bytes(260), "两");  // normal, but not made of bytes' letters: an added token
  EXPECT_FALSE(tokenizer->contains(261));        // unused
  EXPECT_EQ(tokenizer->chat_template(), "{{ bos_token }}x");
}

TEST(GgufTokenizer, AWholeTokenizerJsonWins) {
  const TempDir dir;
  Keys keys = small_keys();
  keys.emplace_back("tokenizer.huggingface.json", std::string(R"({"added_tokens": [
        {"id": 1, "content": "<s>", "special": true}, {"id": 2, "content": "</s>", "special": true}],
      "pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"},
      "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})"));
  write_keys(dir / "m.gguf", keys);
  const Result<Tokenizer> tokenizer = tokenizer_of(dir / "m.gguf");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->vocabulary_size(), 3);
  EXPECT_EQ(tokenizer->bos_id(), 1);
}

TEST(GgufTokenizer, ErrorsNameTheKey) {
  const TempDir dir;
  const auto message = [&](const std::string& key, GgufValue value) {
    Keys keys = small_keys();
    replace(keys, key, std::move(value));
    write_keys(dir / "m.gguf", keys);
    return error_of(dir / "m.gguf");
  };
  EXPECT_EQ(message("model", std::string("llama")),
            "key \"tokenizer.ggml.model\": expected gpt2 (byte-level BPE), found \"llama\"");
  EXPECT_EQ(
      message("pre", std::string("qwen2")),
      "key \"tokenizer.ggml.pre\": expected one of deepseek-llm, deepseek-coder, deepseek-v3, kimi-k2, llama-bpe, "
      "llama-v3, llama3, gpt-2, gpt2, found \"qwen2\"");
  EXPECT_EQ(message("tokens", uint32_t{3}),
            "key \"tokenizer.ggml.tokens\": expected an array of strings, found uint32 3");
  EXPECT_EQ(message("token_type", std::vector<int32_t>{1}),
            "key \"tokenizer.ggml.token_type\": expected one type for each of the 262 tokens, found 1");
  EXPECT_EQ(message("token_type", std::vector<int32_t>(262, 0)),
            "key \"tokenizer.ggml.token_type\": element 0: expected 1 to 6, found int32 0");
  EXPECT_EQ(message("tokens", std::vector<std::string>(262, "a")),
            "key \"tokenizer.ggml.tokens\": \"a\" is given twice");
  EXPECT_EQ(message("tokens", std::vector<std::string>(262, "")),
            "key \"tokenizer.ggml.tokens\": element 0: expected a text, found none");
  EXPECT_EQ(message("bos_token_id", uint32_t{262}),
            "key \"tokenizer.ggml.bos_token_id\": expected an id below 262, found uint32 262");
  EXPECT_EQ(message("add_bos_token", uint32_t{1}),
            "key \"tokenizer.ggml.add_bos_token\": expected a bool, found uint32 1");
  EXPECT_EQ(message("merges", std::vector<std::string>{"q q"}),
            "tokenizer.json: model.merges[0]: \"qq\" is not in model.vocab");
}

TEST(GgufTokenizer, EveryPreTokenizerIsUnderstoodAndRecognised) {
  const TempDir dir;
  const std::string text = "Hello, world!  It's 12345 naïve 你好，世界 カタカナ 한국어 \n\n\t x=1;";
  for (const std::string_view name : pre_tokenizer_names()) {
    SCOPED_TRACE(name);
    Keys keys = small_keys();
    replace(keys, "pre", std::string(name));
    write_keys(dir / "m.gguf", keys);
    const Result<Tokenizer> tokenizer = tokenizer_of(dir / "m.gguf");
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    EXPECT_EQ(tokenizer->decode_bytes(tokenizer->encode(text, AddedTokens::kPlain), false), text);
    const auto recognised = pre_tokenizer_name(*pre_tokenizer_of(name));
    ASSERT_TRUE(recognised);
    EXPECT_EQ(*pre_tokenizer_of(*recognised), *pre_tokenizer_of(name));
  }
  EXPECT_EQ(pre_tokenizer_of("qwen2"), std::nullopt);
  EXPECT_EQ(pre_tokenizer_name(Json()), std::nullopt);
  EXPECT_EQ(pre_tokenizer_name(Json(Json::Object{{"type", "ByteLevel"}, {"add_prefix_space", false}})), "gpt-2");
  Json other = *pre_tokenizer_of("deepseek-v3");
  other.as_object()[1].second.as_array().erase(other.as_object()[1].second.as_array().begin());
  EXPECT_EQ(pre_tokenizer_name(other), std::nullopt);
}

// Digits are no part of the word before them, although a merge would join them first.
TEST(GgufTokenizer, KimiCutsBetweenLettersAndDigits) {
  const TempDir dir;
  Keys keys = small_keys();
  replace(keys, "pre", std::string("kimi-k2"));
  std::vector<std::string> merges{"b 1", "1 2", "h e"};
  auto& tokens = std::get<std::vector<std::string>>(keys[3].second);
  auto& types = std::get<std::vector<int32_t>>(keys[4].second);
  for (const char* more : {"12", "b1"}) {
    tokens.push_back(more);
    types.push_back(1);
  }
  replace(keys, "merges", merges);
  write_keys(dir / "m.gguf", keys);
  const Result<Tokenizer> tokenizer = tokenizer_of(dir / "m.gguf");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->encode("b12", AddedTokens::kPlain), (Ids{'b', 262}));
}

}  // namespace
}  // namespace lathe
