// The tokenizer of a GGUF file in the form of HuggingFace's files, for Tokenizer::parse.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/formats/gguf.h"

namespace lathe {

struct GgufTokenizer {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
};

// Byte-level BPE from the keys tokenizer.ggml.* and tokenizer.chat_template. A key tokenizer.huggingface.json, when
// present, is taken as tokenizer.json instead of the lists. kNotFound for a file without a tokenizer, kUnsupported for
// other kinds (tokenizer.ggml.model other than gpt2) and unknown pre-tokenizers; errors begin with the path.
Result<GgufTokenizer> gguf_tokenizer(const GgufModel& model);

// The `pre_tokenizer` object of tokenizer.json that a value of tokenizer.ggml.pre stands for; nothing for unknown ones.
std::optional<Json> pre_tokenizer_of(std::string_view pre);
// The inverse, for writers: the name whose stages are those of a `pre_tokenizer` object; nothing when there is none.
std::optional<std::string_view> pre_tokenizer_name(const Json& pre_tokenizer);
// Whether tokens are looked up whole before merging, which tokenizer.ggml.pre implies for some vocabularies.
bool pre_tokenizer_ignores_merges(std::string_view pre);
// The names that pre_tokenizer_of knows.
std::vector<std::string_view> pre_tokenizer_names();

}  // namespace lathe
