#include "lathe/train/corpus_text.h"

#include <algorithm>
#include <unordered_set>

#include "lathe/base/ascii.h"
#include "lathe/base/utf8.h"

namespace lathe::train {
namespace {

constexpr std::string_view kStopWords[] = {
    "a",    "about", "all", "an",   "and",  "are",  "as",    "at",   "be",   "but",   "by",    "for",  "from", "had",
    "have", "he",    "her", "his",  "i",    "if",   "in",    "is",   "it",   "me",    "my",    "no",   "not",  "of",
    "on",   "or",    "out", "said", "she",  "so",   "that",  "the",  "them", "then",  "there", "they", "this", "to",
    "up",   "was",   "we",  "were", "what", "when", "which", "will", "with", "would", "you",   "your"};

bool is_usual(char32_t c) {
  if (c < 0x80) {
    const char ascii = static_cast<char>(c);
    return is_ascii_alnum(ascii) || is_space(ascii) ||
           std::string_view(".,;:!?'\"()-").find(ascii) != std::string_view::npos;
  }
  // Quotation marks and dashes are usual; arrows, drawings, pictures, private use and U+FFFD are not.
  if (c >= 0x2010 && c <= 0x2026) return true;
  return !(c < 0xA0 || (c >= 0x2000 && c < 0x2C00) || (c >= 0xE000 && c < 0xF900) || c == 0xFFFD || c >= 0x1F000);
}

double share_of(int64_t part, int64_t all) {
  return all == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(all);
}

// Of a stream of hashes those that came before.
class RepeatShare {
 public:
  void add(uint64_t hash) {
    ++all_;
    repeated_ += seen_.insert(hash).second ? 0 : 1;
  }

  double share() const { return share_of(repeated_, all_); }

 private:
  std::unordered_set<uint64_t> seen_;
  int64_t all_ = 0;
  int64_t repeated_ = 0;
};

}  // namespace

uint64_t hash_text(std::string_view text) {
  uint64_t h = 0x9E3779B97F4A7C15u ^ text.size();
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return mixed(h);
}

std::string cleaned(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  int line_ends = 2;  // in a row, at the end of `out`; none is wanted at its start
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\r') {
      if (i + 1 < text.size() && text[i + 1] == '\n') continue;
      c = '\n';
    }
    if (c == '\n') {
      while (!out.empty() && (out.back() == ' ' || out.back() == '\t')) out.pop_back();
      if (!out.empty() && out.back() != '\n') line_ends = 0;
      if (line_ends < 2 && !out.empty()) {
        out += '\n';
        ++line_ends;
      }
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\t') || byte == 0x7F) continue;
    // U+0080 to U+009F are control characters too.
    if (byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0) {
      ++i;
      continue;
    }
    out += c;
  }
  while (!out.empty() && is_space(out.back())) out.pop_back();
  return out;
}

double symbol_share(std::string_view text) {
  int64_t all = 0;
  int64_t unusual = 0;
  for (size_t i = 0; i < text.size();) {
    ++all;
    unusual += is_usual(decode_utf8(text, i)) ? 0 : 1;
  }
  return share_of(unusual, all);
}

double digit_share(std::string_view text) {
  return share_of(std::ranges::count_if(text, is_ascii_digit), count_code_points(text));
}

double repeated_line_share(std::string_view text) {
  RepeatShare lines;
  each_line(text, [&](std::string_view line) {
    if (!line.empty()) lines.add(hash_text(line));
  });
  return lines.share();
}

double repeated_phrase_share(std::string_view text) {
  RepeatShare phrases;
  each_phrase(text, [&](uint64_t phrase) { phrases.add(phrase); });
  return phrases.share();
}

double stop_word_share(std::string_view text) {
  int64_t words = 0;
  int64_t stop_words = 0;
  each_word(text, [&](std::string_view word) {
    ++words;
    stop_words += std::ranges::binary_search(kStopWords, word) ? 1 : 0;
  });
  return share_of(stop_words, words);
}

double mean_word_length(std::string_view text) {
  int64_t words = 0;
  int64_t chars = 0;
  each_word(text, [&](std::string_view word) {
    ++words;
    chars += count_code_points(word);
  });
  return share_of(chars, words);
}

}  // namespace lathe::train
