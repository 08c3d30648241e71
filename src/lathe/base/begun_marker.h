// Text that comes in pieces: what of its end has to wait, because the next piece may make a marker of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace lathe {

// The length of the longest end of `text` that begins one of `markers` without being all of it. `markers`: a range of
// strings, none of them empty.
template <class Markers>
size_t begun_marker(std::string_view text, const Markers& markers) {
  size_t longest = 0;
  for (const std::string_view marker : markers) {
    for (size_t n = std::min(marker.size() - 1, text.size()); n > longest; --n) {
      if (text.ends_with(marker.substr(0, n))) longest = n;
    }
  }
  return longest;
}

}  // namespace lathe
