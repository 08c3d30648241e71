#include "lathe/train/corpus_duplicates.h"

#include <algorithm>
#include <utility>

#include "lathe/train/corpus_text.h"

namespace lathe::train {
namespace {

constexpr size_t kRememberedSignatures = size_t{1} << 17;
constexpr size_t kBands = 16;
constexpr size_t kBandRows = kSignatureSize / kBands;
constexpr size_t kBandSlots = size_t{1} << 18;
constexpr uint32_t kNone = 0xFFFFFFFFu;
constexpr int64_t kParagraphWords = 15;
constexpr size_t kCountedLines = size_t{1} << 20;
constexpr size_t kLineBytes = 20;

size_t slot_of(const Signature& signature, size_t band) {
  uint64_t h = band;
  for (size_t row = 0; row < kBandRows; ++row) h = mixed(h ^ signature[band * kBandRows + row]);
  return h & (kBandSlots - 1);
}

int64_t count_words(std::string_view text) {
  int64_t words = 0;
  each_word(text, [&](std::string_view) { ++words; });
  return words;
}

}  // namespace

bool RecentHashes::insert(uint64_t hash) {
  if (!known_.insert(hash).second) return true;
  if (order_.size() < capacity_) {
    order_.push_back(hash);
  } else {
    known_.erase(std::exchange(order_[next_], hash));
    next_ = (next_ + 1) % capacity_;
  }
  return false;
}

Signature min_hash(std::string_view text) {
  Signature out;
  out.fill(0xFFFFFFFFu);
  each_phrase(text, [&](uint64_t phrase) {
    // Multiplication by odd constants is a family of hash functions good enough for minima.
    uint64_t factor = 0x9E3779B97F4A7C15u;
    for (uint32_t& least : out) {
      least = std::min(least, static_cast<uint32_t>((phrase * factor) >> 32));
      factor = factor * 0xD1342543DE82EF95u + 2;
      factor |= 1;
    }
  });
  return out;
}

double similarity(const Signature& a, const Signature& b) {
  int64_t equal = 0;
  for (size_t i = 0; i < kSignatureSize; ++i) equal += a[i] == b[i] ? 1 : 0;
  return static_cast<double>(equal) / static_cast<double>(kSignatureSize);
}

RecentSignatures::RecentSignatures() : slots_(kBands, std::vector<uint32_t>(kBandSlots, kNone)) {}

bool RecentSignatures::contains(const Signature& signature, double least) const {
  for (size_t band = 0; band < kBands; ++band) {
    const uint32_t at = slots_[band][slot_of(signature, band)];
    if (at != kNone && similarity(signatures_[at], signature) >= least) return true;
  }
  return false;
}

void RecentSignatures::insert(const Signature& signature) {
  if (signatures_.size() < kRememberedSignatures) signatures_.emplace_back();
  signatures_[next_] = signature;
  for (size_t band = 0; band < kBands; ++band) slots_[band][slot_of(signature, band)] = static_cast<uint32_t>(next_);
  next_ = (next_ + 1) % kRememberedSignatures;
}

int64_t ParagraphMemory::remove_known(std::string& text) {
  std::string out;
  int64_t removed = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find("\n\n", begin), text.size());
    const std::string_view paragraph = std::string_view(text).substr(begin, end - begin);
    begin = std::min(text.find_first_not_of('\n', end), text.size());
    if (count_words(paragraph) >= kParagraphWords && known_.insert(hash_text(paragraph))) {
      ++removed;
      continue;
    }
    if (!out.empty()) out += "\n\n";
    out += paragraph;
  }
  if (removed > 0) text = std::move(out);
  return removed;
}

void FrequentLines::observe(std::string_view text) {
  ++observed_;
  each_line(text, [&](std::string_view line) {
    if (line.size() < kLineBytes) return;
    Count& count = counts_[hash_text(line)];
    if (count.last == observed_) return;
    count.last = observed_;
    ++count.documents;
  });
  if (counts_.size() > kCountedLines) drop_rare();
}

void FrequentLines::drop_rare() {
  for (int64_t least = 1; counts_.size() > kCountedLines / 2; ++least) {
    std::erase_if(counts_, [&](const auto& entry) { return entry.second.documents <= least; });
  }
}

void FrequentLines::finish() {
  for (const auto& [hash, count] : counts_) {
    if (count.documents >= min_documents_) frequent_.insert(hash);
  }
  counts_ = {};
}

int64_t FrequentLines::remove_from(std::string& text) const {
  if (frequent_.empty()) return 0;
  std::string out;
  int64_t removed = 0;
  each_line(text, [&](std::string_view line) {
    if (line.size() >= kLineBytes && frequent_.contains(hash_text(line))) {
      ++removed;
      return;
    }
    out += line;
    out += '\n';
  });
  if (removed > 0) text = cleaned(out);
  return removed;
}

}  // namespace lathe::train
