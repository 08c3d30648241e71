// Training rows out of token files: documents in a shuffled order, packed end to end into rows of equal length. What
// comes next depends on the seed and a small position alone, so that a run continues where it stopped.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/train/shard.h"
#include "lathe/train/train_model.h"

namespace lathe::train {

// Documents that are drawn from together: every one once per epoch.
struct TokenSet {
  std::vector<ShardFile> shards;
  double weight = 1.0;  // share of the tokens drawn from this set, relative to the others'

  // Sums over the shards.
  int64_t documents() const;
  // Likewise, BOS and EOS included.
  int64_t tokens() const;
};

// `value` in [0, count) at position `index` of a permutation that `seed` picks; takes constant memory.
int64_t permuted(int64_t index, int64_t count, uint64_t seed);

// Rows of the loader; all targets count alike.
struct Rows : PackedRows {
  int64_t counted = 0;  // targets that are not ignored

  int64_t rows() const { return static_cast<int64_t>(sequences.size()); }
};

struct LoaderOptions {
  int64_t sequence_length = 256;
  bool cross_documents = false;  // attention sees the documents before it in its row
  bool shuffle = true;
  uint64_t seed = 1;
};

class Loader {
 public:
  // kInvalidData when no set has a document of two tokens. The sets must outlive the loader.
  static Result<Loader> create(std::span<const TokenSet> sets, const LoaderOptions& options);

  // The next `count` rows, each full: documents are cut at row ends and go on in the next row, whose first token is the
  // last target before. Every token but the first of a document is a target once.
  void next(int64_t count, Rows& rows);

  // Tokens drawn since the start.
  int64_t tokens() const { return rows_drawn_ * options_.sequence_length; }

  // Complete passes over set `index`.
  int64_t epochs(size_t index) const { return positions_[index].epoch; }

  // Where it stands; restoring it makes next() go on bit for bit.
  Json position() const;
  Status restore(const Json& position);

 private:
  struct Position {
    int64_t epoch = 0;
    int64_t document = 0;  // place in the epoch's order
    int64_t offset = 0;    // first token of it that was no input yet
    int64_t drawn = 0;     // input tokens taken from the set
  };

  Loader(std::span<const TokenSet> sets, const LoaderOptions& options);
  void load_document(size_t set);
  size_t choose_set() const;
  void fill_row(Rows& rows);

  std::span<const TokenSet> sets_;
  LoaderOptions options_;
  std::vector<Position> positions_;
  int64_t rows_drawn_ = 0;
  int64_t open_set_ = -1;          // whose document is being cut; -1: choose one
  std::vector<int32_t> document_;  // of open_set_
};

// All documents of a set in order as rows for evaluation; the last one may be shorter. At most `tokens` positions (0:
// all).
std::vector<Rows> evaluation_rows(
    const TokenSet& set, int64_t sequence_length, int64_t rows_each, int64_t tokens, bool cross_documents);

}  // namespace lathe::train
