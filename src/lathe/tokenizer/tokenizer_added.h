// Added tokens: texts that are cut out of the input as a whole before anything else happens to it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

struct AddedToken {
  int32_t id = -1;
  std::string content;  // valid UTF-8, not empty
  bool special = false;
  bool normalized = false;   // matched after the others, in what they left
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // swallows the white space before it
  bool rstrip = false;       // swallows the white space after it
};

inline constexpr size_t kMaxAddedTokenBytes = 1024;

// Finds the added tokens of one kind in a text: leftmost first, of those the longest.
class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin = 0;  // with what lstrip and rstrip swallow
    size_t end = 0;
    int32_t id = -1;
  };

  AddedTokenMatcher() = default;
  // Contents must be unique and at most kMaxAddedTokenBytes long.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // The first match that begins at or after `from`; lstrip does not reach back beyond it.
  std::optional<Match> find(std::string_view text, size_t from) const;
  // The token with exactly that content, or nullptr.
  const AddedToken* token(std::string_view content) const;

 private:
  const AddedToken* longest_at(std::string_view text, size_t position) const;

  std::vector<AddedToken> tokens_;  // sorted by content
  std::array<bool, 256> first_bytes_{};
};

}  // namespace lathe
