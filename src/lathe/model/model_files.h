// ModelFiles: where a model's configuration, tokenizer and tensors come from, so that nobody else asks whether a path
// is a folder in HuggingFace layout or a GGUF file.
#pragma once

#include <filesystem>
#include <memory>

#include "lathe/base/result.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/model/config.h"
#include "lathe/model/generation_defaults.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

class GgufModel;

// The files of one model. Nothing of a folder is read before it is asked for, so that a folder with a config.json or a
// tokenizer alone serves what needs no more; of a GGUF file the header is read and checked at once.
class ModelFiles {
 public:
  // A folder, a .gguf file (the first one of a model in several), or a config.json. Errors: those of GgufModel::open.
  static Result<ModelFiles> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }

  bool is_gguf() const { return gguf_ != nullptr; }

  // The GGUF file as it is; null for a folder.
  const GgufModel* gguf() const { return gguf_.get(); }

  // config.json, or the metadata that say the same. Errors begin with the path of the file.
  Result<ParsedConfig> config() const;
  // generation_config.json or metadata; without either, greedy.
  Result<GenerationDefaults> generation_defaults() const;
  // Whether there is a tokenizer of a kind that is supported. Text can neither be read nor written without one.
  bool has_tokenizer() const;
  // Why there is none, for messages: "no tokenizer.json", or what the metadata of a GGUF file say instead.
  std::string missing_tokenizer() const;
  // Errors: those of Tokenizer::open and of gguf_tokenizer.
  Result<Tokenizer> tokenizer() const;
  // The tensors under their HuggingFace names.
  Result<Checkpoint> checkpoint() const;

 private:
  std::filesystem::path path_;
  std::shared_ptr<const GgufModel> gguf_;
};

}  // namespace lathe
