#include "lathe/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace lathe {
namespace {

constexpr uint32_t kNoRank = BpeMerges::kNoRank;
constexpr size_t kShort = 64;  // below: scan for the lowest rank each time; from here: a heap

void merge_short(const BpeMerges& merges, BpeScratch& s) {
  std::array<BpeMerges::Found, kShort> pair;  // of position i and i + 1
  size_t n = s.ids.size();
  for (size_t i = 0; i + 1 < n; ++i) pair[i] = merges.find(s.ids[i], s.ids[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (pair[i].rank < pair[best].rank) best = i;
    }
    if (pair[best].rank == kNoRank) break;
    s.ids[best] = pair[best].result;
    for (size_t i = best + 1; i + 1 < n; ++i) {
      s.ids[i] = s.ids[i + 1];
      pair[i] = pair[i + 1];
    }
    --n;
    if (best > 0) pair[best - 1] = merges.find(s.ids[best - 1], s.ids[best]);
    if (best + 1 < n) pair[best] = merges.find(s.ids[best], s.ids[best + 1]);
  }
  s.ids.resize(n);
}

// Positions are linked; the heap holds rank << 32 | position, lowest first. An entry counts only while the pair at that
// position still has that rank.
void merge_long(const BpeMerges& merges, BpeScratch& s) {
  const auto n = static_cast<uint32_t>(s.ids.size());
  const auto entry = [](uint32_t rank, uint32_t position) { return uint64_t{rank} << 32 | position; };
  s.ranks.assign(n, kNoRank);
  s.previous.resize(n);
  s.next.resize(n);
  std::vector<uint64_t>& first = s.heap;  // the pairs of the beginning, sorted; later ones go to `later`
  std::vector<uint64_t> later;
  first.clear();
  for (uint32_t i = 0; i < n; ++i) {
    s.previous[i] = i - 1;
    s.next[i] = i + 1;
    if (i + 1 == n) break;
    s.ranks[i] = merges.find(s.ids[i], s.ids[i + 1]).rank;
    if (s.ranks[i] != kNoRank) first.push_back(entry(s.ranks[i], i));
  }
  std::sort(first.begin(), first.end());
  const auto renew = [&](uint32_t position) {
    const uint32_t right = s.next[position];
    s.ranks[position] = right < n ? merges.find(s.ids[position], s.ids[right]).rank : kNoRank;
    if (s.ranks[position] == kNoRank) return;
    later.push_back(entry(s.ranks[position], position));
    std::push_heap(later.begin(), later.end(), std::greater<>());
  };
  for (size_t taken = 0; taken < first.size() || !later.empty();) {
    uint64_t lowest = 0;
    if (later.empty() || (taken < first.size() && first[taken] < later.front())) {
      lowest = first[taken++];
    } else {
      lowest = later.front();
      std::pop_heap(later.begin(), later.end(), std::greater<>());
      later.pop_back();
    }
    const auto position = static_cast<uint32_t>(lowest);
    if (s.ranks[position] != static_cast<uint32_t>(lowest >> 32)) continue;
    const uint32_t right = s.next[position];
    s.ids[position] = merges.find(s.ids[position], s.ids[right]).result;
    s.ranks[right] = kNoRank;
    s.ids[right] = -1;
    s.next[position] = s.next[right];
    if (s.next[position] < n) s.previous[s.next[position]] = position;
    renew(position);
    if (position > 0) renew(s.previous[position]);
  }
  std::erase(s.ids, -1);
}

}  // namespace

void BpeMerges::reserve(size_t merges) {
  slots_.resize(std::bit_ceil(std::max<size_t>(16, merges * 2)));
}

size_t BpeMerges::slot_of(uint64_t pair) const {
  uint64_t h = pair * 0x9E3779B97F4A7C15u;
  h ^= h >> 32;
  size_t i = h & (slots_.size() - 1);
  while (slots_[i].pair != pair && slots_[i].pair != kEmpty) i = (i + 1) & (slots_.size() - 1);
  return i;
}

void BpeMerges::add(int32_t left, int32_t right, uint32_t rank, int32_t result) {
  const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  slots_[slot_of(pair)] = {pair, {rank, result}};
}

BpeMerges::Found BpeMerges::find(int32_t left, int32_t right) const {
  const Slot& slot = slots_[slot_of(static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right))];
  return slot.pair == kEmpty ? Found{} : slot.found;
}

void bpe_merge(const BpeMerges& merges, BpeScratch& scratch) {
  if (scratch.ids.size() < 2) return;
  if (scratch.ids.size() <= kShort) {
    merge_short(merges, scratch);
  } else {
    merge_long(merges, scratch);
  }
}

}  // namespace lathe
