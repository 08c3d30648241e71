// What of a corpus is worth training on: cleaning, quality limits, exact and near duplicates. Documents stream through
// one after the other; what is remembered of them is bounded, so memory does not grow with the corpus.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "lathe/train/corpus_duplicates.h"
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
  kDigits,           // too many
  kWordLength,       // words too short or too long on average
  kPhrases,          // too many sequences of words that are copies of earlier ones
  kFrequentLines,    // nothing left without the lines of many documents
  kKnownParagraphs,  // nothing left without paragraphs of earlier documents
};
inline constexpr size_t kVerdicts = 14;

// "kept", "near duplicate", ...
std::string_view name_of(Verdict verdict);

// What was taken out of documents.
struct Edits {
  int64_t lines = 0;       // of many documents
  int64_t paragraphs = 0;  // of earlier documents
};

// Remembers the last 2^22 exact texts and 2^17 signatures; what is older is forgotten, and two texts whose 64-bit
// hashes are equal count as copies (one in 10^6 corpora of a million documents has such a pair).
class CorpusFilter {
 public:
  // `boilerplate`: finished, or null.
  explicit CorpusFilter(const DataRecipe& recipe, std::unique_ptr<FrequentLines> boilerplate = nullptr);
  CorpusFilter(CorpusFilter&&) noexcept;
  CorpusFilter& operator=(CorpusFilter&&) noexcept;
  ~CorpusFilter();

  // Cleans the text in place, takes out what the recipe wants out, and judges it; a kept text is remembered for what
  // follows. `edits`, when given, receives what was taken out.
  Verdict check(std::string& text, Edits* edits = nullptr);

 private:
  Verdict check_quality(std::string_view text) const;

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe::train
