// Metadata of the GGUF files that a conversion writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/formats/gguf.h"
#include "lathe/formats/gguf_writer.h"
#include "lathe/model/config.h"
#include "lathe/model/generation_defaults.h"

namespace lathe::convert {

using Metadata = std::vector<std::pair<std::string, GgufValue>>;

// general.* and the keys of the architecture (deepseek2, deepseek or llama). kUnsupported for what such files cannot
// say: a scale of cosines and sines of YaRN other than 1, a gate that does not follow from the keys.
Result<Metadata> model_metadata(const ModelConfig& config, const std::string& name, uint32_t file_type);

// general.sampling.*: nothing where the model is greedy by default.
Metadata sampling_metadata(const GenerationDefaults& defaults);

// tokenizer.*: tokens, types, merges, special ids, chat template, and tokenizer.json itself, from the files of a
// folder. Without a tokenizer.json, with a warning, the keys that say so. Errors name the file.
Result<Metadata> tokenizer_metadata(const std::filesystem::path& folder, const ModelConfig& config);

// Everything that a GGUF file says, with another general.file_type where one is given. Keys of split files are left
// out.
Result<Metadata> copied_metadata(const GgufHeader& header, std::optional<uint32_t> file_type);

}  // namespace lathe::convert
