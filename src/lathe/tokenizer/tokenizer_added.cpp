#include "lathe/tokenizer/tokenizer_added.h"

#include <algorithm>
#include <utility>

#include "lathe/base/utf8.h"
#include "lathe/tokenizer/regex_unicode.h"

namespace lathe {
namespace {

bool is_white_space(char32_t c) {
  static const unicode::RangeSet set = unicode::white_space();
  return set.contains(c);
}

// Letters, marks, decimal digits and connectors.
bool is_word(char32_t c) {
  static const unicode::RangeSet set = [] {
    unicode::RangeSet out;
    for (const char* name : {"L", "M", "Nd", "Nl", "Pc"}) unicode::property(name, out);
    out.normalise();
    return out;
  }();
  return set.contains(c);
}

// Where the character before `position` begins (position > 0).
size_t before(std::string_view text, size_t position) {
  size_t start = position - 1;
  while (start > 0 && position - start < 4 && is_utf8_continuation(text[start])) --start;
  return start;
}

char32_t code_point(std::string_view text, size_t position) {
  return decode_utf8(text, position);
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(), [](const auto& a, const auto& b) { return a.content < b.content; });
  for (const AddedToken& token : tokens_) first_bytes_[static_cast<unsigned char>(token.content[0])] = true;
}

const AddedToken* AddedTokenMatcher::token(std::string_view content) const {
  const auto at = std::lower_bound(
      tokens_.begin(), tokens_.end(), content, [](const AddedToken& t, std::string_view c) { return t.content < c; });
  return at != tokens_.end() && at->content == content ? &*at : nullptr;
}

// Narrows the range of tokens that share their first bytes with the text, one byte at a time.
const AddedToken* AddedTokenMatcher::longest_at(std::string_view text, size_t position) const {
  const AddedToken* longest = nullptr;
  auto low = tokens_.begin(), high = tokens_.end();
  for (size_t depth = 0; low != high; ++depth) {
    if (low->content.size() == depth) {
      longest = &*low++;
      if (low == high) break;
    }
    if (position + depth >= text.size()) break;
    const auto byte = static_cast<unsigned char>(text[position + depth]);
    const auto at = [depth](const AddedToken& t) { return static_cast<unsigned char>(t.content[depth]); };
    low = std::lower_bound(low, high, byte, [&](const AddedToken& t, unsigned char b) { return at(t) < b; });
    high = std::upper_bound(low, high, byte, [&](unsigned char b, const AddedToken& t) { return b < at(t); });
  }
  return longest;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::find(std::string_view text, size_t from) const {
  if (tokens_.empty()) return std::nullopt;
  for (size_t position = from; position < text.size();) {
    if (!first_bytes_[static_cast<unsigned char>(text[position])]) {
      ++position;
      continue;
    }
    const AddedToken* token = longest_at(text, position);
    if (token == nullptr) {
      ++position;
      continue;
    }
    Match match{position, position + token->content.size(), token->id};
    position = match.end;
    if (token->single_word) {
      const bool word_before = match.begin > 0 && is_word(code_point(text, before(text, match.begin)));
      if (word_before || (match.end < text.size() && is_word(code_point(text, match.end)))) continue;
    }
    if (token->lstrip) {
      while (match.begin > from && is_white_space(code_point(text, before(text, match.begin)))) {
        match.begin = std::max(from, before(text, match.begin));
      }
    }
    if (token->rstrip) {
      size_t next = match.end;
      while (match.end < text.size() && is_white_space(decode_utf8(text, next))) match.end = next;
    }
    return match;
  }
  return std::nullopt;
}

}  // namespace lathe
