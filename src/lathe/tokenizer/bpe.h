// Byte-pair merging: a sequence of byte tokens, of which the adjacent pair with the lowest rank (leftmost first) is
// replaced by the token it merges to, until no pair has a rank.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace lathe {

class BpeMerges {
 public:
  struct Found {
    uint32_t rank = kNoRank;
    int32_t result = -1;
  };

  static constexpr uint32_t kNoRank = 0xFFFFFFFFu;

  // Room for that many merges; call once before the first add.
  void reserve(size_t merges);
  // Token ids are at least 0 and below 2^24. A pair that comes twice keeps its last rank.
  void add(int32_t left, int32_t right, uint32_t rank, int32_t result);
  Found find(int32_t left, int32_t right) const;

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};

  struct Slot {
    uint64_t pair = kEmpty;
    Found found;
  };

  size_t slot_of(uint64_t pair) const;

  std::vector<Slot> slots_;  // power of two, at most half full
};

// Working memory of one thread for bpe_merge.
struct BpeScratch {
  std::vector<int32_t> ids;
  std::vector<uint32_t> ranks;
  std::vector<uint32_t> previous, next;
  std::vector<uint64_t> heap;
};

// Merges scratch.ids (the tokens of the bytes, fewer than 2^31) in place. Time is n log n for long sequences.
void bpe_merge(const BpeMerges& merges, BpeScratch& scratch);

}  // namespace lathe
