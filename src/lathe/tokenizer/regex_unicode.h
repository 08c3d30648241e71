// Sets of Unicode code points: general categories, a few scripts and the White_Space property, as the classes of
// pre-tokenizer patterns need them. Unicode version: see the head of regex_unicode_table.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace lathe::unicode {

// Categories in the order of the generated table.
enum class Category : uint8_t {
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCs,
  kCo,
  kCn,
};

struct ScriptRanges {
  std::string_view name;
  std::span<const uint32_t> edges;  // begin, end, begin, end, ...: half-open
};

// Generated: (first code point << 5 | category), ascending.
extern const std::span<const uint32_t> kCategoryRanges;
extern const std::span<const ScriptRanges> kScripts;

inline constexpr char32_t kCodePointEnd = 0x110000;

// A set under construction: half-open ranges in any order.
class RangeSet {
 public:
  void add(char32_t begin, char32_t end) { ranges_.emplace_back(begin, end); }

  // Adds the ranges of another set.
  void add(const RangeSet& other);
  // Sorts and joins the ranges.
  void normalise();
  // The set of all code points that are not in this one; `this` must be normalised, the result is.
  RangeSet inverted() const;
  // Both sets must be normalised; the result is.
  RangeSet intersected(const RangeSet& other) const;

  std::span<const std::pair<char32_t, char32_t>> ranges() const { return ranges_; }

  bool contains(char32_t c) const;  // requires normalise()
  // Sets the bytes that the UTF-8 form of some member begins with.
  void add_first_bytes(std::array<bool, 256>& bytes) const;

 private:
  std::vector<std::pair<char32_t, char32_t>> ranges_;
};

// White_Space: 9-D 20 85 A0 1680 2000-200A 2028 2029 202F 205F 3000.
RangeSet white_space();
// A general category (`Lu`), a group of them (`L`), a script (`Han`) or `Any`; false when the name is none of these.
bool property(std::string_view name, RangeSet& out);

// An immutable set with constant-time lookup: 256-code-point pages, equal pages shared.
class CodePointSet {
 public:
  explicit CodePointSet(const RangeSet& normalised);

  bool contains(char32_t c) const {
    const uint32_t page = pages_[c >> 8];
    return (bits_[page + ((c >> 6) & 3)] >> (c & 63) & 1) != 0;
  }

  bool contains_ascii(unsigned char c) const { return ascii_[c]; }

 private:
  std::array<bool, 256> ascii_{};  // false from 0x80 on, so that any byte may be asked about
  std::vector<uint32_t> pages_;    // offset into bits_ of each page
  std::vector<uint64_t> bits_;
};

}  // namespace lathe::unicode
