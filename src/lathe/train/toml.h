// TOML to Json: what a recipe file is read through. toml++ does the parsing inside toml.cpp; it appears in no header.
#pragma once

#include <filesystem>
#include <string_view>

#include "lathe/base/json.h"
#include "lathe/base/result.h"

namespace lathe::train {

// Tables become objects in order of their keys, arrays arrays; dates and times are refused, since nothing here has one.
// `where` goes before every message: `recipe.toml: line 3, column 7: ...`. kInvalidData.
Result<Json> parse_toml(std::string_view text, std::string_view where);

// The same for a regular file of at most 16 MiB.
Result<Json> read_toml(const std::filesystem::path& path);

// One value as it is written after an equals sign: 3, 1e-4, true, "text", [1, 2]. What is not a value of TOML is text
// as it stands, so that paths need no quotes on a command line.
Json parse_toml_value(std::string_view text);

}  // namespace lathe::train
