// tokenizer.json in the lists of a GGUF file.
#include <algorithm>

#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/convert/gguf_metadata.h"
#include "lathe/formats/gguf_tokenizer.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe::convert {

namespace {

constexpr std::string_view kFile = "tokenizer.json";
constexpr uint64_t kMaxBytes = uint64_t{1} << 28;

// tokenizer.ggml.token_type
enum TokenType : int32_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };

Error wrong(std::string_view where, std::string_view what) {
  return Error{Errc::kInvalidData, str(kFile, ": ", where, ": ", what)};
}

// Other programs know special tokens by their type alone; these are special whatever tokenizer.json calls them.
bool looks_special(std::string_view token) {
  return (token.starts_with("<|") && token.ends_with("|>")) || (token.starts_with("<｜") && token.ends_with("｜>"));
}

class Vocabulary {
 public:
  explicit Vocabulary(int64_t size) : tokens(static_cast<size_t>(size)), types(tokens.size(), kUnused) {}

  Status read(const Json& json) {
    const Json* model = json.find("model");
    const Json* vocab = model == nullptr ? nullptr : model->find("vocab");
    const Json* listed = model == nullptr ? nullptr : model->find("merges");
    if (vocab == nullptr || !vocab->is_object()) return wrong("model.vocab", "expected an object");
    if (listed == nullptr || !listed->is_array()) return wrong("model.merges", "expected an array");
    for (const auto& [token, id] : vocab->as_object()) LATHE_TRY(set(token, id, kNormal));
    if (const Json* added = json.find("added_tokens"); added != nullptr && added->is_array()) {
      for (const Json& token : added->as_array()) LATHE_TRY(add(token));
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (types[i] == kUnused) tokens[i] = str("[PAD", i, "]");
    }
    for (const Json& merge : listed->as_array()) LATHE_TRY(add_merge(merge));
    return {};
  }

  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<std::string> merges;

 private:
  Status set(const std::string& token, const Json& id, TokenType type) {
    if (!id.is_int() || id.as_int() < 0 || id.as_int() >= static_cast<int64_t>(tokens.size())) {
      return wrong(quoted(token), str("expected an id below vocab_size ", tokens.size(), ", found ", id.dump()));
    }
    tokens[static_cast<size_t>(id.as_int())] = token;
    types[static_cast<size_t>(id.as_int())] = type;
    return {};
  }

  Status add(const Json& token) {
    const Json* content = token.find("content");
    const Json* id = token.find("id");
    if (content == nullptr || !content->is_string() || id == nullptr) {
      return wrong("added_tokens", "expected objects with content and id");
    }
    const Json* special = token.find("special");
    const bool control =
        (special != nullptr && special->is_bool() && special->as_bool()) || looks_special(content->as_string());
    return set(content->as_string(), *id, control ? kControl : kUserDefined);
  }

  Status add_merge(const Json& merge) {
    if (merge.is_string()) {
      merges.push_back(merge.as_string());
      return {};
    }
    const bool pair = merge.is_array() && merge.as_array().size() == 2 && merge.as_array()[0].is_string() &&
                      merge.as_array()[1].is_string();
    if (!pair) return wrong("model.merges", "expected texts or pairs of texts");
    merges.push_back(str(merge.as_array()[0].as_string(), " ", merge.as_array()[1].as_string()));
    return {};
  }
};

// The name of the pre-tokenizer. Where there is none that fits, other programs get the nearest; this one reads
// tokenizer.json, which is written too.
std::string pre_name(const Json& json) {
  const Json* stages = json.find("pre_tokenizer");
  if (stages != nullptr) {
    if (const auto name = pre_tokenizer_name(*stages)) return std::string(*name);
  }
  const bool like_v3 = stages != nullptr && stages->dump().find("{1,3}") != std::string::npos;
  std::string nearest = like_v3 ? "deepseek-v3" : "gpt-2";
  log_warning(kFile,
              ": pre_tokenizer: GGUF has no name for it; written as ",
              nearest,
              ", which other programs will use and which may cut some texts in other places");
  return nearest;
}

void add_id(Metadata& out, std::string_view key, std::optional<int64_t> id) {
  if (id && *id >= 0) out.emplace_back(str("tokenizer.ggml.", key), static_cast<uint32_t>(*id));
}

// The padding token of tokenizer_config.json.
std::optional<int64_t> padding_id(const std::string& config_text, const Tokenizer& tokenizer) {
  const Result<Json> json = parse_json(config_text);
  const Json* token = json ? json->find("pad_token") : nullptr;
  if (token != nullptr && token->is_object()) token = token->find("content");
  if (token == nullptr || !token->is_string()) return std::nullopt;
  return tokenizer.find(token->as_string());
}

}  // namespace

Result<Metadata> tokenizer_metadata(const std::filesystem::path& folder, const ModelConfig& config) {
  Metadata out;
  std::error_code ignored;
  if (!std::filesystem::exists(folder / kFile, ignored)) {
    log_warning(folder, ": no ", kFile, ": the new file will have no tokenizer");
    out.emplace_back("tokenizer.ggml.model", std::string("none"));
    add_id(out, "bos_token_id", config.bos_token_id);
    if (!config.eos_token_ids.empty()) add_id(out, "eos_token_id", config.eos_token_ids.front());
    return out;
  }
  LATHE_TRY(const Tokenizer tokenizer, Tokenizer::open(folder));
  LATHE_TRY(std::string text, read_file(folder / kFile, kMaxBytes));
  std::string config_text;
  if (std::filesystem::exists(folder / "tokenizer_config.json", ignored)) {
    LATHE_TRY(config_text, read_file(folder / "tokenizer_config.json", kMaxBytes));
  }
  const Result<Json> json = parse_json(text);
  if (!json) return json.error().at((folder / kFile).string());
  Vocabulary vocabulary(config.vocab_size);
  const Status read = vocabulary.read(*json);
  if (!read) return read.error().at(folder.string());

  out.emplace_back("tokenizer.ggml.model", std::string("gpt2"));
  out.emplace_back("tokenizer.ggml.pre", pre_name(*json));
  out.emplace_back("tokenizer.ggml.tokens", std::move(vocabulary.tokens));
  out.emplace_back("tokenizer.ggml.token_type", std::move(vocabulary.types));
  out.emplace_back("tokenizer.ggml.merges", std::move(vocabulary.merges));
  std::optional<int64_t> bos = tokenizer.bos_id();
  if (!bos) bos = config.bos_token_id;
  std::optional<int64_t> eos = tokenizer.eos_id();
  if (!eos && !config.eos_token_ids.empty()) eos = config.eos_token_ids.front();
  add_id(out, "bos_token_id", bos);
  add_id(out, "eos_token_id", eos);
  const auto other = std::find_if(
      config.eos_token_ids.begin(), config.eos_token_ids.end(), [&](int64_t id) { return eos && id != *eos; });
  if (other != config.eos_token_ids.end()) add_id(out, "eot_token_id", *other);
  add_id(out, "padding_token_id", padding_id(config_text, tokenizer));
  out.emplace_back("tokenizer.ggml.add_bos_token", tokenizer.add_bos());
  out.emplace_back("tokenizer.ggml.add_eos_token", false);
  if (!tokenizer.chat_template().empty()) out.emplace_back("tokenizer.chat_template", tokenizer.chat_template());
  out.emplace_back("tokenizer.huggingface.json", std::move(text));
  return out;
}

}  // namespace lathe::convert
