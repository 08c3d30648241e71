// What of a corpus is worth training on: cleaning, quality limits, exact and near duplicates. Documents stream through
// one after the other; what is remembered of them is bounded, so memory does not grow with the corpus.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "lathe/base/json.h"
#include "lathe/train/recipe.h"

namespace lathe::train {

enum class Verdict {
  kKept,
  kEmpty,
  kTooShort,
  kTooLong,
  kSymbols,       // too many characters that are no letters, digits, white space or usual signs
  kRepetition,    // too many lines that are copies of earlier ones
  kFewStopWords,  // too few of the words that every English text is full of
  kExactDuplicate,
  kNearDuplicate,
};
inline constexpr size_t kVerdicts = 9;

// "kept", "near duplicate", ...
std::string_view name_of(Verdict verdict);

// Line ends to \n, other control characters but tabs away, no white space at line ends, at most one blank line in a
// row, none at the ends.
std::string cleaned(std::string_view text);

// Shares that the limits of a recipe are about; 0 for an empty text.
double symbol_share(std::string_view text);
double repeated_line_share(std::string_view text);
double stop_word_share(std::string_view text);

// MinHash over the sets of five-word shingles: the share of equal entries of two signatures estimates the similarity
// (intersection over union) of the sets; 0.06 is its deviation at most.
inline constexpr size_t kSignatureSize = 64;
using Signature = std::array<uint32_t, kSignatureSize>;
Signature min_hash(std::string_view text);
double similarity(const Signature& a, const Signature& b);

// Remembers the last 2^22 exact texts and 2^17 signatures; what is older is forgotten, and two texts whose 64-bit
// hashes are equal count as copies (one in 10^6 corpora of a million documents has such a pair).
class CorpusFilter {
 public:
  explicit CorpusFilter(const DataRecipe& recipe);
  CorpusFilter(CorpusFilter&&) noexcept;
  CorpusFilter& operator=(CorpusFilter&&) noexcept;
  ~CorpusFilter();

  // Cleans the text in place and judges it; a kept text is remembered for what follows.
  Verdict check(std::string& text);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Counts of a pass over documents.
struct CorpusCounts {
  std::array<int64_t, kVerdicts> documents{};
  int64_t bytes_read = 0;
  int64_t bytes_kept = 0;
  int64_t tokens = 0;
  std::array<int64_t, 32> lengths{};  // kept documents by the binary logarithm of their tokens

  // As the token folder's manifest and the report have it.
  Json json() const;
};

}  // namespace lathe::train
