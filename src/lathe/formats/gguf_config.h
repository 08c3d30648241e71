// What the metadata of a GGUF file say about the model, in the words of HuggingFace's files, so that the checks of
// model/config.h apply to both.
#pragma once

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/formats/gguf.h"

namespace lathe {

// config.json of a model of the architectures deepseek2, deepseek and llama (docs/formats.md has the table of keys).
// Keys of the architecture that are not known become fields under their own names, so that the reader of the
// configuration warns about them. Errors begin with the path and name the key.
Result<Json> gguf_config(const GgufModel& model);

// generation_config.json: the sampling defaults that the file recommends; without any, an object that says greedy.
Result<Json> gguf_generation_config(const GgufModel& model);

}  // namespace lathe
