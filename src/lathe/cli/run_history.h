// The lines typed at the prompt of `lathe run`, kept between runs in a text file of one line each.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "lathe/base/result.h"

namespace lathe::cli {

inline constexpr size_t kHistoryLines = 1000;
inline constexpr size_t kHistoryBytes = size_t{256} * 1024;
inline constexpr size_t kHistoryLineBytes = size_t{16} * 1024;  // longer lines are not kept

// The lines of the file, oldest first; none when there is no file.
Result<std::vector<std::string>> read_history(const std::filesystem::path& file);

// Adds lines to the file, which other sessions may have changed meanwhile, and drops the oldest beyond the limits
// above. Empty lines, lines of spaces and repetitions of the line before are left out. The file is replaced as a whole
// and only its owner may read it.
Status append_history(const std::filesystem::path& file, const std::vector<std::string>& lines);

}  // namespace lathe::cli
