// Token ids and their bytes: a table from id to bytes and, for the tokens of the model, from bytes to id.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"

namespace lathe {

inline constexpr int32_t kMaxTokenId = (1 << 24) - 1;
inline constexpr int32_t kNoToken = -1;

// The bytes that a token text stands for in GPT-2's alphabet (every byte has a printable character: `Ġ` is the space).
// False, with `bytes` unspecified, when a character is not in the alphabet.
bool bytes_of_token_text(std::string_view text, std::string& bytes);

// Tokens by id and ids by bytes.
class Vocabulary {
 public:
  // Hashes are seeded per object, so that nobody can prepare a file in which they collide.
  Vocabulary();

  // Room for ids up to `highest`; call once before the first add.
  void reserve(int32_t highest, size_t tokens);
  // `id` is within the reserved range and not yet used. `bytes` of model tokens are not yet used either.
  void add_model_token(int32_t id, std::string_view bytes);
  // The same for a token that is not findable by its bytes.
  void add_added_token(int32_t id, std::string_view bytes);

  int32_t size() const { return static_cast<int32_t>(entries_.size()); }  // one more than the highest id

  bool contains(int32_t id) const { return id >= 0 && id < size() && entries_[static_cast<size_t>(id)].used; }

  // Requires contains(id).
  std::string_view bytes(int32_t id) const {
    const Entry& entry = entries_[static_cast<size_t>(id)];
    return std::string_view(blob_).substr(entry.offset, entry.length);
  }

  // Model token with exactly these bytes, or kNoToken.
  int32_t find(std::string_view bytes) const;

  size_t longest_model_token() const { return longest_; }

 private:
  struct Entry {
    uint32_t offset = 0;
    uint32_t length : 31 = 0;
    uint32_t used : 1 = 0;
  };

  struct Slot {
    uint32_t hash = 0;
    int32_t id = kNoToken;
  };

  void append(int32_t id, std::string_view bytes);
  uint64_t hash(std::string_view bytes) const;

  std::vector<Entry> entries_;
  std::vector<Slot> slots_;  // power of two, at most half full
  std::string blob_;
  uint64_t seed_ = 0;
  size_t longest_ = 0;
};

}  // namespace lathe
