#include "lathe/formats/gguf_tokenizer.h"

#include <algorithm>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

namespace lathe {
namespace {

constexpr std::string_view kPrefix = "tokenizer.ggml.";

// tokenizer.ggml.token_type
enum class TokenType : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

class Builder {
 public:
  explicit Builder(const GgufModel& model) : model_(model) {}

  Result<GgufTokenizer> build() {
    LATHE_TRY(const std::optional<std::string_view> kind, text("model"));
    if (!kind) return error(Errc::kNotFound, "model", "expected gpt2, found none: the file has no tokenizer");
    if (*kind != "gpt2") {
      return error(Errc::kUnsupported, "model", str("expected gpt2 (byte-level BPE), found ", lathe::quoted(*kind)));
    }
    LATHE_TRY(tokens_, need_texts("tokens"));
    GgufTokenizer out;
    const GgufField* whole = model_.header().find("tokenizer.huggingface.json");
    if (whole != nullptr) {
      if (!whole->text()) {
        return Error{Errc::kInvalidData,
                     str(model_.path(),
                         ": key \"tokenizer.huggingface.json\": "
                         "expected a string, found ",
                         whole->describe())};
      }
      out.tokenizer_json = *whole->text();
    } else {
      LATHE_TRY(const Json json, tokenizer_json());
      out.tokenizer_json = json.dump();
    }
    LATHE_TRY(const Json config, config_json());
    out.tokenizer_config_json = config.dump();
    return out;
  }

 private:
  Error error(Errc code, std::string_view key, std::string_view what) const {
    return {code, str(model_.path(), ": key ", lathe::quoted(str(kPrefix, key)), ": ", what)};
  }

  Error wrong(std::string_view key, std::string_view expected, const GgufField& found) const {
    return error(Errc::kInvalidData, key, str("expected ", expected, ", found ", found.describe()));
  }

  const GgufField* find(std::string_view key) const { return model_.header().find(str(kPrefix, key)); }

  Result<std::optional<std::string_view>> text(std::string_view key) const {
    const GgufField* field = find(key);
    if (field == nullptr) return std::optional<std::string_view>();
    if (!field->text()) return wrong(key, "a string", *field);
    return field->text();
  }

  // A list of UTF-8 texts.
  Result<std::vector<std::string_view>> need_texts(std::string_view key) const {
    const GgufField* field = find(key);
    if (field == nullptr) return error(Errc::kInvalidData, key, "expected an array of strings, found none");
    const GgufField::Array* list = field->array();
    if (list == nullptr || list->element != GgufType::kString) return wrong(key, "an array of strings", *field);
    for (size_t i = 0; i < list->texts.size(); ++i) {
      if (is_valid_utf8(list->texts[i])) continue;
      return error(
          Errc::kInvalidData, key, str("element ", i, ": expected UTF-8, found ", lathe::quoted(list->texts[i])));
    }
    return list->texts;
  }

  // The type of every token; all are normal where the file does not say.
  Result<std::vector<TokenType>> token_types() const {
    std::vector<TokenType> out(tokens_.size(), TokenType::kNormal);
    const GgufField* field = find("token_type");
    if (field == nullptr) return out;
    const GgufField::Array* list = field->array();
    if (list == nullptr || list->element == GgufType::kString)
      return wrong("token_type", "an array of integers", *field);
    if (list->size != tokens_.size()) {
      return error(Errc::kInvalidData,
                   "token_type",
                   str("expected one type for each of the ", tokens_.size(), " tokens, found ", list->size));
    }
    for (uint64_t i = 0; i < list->size; ++i) {
      const std::optional<int64_t> type = element_of(*list, i).integer();
      if (!type || *type < 1 || *type > static_cast<int64_t>(TokenType::kByte)) {
        return error(Errc::kInvalidData,
                     "token_type",
                     str("element ", i, ": expected 1 to 6, found ", element_of(*list, i).describe()));
      }
      out[i] = static_cast<TokenType>(*type);
    }
    return out;
  }

