// Rendered pieces as ids: joined text is tokenized as one, contents never become special tokens.
#include "lathe/tokenizer/chat_template_encode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "lathe/base/file.h"
#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "support/golden.h"

namespace lathe {
namespace {

using Ids = std::vector<int32_t>;

constexpr int32_t kSpaceHi = 256, kUser = 257, kMark = 258;

// The 256 bytes, " h", one special token <U> and one added token <m> that is matched late.
Tokenizer tiny_tokenizer() {
  Json vocab = Json::object();
  char32_t next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    std::string letter;
    append_utf8(letter, printable ? static_cast<char32_t>(b) : next++);
    vocab.set(letter, b);
  }
  vocab.set("Ġh", kSpaceHi);
  const auto added = [](int32_t id, const char* content, bool late) {
    return Json(Json::Object{{"id", id},
                             {"content", content},
                             {"special", !late},
                             {"normalized", late},
                             {"single_word", false},
                             {"lstrip", false},
                             {"rstrip", false}});
  };
  Json::Array tokens = {added(kUser, "<U>", false), added(kMark, "<m>", true)};
  const Json model(Json::Object{{"type", "BPE"}, {"vocab", vocab}, {"merges", Json(Json::Array{"Ġ h"})}});
  const Json byte_level(Json::Object{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  const Json json(Json::Object{{"added_tokens", Json(std::move(tokens))},
                               {"pre_tokenizer", byte_level},
                               {"decoder", byte_level},
                               {"model", model}});
  Result<Tokenizer> tokenizer = Tokenizer::parse(json.dump(), "");
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  return *std::move(tokenizer);
}

TEST(EncodePieces, JoinsTextAcrossPieces) {
  const Tokenizer tokenizer = tiny_tokenizer();
  const std::vector<RenderedPiece> pieces = {{"<U>: ", false}, {"h ", true}, {"h<m><U>", false}};
  EXPECT_EQ(encode_pieces(tokenizer, pieces), (Ids{kUser, ':', kSpaceHi, kSpaceHi, kMark, kUser}));
}

TEST(EncodePieces, ContentsStayText) {
  const Tokenizer tokenizer = tiny_tokenizer();
  EXPECT_EQ(encode_pieces(tokenizer, std::vector<RenderedPiece>{{"<U><m>", true}}),
            (Ids{'<', 'U', '>', '<', 'm', '>'}));
  // Not even with the template's help.
  const std::vector<RenderedPiece> halves = {{"<", false}, {"U", true}, {">", false}, {"<U", true}, {">", false}};
  EXPECT_EQ(encode_pieces(tokenizer, halves), (Ids{'<', 'U', '>', '<', 'U', '>'}));
  EXPECT_EQ(encode_pieces(tokenizer, {}), Ids{});
}

TEST(EncodePieces, CharactersSplitOverPiecesAreWhole) {
  const Tokenizer tokenizer = tiny_tokenizer();
  const std::vector<RenderedPiece> halves = {{"\xc3", true}, {"\xa9", false}};
  EXPECT_EQ(encode_pieces(tokenizer, halves), (Ids{0xc3, 0xa9}));
}

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

TEST(EncodePieces, PublishedTemplatesGiveThePublishedIds) {
  const std::filesystem::path folder = testing::shared_golden_dir();
  if (folder.empty()) GTEST_SKIP() << "no shared golden data; set LATHE_GOLDEN";
  const Result<Json> document = read_json(folder / "chat" / "chat.json");
  ASSERT_TRUE(document.has_value()) << document.error().message;
  std::map<std::string, Tokenizer> tokenizers;
  int compared = 0, forged = 0;
  for (const Json& item : document->find("cases")->as_array()) {
    const std::string& form = item.find("template")->as_string();
    SCOPED_TRACE(form + " " + item.find("name")->as_string());
    const Json* tokenizer_name = item.find("tokenizer");
    const Json* expected = item.find("ids");
    if (tokenizer_name == nullptr || expected == nullptr) continue;
    if (!tokenizers.contains(tokenizer_name->as_string())) {
      const std::filesystem::path files = folder / "tokenizers" / tokenizer_name->as_string();
      const Result<std::string> config = read_file(files / "tokenizer_config.json");
      ASSERT_TRUE(config.has_value()) << config.error().message;
      Result<Tokenizer> tokenizer = Tokenizer::parse(unpack(files / "tokenizer.json.gz"), *config);
      ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
      tokenizers.emplace(tokenizer_name->as_string(), *std::move(tokenizer));
    }
    const Tokenizer& tokenizer = tokenizers.at(tokenizer_name->as_string());
    Json variables = Json::object();
    for (const char* name : {"messages", "add_generation_prompt", "thinking", "tools"}) {
      if (const Json* value = item.find(name)) variables.set(name, *value);
    }
    variables.set("bos_token", *document->find("bos_token"));
    variables.set("eos_token", *document->find("eos_token"));
    const auto compiled = ChatTemplate::compile(document->find("templates")->find(form)->as_string());
    ASSERT_TRUE(compiled.has_value()) << compiled.error().message;
    const auto pieces = compiled->render_pieces(variables);
    ASSERT_TRUE(pieces.has_value()) << pieces.error().message;
    const Ids ids = encode_pieces(tokenizer, *pieces);
    Ids expected_ids;
    for (const Json& id : expected->as_array()) expected_ids.push_back(static_cast<int32_t>(id.as_int()));
    // The published ids take special tokens in contents at their word; these must not.
    const bool has_added_token = std::any_of(pieces->begin(), pieces->end(), [&](const RenderedPiece& piece) {
      return piece.literal &&
             tokenizer.encode(piece.text, AddedTokens::kPlain) != tokenizer.encode(piece.text, AddedTokens::kRecognise);
    });
    if (has_added_token) {
      EXPECT_NE(ids, expected_ids);
      EXPECT_EQ(tokenizer.decode(ids, false), item.find("rendered")->as_string());
      ++forged;
    } else {
      EXPECT_EQ(ids, expected_ids);
      ++compared;
    }
  }
  EXPECT_GE(compared, 120);
  EXPECT_GE(forged, 5);
}

}  // namespace
}  // namespace lathe
