#include "lathe/runtime/drafter.h"

#include <algorithm>

#include "lathe/runtime/scheduler.h"

namespace lathe {

namespace {

constexpr size_t kShortestMatch = 2;  // one equal token says too little
constexpr size_t kLongestMatch = 4;

// Tokens, at most kLongestMatch, in which the text ending before `end` agrees with the whole text's end.
size_t common_end(std::span<const int32_t> tokens, size_t end) {
  const size_t limit = std::min(kLongestMatch, end);
  size_t n = 0;
  while (n < limit && tokens[end - 1 - n] == tokens[tokens.size() - 1 - n]) ++n;
  return n;
}

}  // namespace

std::string_view name_of(DrafterKind kind) {
  return kind == DrafterKind::kMtp ? "mtp" : "text";
}

int64_t TextDrafter::plan(Sequence& sequence, int64_t most) {
  draft_from_text(sequence.tokens, most, sequence.drafts);
  return static_cast<int64_t>(sequence.drafts.size());
}

void draft_from_text(std::span<const int32_t> tokens, int64_t count, std::vector<int32_t>& out) {
  if (count <= 0 || tokens.size() <= kShortestMatch) return;
  size_t best = 0;
  size_t from = 0;  // the guesses are what stands from here on
  for (size_t end = tokens.size() - 1; end >= kShortestMatch && best < kLongestMatch; --end) {
    const size_t n = common_end(tokens, end);
    if (n >= kShortestMatch && n > best) {
      best = n;
      from = end;
    }
  }
  if (best == 0) return;
  const size_t period = tokens.size() - from;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) out.push_back(tokens[from + i % period]);
}

}  // namespace lathe
