// Patterns of Oniguruma's dialect (the one tokenizer.json is written in) rewritten in PCRE2's; see regex_pcre.h for
// what differs between the two.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/base/result.h"

namespace lathe {

struct PcrePattern {
  std::string text;
  std::vector<std::pair<size_t, size_t>> origins;  // (offset in text, offset in the original), ascending

  // The offset in the original of what stands at `offset` of `text`.
  size_t origin(size_t offset) const;
};

// `compiles` tells whether PCRE2 accepts a pattern: script names are found out that way. `pattern` must be valid UTF-8.
// Errors begin with `byte <offset>: `.
Result<PcrePattern> translate_to_pcre(std::string_view pattern, bool (*compiles)(const std::string& pattern));

}  // namespace lathe
