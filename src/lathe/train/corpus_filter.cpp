#include "lathe/train/corpus_filter.h"

#include <algorithm>
#include <bit>
#include <unordered_set>
#include <utility>
#include <vector>

#include "lathe/base/utf8.h"

namespace lathe::train {
namespace {

constexpr size_t kRememberedTexts = size_t{1} << 22;
constexpr size_t kRememberedSignatures = size_t{1} << 17;
constexpr size_t kBands = 16;
constexpr size_t kBandRows = kSignatureSize / kBands;
constexpr size_t kBandSlots = size_t{1} << 18;
constexpr size_t kShingleWords = 5;

constexpr std::string_view kStopWords[] = {
    "a",    "about", "all", "an",   "and",  "are",  "as",    "at",   "be",   "but",   "by",    "for",  "from", "had",
    "have", "he",    "her", "his",  "i",    "if",   "in",    "is",   "it",   "me",    "my",    "no",   "not",  "of",
    "on",   "or",    "out", "said", "she",  "so",   "that",  "the",  "them", "then",  "there", "they", "this", "to",
    "up",   "was",   "we",  "were", "what", "when", "which", "will", "with", "would", "you",   "your"};

uint64_t mixed(uint64_t x) {
  x ^= x >> 33;
  x *= 0xFF51AFD7ED558CCDu;
  x ^= x >> 33;
  x *= 0xC4CEB9FE1A85EC53u;
  return x ^ (x >> 33);
}

uint64_t hash_text(std::string_view text) {
  uint64_t h = 0x9E3779B97F4A7C15u ^ text.size();
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return mixed(h);
}

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

bool is_ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Calls body(word) for every run of characters that are not white space, in lower case without signs at its ends.
template <class Body>
void each_word(std::string_view text, const Body& body) {
  std::string word;
  const auto is_part = [](char c) { return is_ascii_letter(c) || (c >= '0' && c <= '9') || (c & 0x80) != 0; };
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
    for (char& c : word) c = lower(c);
    body(std::string_view(word));
  }
}

bool is_usual(char32_t c) {
  if (c < 0x80) {
    const char ascii = static_cast<char>(c);
    return is_ascii_letter(ascii) || (c >= '0' && c <= '9') || is_space(ascii) ||
           std::string_view(".,;:!?'\"()-").find(ascii) != std::string_view::npos;
  }
  // Quotation marks and dashes are usual; arrows, drawings, pictures, private use and U+FFFD are not.
  if (c >= 0x2010 && c <= 0x2026) return true;
  return !(c < 0xA0 || (c >= 0x2000 && c < 0x2C00) || (c >= 0xE000 && c < 0xF900) || c == 0xFFFD || c >= 0x1F000);
}

// The last `capacity` hashes of a stream.
class RecentHashes {
 public:
  explicit RecentHashes(size_t capacity) : capacity_(capacity) {}

  // Whether it was there; it is now.
  bool insert(uint64_t hash) {
    if (!known_.insert(hash).second) return true;
    if (order_.size() < capacity_) {
      order_.push_back(hash);
    } else {
      known_.erase(std::exchange(order_[next_], hash));
      next_ = (next_ + 1) % capacity_;
    }
    return false;
  }

 private:
  size_t capacity_;
  std::unordered_set<uint64_t> known_;
  std::vector<uint64_t> order_;
  size_t next_ = 0;
};

// Signatures found by bands: two that agree in all rows of a band meet in its slot. A slot keeps the last one only.
class RecentSignatures {
 public:
  RecentSignatures() : slots_(kBands, std::vector<uint32_t>(kBandSlots, kNone)) {}

  bool contains(const Signature& signature, double least) const {
    for (size_t band = 0; band < kBands; ++band) {
      const uint32_t at = slots_[band][slot(signature, band)];
      if (at != kNone && similarity(signatures_[at], signature) >= least) return true;
    }
    return false;
  }

  void insert(const Signature& signature) {
    if (signatures_.size() < kRememberedSignatures) signatures_.emplace_back();
    signatures_[next_] = signature;
    for (size_t band = 0; band < kBands; ++band) slots_[band][slot(signature, band)] = static_cast<uint32_t>(next_);
    next_ = (next_ + 1) % kRememberedSignatures;
  }

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFFu;

  static size_t slot(const Signature& signature, size_t band) {
    uint64_t h = band;
    for (size_t row = 0; row < kBandRows; ++row) h = mixed(h ^ signature[band * kBandRows + row]);
    return h & (kBandSlots - 1);
  }

  std::vector<Signature> signatures_;
  std::vector<std::vector<uint32_t>> slots_;
  size_t next_ = 0;
};

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
                                                           "near duplicate"};
  return kNames[static_cast<size_t>(verdict)];
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
  return all == 0 ? 0.0 : static_cast<double>(unusual) / static_cast<double>(all);
}

