// What parsers of regular expressions have in common, whatever the dialect: a place in the pattern.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace lathe {

// Base of the parsers. The pattern must outlive it.
class PatternCursor {
 protected:
  explicit PatternCursor(std::string_view pattern) : pattern_(pattern) {}

  bool at_end() const { return position_ >= pattern_.size(); }

  // The byte `ahead` of the place; 0 behind the end.
  char peek(size_t ahead = 0) const { return position_ + ahead < pattern_.size() ? pattern_[position_ + ahead] : '\0'; }

  bool looking_at(std::string_view text) const { return pattern_.substr(position_, text.size()) == text; }

  // Goes past `text` if that comes next.
  bool accept(std::string_view text) {
    if (!looking_at(text)) return false;
    position_ += text.size();
    return true;
  }

  // Goes past decimal digits; nothing if there are none. Stops at the first that makes the number larger than `most`,
  // which is below INT32_MAX / 10, and then gives the larger one.
  std::optional<int32_t> accept_number(int32_t most) {
    if (peek() < '0' || peek() > '9') return {};
    int32_t value = 0;
    while (value <= most && peek() >= '0' && peek() <= '9') value = value * 10 + (pattern_[position_++] - '0');
    return value;
  }

  std::string_view pattern_;
  size_t position_ = 0;  // bytes
};

}  // namespace lathe
