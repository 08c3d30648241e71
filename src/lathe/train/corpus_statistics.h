// What a pass over documents found: how many were kept and why others were not, sizes, words, lengths, files. Goes into
// the manifest of the token files, the report and what `lathe train --prepare` prints.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/train/corpus_filter.h"

namespace lathe::train {

// Estimates how many different things a stream has, in 16 KiB (HyperLogLog). The deviation is 0.8 % of their number.
class DistinctCounter {
 public:
  // One thing, by a hash whose bits are well mixed.
  void add(uint64_t hash);
  int64_t estimate() const;

 private:
  static constexpr int kIndexBits = 14;

  std::array<uint8_t, size_t{1} << kIndexBits> ranks_{};
};

// Counts of one file.
struct FileCounts {
  std::string name;  // of the file, without its folder
  int64_t documents_read = 0;
  int64_t documents = 0;  // kept, as are the following
  int64_t bytes = 0;
  int64_t tokens = 0;
};

// Counts of one set of documents, which are read file after file.
class CorpusCounts {
 public:
  // What follows comes from this file.
  void begin_file(std::string name);
  void add_read(std::string_view text);
  // Of the document last read; `text` as the filter left it. `tokens`: 0 unless it was kept.
  void add_verdict(Verdict verdict, const Edits& edits, std::string_view text, int64_t tokens);

  // As the manifest has it.
  Json json() const;

 private:
  std::array<int64_t, kVerdicts> documents_{};
  Edits edits_;
  int64_t bytes_read_ = 0;
  int64_t bytes_kept_ = 0;
  int64_t tokens_ = 0;
  int64_t chars_ = 0;
  int64_t words_ = 0;
  DistinctCounter distinct_;
  std::array<int64_t, 32> lengths_{};  // kept documents by the binary logarithm of their tokens
  std::vector<FileCounts> files_;
};

// The statistics of a manifest, for people: some lines for each set. Members that an older manifest lacks are left out.
std::string statistics_text(const Json& sets);

}  // namespace lathe::train
