#include "lathe/model/model_files.h"

#include <system_error>

#include "lathe/base/str.h"
#include "lathe/formats/gguf.h"
#include "lathe/formats/gguf_config.h"
#include "lathe/formats/gguf_tokenizer.h"

namespace lathe {

Result<ModelFiles> ModelFiles::open(const std::filesystem::path& path) {
  ModelFiles out;
  out.path_ = path;
  if (is_gguf_path(path)) {
    LATHE_TRY(out.gguf_, GgufModel::open(path));
  }
  return out;
}

Result<ParsedConfig> ModelFiles::config() const {
  if (gguf_ == nullptr) return load_config(path_);
  LATHE_TRY(const Json json, gguf_config(*gguf_));
  Result<ParsedConfig> parsed = parse_config(json);
  if (!parsed) return parsed.error().at(path_.string());
  return parsed;
}

Result<GenerationDefaults> ModelFiles::generation_defaults() const {
  if (gguf_ == nullptr) return load_generation_defaults(path_);
  LATHE_TRY(const Json json, gguf_generation_config(*gguf_));
  Result<GenerationDefaults> parsed = parse_generation_defaults(json);
  if (!parsed) return parsed.error().at(path_.string());
  return parsed;
}

bool ModelFiles::has_tokenizer() const {
  if (gguf_ != nullptr) {
    const GgufField* kind = gguf_->header().find("tokenizer.ggml.model");
    return kind != nullptr && kind->text() == "gpt2";
  }
  std::error_code ignored;
  return std::filesystem::exists(path_ / "tokenizer.json", ignored);
}

std::string ModelFiles::missing_tokenizer() const {
  if (gguf_ == nullptr) return "no tokenizer.json";
  const GgufField* kind = gguf_->header().find("tokenizer.ggml.model");
  return str("tokenizer.ggml.model: expected gpt2, found ", kind != nullptr ? kind->describe() : std::string("none"));
}

Result<Tokenizer> ModelFiles::tokenizer() const {
  if (gguf_ == nullptr) return Tokenizer::open(path_);
  LATHE_TRY(const GgufTokenizer texts, gguf_tokenizer(*gguf_));
  Result<Tokenizer> parsed = Tokenizer::parse(texts.tokenizer_json, texts.tokenizer_config_json);
  if (!parsed) return parsed.error().at(path_.string());
  return parsed;
}

Result<Checkpoint> ModelFiles::checkpoint() const {
  return gguf_ == nullptr ? Checkpoint::open(path_) : Checkpoint::open(gguf_);
}

}  // namespace lathe
