// What filters and statistics of a corpus know about a text: its words, hashes, cleaned form, and shares of what is in
// it that tell prose from lists, tables, listings and noise.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "lathe/base/ascii.h"

namespace lathe::train {

// ASCII alone.
inline bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// Spreads the bits of a hash.
inline uint64_t mixed(uint64_t x) {
  x ^= x >> 33;
  x *= 0xFF51AFD7ED558CCDu;
  x ^= x >> 33;
  x *= 0xC4CEB9FE1A85EC53u;
  return x ^ (x >> 33);
}

// Not cryptographic: whoever wants to can make two texts with one hash.
uint64_t hash_text(std::string_view text);

// Calls body(word) for every run of characters that are not white space, letters A to Z in lower case, without signs at
// its ends. The word is valid during the call.
template <class Body>
void each_word(std::string_view text, const Body& body) {
  std::string word;
  const auto is_part = [](char c) { return is_ascii_alnum(c) || (c & 0x80) != 0; };
  for (size_t i = 0; i < text.size();) {
    while (i < text.size() && is_space(text[i])) ++i;
    size_t end = i;
    while (end < text.size() && !is_space(text[end])) ++end;
    std::string_view piece = text.substr(i, end - i);
    while (!piece.empty() && !is_part(piece.front())) piece.remove_prefix(1);
    while (!piece.empty() && !is_part(piece.back())) piece.remove_suffix(1);
    i = end;
    if (piece.empty()) continue;
    word.assign(piece);
    for (char& c : word) c = ascii_lower(c);
    body(std::string_view(word));
  }
}

// Calls body(hash) for every sequence of five words; a shorter text that has words is one sequence.
template <class Body>
void each_phrase(std::string_view text, const Body& body) {
  constexpr size_t kWords = 5;
  std::array<uint64_t, kWords> recent{};
  size_t words = 0;
  const auto hash_of = [&](size_t count) {
    uint64_t h = 0;
    for (size_t i = words - count; i < words; ++i) h = mixed(h * 31 + recent[i % kWords]);
    return h;
  };
  each_word(text, [&](std::string_view word) {
    recent[words++ % kWords] = hash_text(word);
    if (words >= kWords) body(hash_of(kWords));
  });
  if (words > 0 && words < kWords) body(hash_of(words));
}

// Calls body(line) for every line, without its end.
template <class Body>
void each_line(std::string_view text, const Body& body) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    body(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return;
    begin = end + 1;
  }
}

// Line ends to \n, other control characters but tabs away, no white space at line ends, at most one blank line in a
// row, none at the ends.
std::string cleaned(std::string_view text);

// Shares that the limits of a recipe are about; 0 for an empty text.
double symbol_share(std::string_view text);           // characters but letters, digits, white space and usual signs
double digit_share(std::string_view text);            // characters 0 to 9
double repeated_line_share(std::string_view text);    // lines that are copies of earlier ones
double repeated_phrase_share(std::string_view text);  // sequences of five words that stood in the text before
double stop_word_share(std::string_view text);        // words that every English text is full of
double mean_word_length(std::string_view text);       // characters

}  // namespace lathe::train
