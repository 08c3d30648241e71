// Guesses for speculative decoding, from the text alone: what followed the last time that the text ended like this.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lathe {

// Appends to `out` at most `count` guesses of what follows `tokens` (prompt and output): the tokens after the earlier
// place that shares the longest end with it, 2 to 4 tokens, the latest place among equals. Nothing without such a
// place. Where that place is closer to the end than `count`, its period goes on.
void draft_from_text(std::span<const int32_t> tokens, int64_t count, std::vector<int32_t>& out);

}  // namespace lathe
