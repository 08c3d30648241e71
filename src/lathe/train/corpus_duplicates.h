// What has stood in a corpus before: texts, similar texts, paragraphs, lines of many documents. All memories are
// bounded, so they do not grow with the corpus; where one is full, the oldest is forgotten.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace lathe::train {

// The last `capacity` hashes of a stream, about 56 bytes each.
class RecentHashes {
 public:
  explicit RecentHashes(size_t capacity) : capacity_(capacity) {}

  // Whether it was there; it is now.
  bool insert(uint64_t hash);

 private:
  size_t capacity_;
  std::unordered_set<uint64_t> known_;
  std::vector<uint64_t> order_;
  size_t next_ = 0;
};

// MinHash over the sets of five-word shingles: the share of equal entries of two signatures estimates the similarity
// (intersection over union) of the sets; 0.06 is its deviation at most.
inline constexpr size_t kSignatureSize = 64;
using Signature = std::array<uint32_t, kSignatureSize>;
Signature min_hash(std::string_view text);
double similarity(const Signature& a, const Signature& b);

// The last 2^17 signatures, found by bands: two that agree in all rows of a band meet in its slot. A slot keeps the
// last one only.
class RecentSignatures {
 public:
  RecentSignatures();

  // Whether one of at least this similarity is there.
  bool contains(const Signature& signature, double least) const;
  void insert(const Signature& signature);

 private:
  std::vector<Signature> signatures_;
  std::vector<std::vector<uint32_t>> slots_;
  size_t next_ = 0;
};

// Paragraphs (text between blank lines) of 15 words or more that stood in an earlier text, or earlier in the same one;
// shorter ones, such as lines of a dialogue, may come again. Remembers the last 2^22 paragraphs.
class ParagraphMemory {
 public:
  // Takes them out of a text and says how many; remembers the others.
  int64_t remove_known(std::string& text);

 private:
  RecentHashes known_{size_t{1} << 22};
};

// Lines of 20 bytes or more that stand in many documents: notices, menus, licences. observe() all documents, then
// finish(), then remove_from(). At most 2^20 different lines are counted at once: when there are more, those counted
// least are dropped and begin anew, so that a line may be missed but never be counted too high.
class FrequentLines {
 public:
  explicit FrequentLines(int64_t min_documents) : min_documents_(min_documents) {}

  // Counts the lines of one document, each once.
  void observe(std::string_view text);
  // Ends the counting.
  void finish();
  // Takes the lines out and says how many.
  int64_t remove_from(std::string& text) const;

 private:
  struct Count {
    int64_t documents = 0;
    int64_t last = 0;  // document that counted it last
  };

  void drop_rare();

  int64_t min_documents_;
  int64_t observed_ = 0;
  std::unordered_map<uint64_t, Count> counts_;
  std::unordered_set<uint64_t> frequent_;
};

}  // namespace lathe::train
