#include "lathe/tokenizer/regex_unicode.h"

#include <algorithm>
#include <map>

namespace lathe::unicode {
namespace {

constexpr std::string_view kCategoryNames = "LuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCoCn";

unsigned char first_byte(char32_t c) {
  if (c < 0x80) return static_cast<unsigned char>(c);
  if (c < 0x800) return static_cast<unsigned char>(0xC0 | c >> 6);
  if (c < 0x10000) return static_cast<unsigned char>(0xE0 | c >> 12);
  return static_cast<unsigned char>(0xF0 | c >> 18);
}

}  // namespace

void RangeSet::add(const RangeSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
}

void RangeSet::normalise() {
  std::sort(ranges_.begin(), ranges_.end());
  size_t kept = 0;
  for (const auto& [begin, end] : ranges_) {
    if (begin >= end) continue;
    if (kept > 0 && begin <= ranges_[kept - 1].second) {
      ranges_[kept - 1].second = std::max(ranges_[kept - 1].second, end);
    } else {
      ranges_[kept++] = {begin, end};
    }
  }
  ranges_.resize(kept);
}

RangeSet RangeSet::inverted() const {
  RangeSet out;
  char32_t next = 0;
  for (const auto& [begin, end] : ranges_) {
    if (begin > next) out.add(next, begin);
    next = end;
  }
  if (next < kCodePointEnd) out.add(next, kCodePointEnd);
  return out;
}

RangeSet RangeSet::intersected(const RangeSet& other) const {
  RangeSet out = inverted();
  out.add(other.inverted());
  out.normalise();
  return out.inverted();
}

bool RangeSet::contains(char32_t c) const {
  const auto after = std::upper_bound(
      ranges_.begin(), ranges_.end(), c, [](char32_t value, const auto& range) { return value < range.first; });
  return after != ranges_.begin() && c < std::prev(after)->second;
}

void RangeSet::add_first_bytes(std::array<bool, 256>& bytes) const {
  for (const auto& [begin, end] : ranges_) {
    for (unsigned byte = first_byte(begin); byte <= first_byte(end - 1); ++byte) {
      if (byte < 0x80 || byte >= 0xC2) bytes[byte] = true;
    }
  }
}

RangeSet white_space() {
  RangeSet out;
  for (const auto& [first, last] : std::initializer_list<std::pair<char32_t, char32_t>>{{0x9, 0xD},
                                                                                        {0x20, 0x20},
                                                                                        {0x85, 0x85},
                                                                                        {0xA0, 0xA0},
                                                                                        {0x1680, 0x1680},
                                                                                        {0x2000, 0x200A},
                                                                                        {0x2028, 0x2029},
                                                                                        {0x202F, 0x202F},
                                                                                        {0x205F, 0x205F},
                                                                                        {0x3000, 0x3000}}) {
    out.add(first, last + 1);
  }
  return out;
}

bool property(std::string_view name, RangeSet& out) {
  if (name == "Any") {
    out.add(0, kCodePointEnd);
    return true;
  }
  for (const ScriptRanges& script : kScripts) {
    if (script.name != name) continue;
    for (size_t i = 0; i + 1 < script.edges.size(); i += 2) out.add(script.edges[i], script.edges[i + 1]);
    return true;
  }
  if (name.empty() || name.size() > 2) return false;
  uint32_t wanted = 0;  // bit per category
  for (size_t i = 0; i * 2 < kCategoryNames.size(); ++i) {
    if (kCategoryNames.substr(i * 2, name.size()) == name) wanted |= uint32_t{1} << i;
  }
  if (wanted == 0) return false;
  for (size_t i = 0; i < kCategoryRanges.size(); ++i) {
    if ((wanted >> (kCategoryRanges[i] & 31) & 1) == 0) continue;
    out.add(kCategoryRanges[i] >> 5, i + 1 < kCategoryRanges.size() ? kCategoryRanges[i + 1] >> 5 : kCodePointEnd);
  }
  return true;
}

CodePointSet::CodePointSet(const RangeSet& normalised) : pages_(kCodePointEnd >> 8) {
  using Page = std::array<uint64_t, 4>;
  std::map<Page, uint32_t> known;
  const auto ranges = normalised.ranges();
  size_t next = 0;  // first range that may still touch the page
  for (char32_t page = 0; page < kCodePointEnd >> 8; ++page) {
    const char32_t low = page << 8, high = low + 256;
    Page bits{};
    while (next < ranges.size() && ranges[next].second <= low) ++next;
    for (size_t i = next; i < ranges.size() && ranges[i].first < high; ++i) {
      const char32_t end = std::min(ranges[i].second, high);
      for (char32_t c = std::max(ranges[i].first, low); c < end; ++c) bits[(c >> 6) & 3] |= uint64_t{1} << (c & 63);
    }
    const auto [entry, added] = known.emplace(bits, static_cast<uint32_t>(bits_.size()));
    if (added) bits_.insert(bits_.end(), bits.begin(), bits.end());
    pages_[page] = entry->second;
  }
  for (unsigned c = 0; c < 128; ++c) ascii_[c] = contains(c);
}

}  // namespace lathe::unicode