double repeated_line_share(std::string_view text) {
  std::unordered_set<uint64_t> seen;
  int64_t lines = 0;
  int64_t repeated = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) {
      ++lines;
      repeated += seen.insert(hash_text(text.substr(begin, end - begin))).second ? 0 : 1;
    }
    begin = end + 1;
  }
  return lines == 0 ? 0.0 : static_cast<double>(repeated) / static_cast<double>(lines);
}

double stop_word_share(std::string_view text) {
  int64_t words = 0;
  int64_t stop_words = 0;
  each_word(text, [&](std::string_view word) {
    ++words;
    stop_words += std::ranges::binary_search(kStopWords, word) ? 1 : 0;
  });
  return words == 0 ? 0.0 : static_cast<double>(stop_words) / static_cast<double>(words);
}

Signature min_hash(std::string_view text) {
  Signature out;
  out.fill(0xFFFFFFFFu);
  std::array<uint64_t, kShingleWords> recent{};
  size_t words = 0;
  const auto note = [&](uint64_t shingle) {
    // Multiplication by odd constants is a family of hash functions good enough for minima.
    uint64_t factor = 0x9E3779B97F4A7C15u;
    for (uint32_t& least : out) {
      least = std::min(least, static_cast<uint32_t>((shingle * factor) >> 32));
      factor = factor * 0xD1342543DE82EF95u + 2;
      factor |= 1;
    }
  };
  const auto shingle_of = [&](size_t count) {
    uint64_t h = 0;
    for (size_t i = words - count; i < words; ++i) h = mixed(h * 31 + recent[i % kShingleWords]);
    return h;
  };
  each_word(text, [&](std::string_view word) {
    recent[words % kShingleWords] = hash_text(word);
    ++words;
    if (words >= kShingleWords) note(shingle_of(kShingleWords));
  });
  if (words > 0 && words < kShingleWords) note(shingle_of(words));
  return out;
}

double similarity(const Signature& a, const Signature& b) {
  int64_t equal = 0;
  for (size_t i = 0; i < kSignatureSize; ++i) equal += a[i] == b[i] ? 1 : 0;
  return static_cast<double>(equal) / static_cast<double>(kSignatureSize);
}

struct CorpusFilter::State {
  DataRecipe recipe;
  RecentHashes texts{kRememberedTexts};
  std::unique_ptr<RecentSignatures> signatures;
};

CorpusFilter::CorpusFilter(const DataRecipe& recipe) : state_(std::make_unique<State>()) {
  state_->recipe = recipe;
  if (recipe.drop_near_duplicates) state_->signatures = std::make_unique<RecentSignatures>();
}

CorpusFilter::CorpusFilter(CorpusFilter&&) noexcept = default;
CorpusFilter& CorpusFilter::operator=(CorpusFilter&&) noexcept = default;
CorpusFilter::~CorpusFilter() = default;

Verdict CorpusFilter::check(std::string& text) {
  const DataRecipe& recipe = state_->recipe;
  if (recipe.clean) text = cleaned(text);
  if (text.empty()) return Verdict::kEmpty;
  if (recipe.min_chars > 0 || recipe.max_chars > 0) {
    const auto is_start = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
    const int64_t chars = std::ranges::count_if(text, is_start);
    if (chars < recipe.min_chars) return Verdict::kTooShort;
    if (recipe.max_chars > 0 && chars > recipe.max_chars) return Verdict::kTooLong;
  }
  if (recipe.max_symbol_ratio < 1.0 && symbol_share(text) > recipe.max_symbol_ratio) return Verdict::kSymbols;
  if (recipe.max_repetition < 1.0 && repeated_line_share(text) > recipe.max_repetition) return Verdict::kRepetition;
  if (recipe.min_stop_words > 0.0 && stop_word_share(text) < recipe.min_stop_words) return Verdict::kFewStopWords;
  if (recipe.drop_exact_duplicates && state_->texts.insert(hash_text(text))) return Verdict::kExactDuplicate;
  if (state_->signatures) {
    const Signature signature = min_hash(text);
    if (state_->signatures->contains(signature, recipe.duplicate_similarity)) return Verdict::kNearDuplicate;
    state_->signatures->insert(signature);
  }
  return Verdict::kKept;
}

Json CorpusCounts::json() const {
  Json out = Json::object();
  Json by_verdict = Json::object();
  for (size_t i = 0; i < kVerdicts; ++i) by_verdict.set(name_of(static_cast<Verdict>(i)), documents[i]);
  out.set("documents", std::move(by_verdict));
  out.set("bytes_read", bytes_read);
  out.set("bytes_kept", bytes_kept);
  out.set("tokens", tokens);
  out.set("bytes_per_token", tokens > 0 ? static_cast<double>(bytes_kept) / static_cast<double>(tokens) : 0.0);
  Json histogram = Json::array();
  size_t last = lengths.size();
  while (last > 0 && lengths[last - 1] == 0) --last;
  for (size_t i = 0; i < last; ++i) histogram.push(lengths[i]);
  out.set("documents_by_log2_tokens", std::move(histogram));
  return out;
}

}  // namespace lathe::train