  // Whether a text could come out of bytes: all its characters are of the byte-level alphabet.
  static bool in_alphabet(std::string_view text) {
    for (size_t at = 0; at < text.size();) {
      const char32_t c = decode_utf8(text, at);
      const bool direct = (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
      const bool moved = c >= 0x100 && c <= 0x143;
      if (!direct && !moved) return false;
    }
    return true;
  }

  static Json added_token(int64_t id, std::string_view content, bool special) {
    return Json(Json::Object{{"id", id},
                             {"content", content},
                             {"single_word", false},
                             {"lstrip", false},
                             {"rstrip", false},
                             {"normalized", !special},
                             {"special", special}});
  }

  Status check_unique(std::vector<std::string_view> texts) const {
    std::sort(texts.begin(), texts.end());
    const auto twice = std::adjacent_find(texts.begin(), texts.end());
    if (twice == texts.end()) return {};
    return error(Errc::kInvalidData, "tokens", str(lathe::quoted(*twice), " is given twice"));
  }

  Result<Json> tokenizer_json() const {
    LATHE_TRY(const std::vector<TokenType> types, token_types());
    Json::Object vocabulary;
    Json added = Json::array();
    std::vector<std::string_view> used;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (types[i] == TokenType::kUnused) continue;  // fillers, never produced
      if (tokens_[i].empty())
        return error(Errc::kInvalidData, "tokens", str("element ", i, ": expected a text, found none"));
      used.push_back(tokens_[i]);
      const auto id = static_cast<int64_t>(i);
      const bool special = types[i] == TokenType::kControl || types[i] == TokenType::kUnknown;
      if (types[i] == TokenType::kNormal && in_alphabet(tokens_[i])) {
        vocabulary.emplace_back(std::string(tokens_[i]), id);
      } else {
        added.push(added_token(id, tokens_[i], special));
      }
    }
    LATHE_TRY(check_unique(std::move(used)));
    LATHE_TRY(const std::vector<std::string_view> merges, need_texts("merges"));
    LATHE_TRY(const std::string_view pre, pre_name());
    Json model = Json::object();
    model.set("type", "BPE");
    model.set("ignore_merges", pre_tokenizer_ignores_merges(pre));
    model.set("vocab", Json(std::move(vocabulary)));
    model.set("merges", Json::list(merges));
    Json out = Json::object();
    out.set("added_tokens", std::move(added));
    out.set("normalizer", Json());
    out.set("pre_tokenizer", *pre_tokenizer_of(pre));
    out.set("decoder", Json(Json::Object{{"type", "ByteLevel"}}));
    out.set("model", std::move(model));
    return out;
  }

  // A name that pre_tokenizer_of knows.
  Result<std::string_view> pre_name() const {
    LATHE_TRY(const std::optional<std::string_view> pre, text("pre"));
    if (pre && pre_tokenizer_of(*pre)) return *pre;
    std::string known;
    for (const std::string_view name : pre_tokenizer_names()) known += str(known.empty() ? "" : ", ", name);
    return error(Errc::kUnsupported,
                 "pre",
                 str("expected one of ", known, ", found ", pre ? lathe::quoted(*pre) : std::string("none")));
  }

  // The text of the token that a key names by id; empty when the key is absent.
  Result<std::string_view> special_text(std::string_view key) const {
    const GgufField* field = find(key);
    if (field == nullptr) return std::string_view();
    const std::optional<int64_t> id = field->integer();
    if (!id || *id < 0 || static_cast<uint64_t>(*id) >= tokens_.size()) {
      return wrong(key, str("an id below ", tokens_.size()), *field);
    }
    return tokens_[static_cast<size_t>(*id)];
  }

  Result<Json> config_json() const {
    Json out = Json::object();
    for (const auto& [key, name] : {std::pair<std::string_view, std::string_view>{"bos_token_id", "bos_token"},
                                    {"eos_token_id", "eos_token"},
                                    {"padding_token_id", "pad_token"}}) {
      LATHE_TRY(const std::string_view token, special_text(key));
      if (!token.empty()) out.set(name, token);
    }
    for (const std::string_view key : {"add_bos_token", "add_eos_token"}) {
      const GgufField* field = find(key);
      if (field == nullptr) continue;
      if (!field->boolean()) return wrong(key, "a bool", *field);
      out.set(key, *field->boolean());
    }
    const GgufField* chat = model_.header().find("tokenizer.chat_template");
    if (chat == nullptr) return out;
    if (!chat->text() || !is_valid_utf8(*chat->text())) {
      return Error{Errc::kInvalidData,
                   str(model_.path(),
                       ": key \"tokenizer.chat_template\": expected a string in UTF-8, found ",
                       chat->describe())};
    }
    out.set("chat_template", *chat->text());
    return out;
  }

  const GgufModel& model_;
  std::vector<std::string_view> tokens_;
};

}  // namespace

Result<GgufTokenizer> gguf_tokenizer(const GgufModel& model) {
  return Builder(model).build();
}

}  // namespace lathe
