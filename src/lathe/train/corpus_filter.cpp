#include "lathe/train/corpus_filter.h"

#include <array>
#include <utility>

#include "lathe/base/utf8.h"
#include "lathe/train/corpus_text.h"

namespace lathe::train {
namespace {

constexpr size_t kRememberedTexts = size_t{1} << 22;

}  // namespace

std::string_view name_of(Verdict verdict) {
  constexpr std::array<std::string_view, kVerdicts> kNames{"kept",
                                                           "empty",
                                                           "too short",
                                                           "too long",
                                                           "too many symbols",
                                                           "repeated lines",
                                                           "few stop words",
                                                           "exact duplicate",
                                                           "near duplicate",
                                                           "too many digits",
                                                           "word length",
                                                           "repeated phrases",
                                                           "only boilerplate",
                                                           "only known paragraphs"};
  return kNames[static_cast<size_t>(verdict)];
}

struct CorpusFilter::State {
  DataRecipe recipe;
  std::unique_ptr<FrequentLines> boilerplate;
  RecentHashes texts{kRememberedTexts};
  std::unique_ptr<RecentSignatures> signatures;
  ParagraphMemory paragraphs;
};

CorpusFilter::CorpusFilter(const DataRecipe& recipe, std::unique_ptr<FrequentLines> boilerplate)
    : state_(std::make_unique<State>()) {
  state_->recipe = recipe;
  state_->boilerplate = std::move(boilerplate);
  if (recipe.drop_near_duplicates) state_->signatures = std::make_unique<RecentSignatures>();
}

CorpusFilter::CorpusFilter(CorpusFilter&&) noexcept = default;
CorpusFilter& CorpusFilter::operator=(CorpusFilter&&) noexcept = default;
CorpusFilter::~CorpusFilter() = default;

Verdict CorpusFilter::check_quality(std::string_view text) const {
  const DataRecipe& recipe = state_->recipe;
  if (recipe.min_chars > 0 || recipe.max_chars > 0) {
    const int64_t chars = count_code_points(text);
    if (chars < recipe.min_chars) return Verdict::kTooShort;
    if (recipe.max_chars > 0 && chars > recipe.max_chars) return Verdict::kTooLong;
  }
  if (recipe.max_symbol_ratio < 1.0 && symbol_share(text) > recipe.max_symbol_ratio) return Verdict::kSymbols;
  if (recipe.max_digit_ratio < 1.0 && digit_share(text) > recipe.max_digit_ratio) return Verdict::kDigits;
  if (recipe.min_word_length > 0.0 || recipe.max_word_length > 0.0) {
    const double length = mean_word_length(text);
    if (length < recipe.min_word_length) return Verdict::kWordLength;
    if (recipe.max_word_length > 0.0 && length > recipe.max_word_length) return Verdict::kWordLength;
  }
  if (recipe.max_repetition < 1.0 && repeated_line_share(text) > recipe.max_repetition) return Verdict::kRepetition;
  if (recipe.max_repeated_phrases < 1.0 && repeated_phrase_share(text) > recipe.max_repeated_phrases) {
    return Verdict::kPhrases;
  }
  if (recipe.min_stop_words > 0.0 && stop_word_share(text) < recipe.min_stop_words) return Verdict::kFewStopWords;
  return Verdict::kKept;
}

Verdict CorpusFilter::check(std::string& text, Edits* edits) {
  const DataRecipe& recipe = state_->recipe;
  Edits own;
  Edits& done = edits != nullptr ? *edits : own;
  done = {};
  if (recipe.clean) text = cleaned(text);
  if (text.empty()) return Verdict::kEmpty;
  if (state_->boilerplate) done.lines = state_->boilerplate->remove_from(text);
  if (text.empty()) return Verdict::kFrequentLines;
  const Verdict quality = check_quality(text);
  if (quality != Verdict::kKept) return quality;
  if (recipe.drop_exact_duplicates && state_->texts.insert(hash_text(text))) return Verdict::kExactDuplicate;
  if (state_->signatures) {
    const Signature signature = min_hash(text);
    if (state_->signatures->contains(signature, recipe.duplicate_similarity)) return Verdict::kNearDuplicate;
    state_->signatures->insert(signature);
  }
  // Last: near copies are found by the paragraphs that they share.
  if (recipe.drop_known_paragraphs) done.paragraphs = state_->paragraphs.remove_known(text);
  return text.empty() ? Verdict::kKnownParagraphs : Verdict::kKept;
}

}  // namespace lathe::train
