// TokenTable: the tokens of a vocabulary as a trie over their bytes, for walking an automaton over all of them at once.
// Built once for a tokenizer and shared by everything that is constrained.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

// A node of the trie. Nodes lie in depth-first order, so that a subtree is the range from its root to `end`.
struct TrieNode {
  int32_t end = 0;    // one past the last node of the subtree
  int32_t first = 0;  // tokens that end here: ids[first] up to ids[first of the next node]
  uint16_t depth = 0;
  uint8_t byte = 0;
};

// Immutable; thread safe.
class TokenTable {
 public:
  // Special and added tokens (all that recognise text) are left out of the trie; special_id() finds them.
  // `vocab_size` is that of the model's logits, at least the tokenizer's; ids without a token are never allowed.
  static Result<std::shared_ptr<const TokenTable>> build(const Tokenizer& tokenizer, int64_t vocab_size);
  // From the bytes of each id (empty: no token). For tests and vocabularies that are no Tokenizer.
  static Result<std::shared_ptr<const TokenTable>> build(std::span<const std::string> tokens,
                                                         std::vector<std::pair<std::string, int32_t>> special);

  int64_t vocab_size() const { return vocab_size_; }

  size_t mask_words() const { return static_cast<size_t>(vocab_size_ + 63) / 64; }

  // Nodes in depth-first order; the first is the root. One more node ends the list (for `first` of its predecessor).
  std::span<const TrieNode> nodes() const { return {nodes_.data(), nodes_.size() - 1}; }

  // Ids of the tokens that end at node `n`.
  std::span<const int32_t> tokens_at(int32_t n) const {
    const auto begin = static_cast<size_t>(nodes_[static_cast<size_t>(n)].first);
    return std::span(ids_).subspan(begin, static_cast<size_t>(nodes_[static_cast<size_t>(n) + 1].first) - begin);
  }

  // Ids of the tokens that end at a node of [begin, end).
  std::span<const int32_t> tokens_in(int32_t begin, int32_t end) const {
    const auto first = static_cast<size_t>(nodes_[static_cast<size_t>(begin)].first);
    return std::span(ids_).subspan(first, static_cast<size_t>(nodes_[static_cast<size_t>(end)].first) - first);
  }

  // Bytes of a token of the trie; empty for every other id.
  std::string_view bytes(int32_t id) const;
  // Bytes on the way from the root to node `n`.
  std::string_view path(int32_t n) const;
  // Id of a special or added token by its text.
  std::optional<int32_t> special_id(std::string_view text) const;

  int32_t longest_token() const { return longest_; }

  // Bytes that are a token of their own. Where all are, every text can be written.
  const std::array<bool, 256>& single_bytes() const { return single_bytes_; }

 private:
  TokenTable() = default;

  int64_t vocab_size_ = 0;
  int32_t longest_ = 0;
  std::vector<TrieNode> nodes_;
  std::vector<int32_t> ids_;
  std::vector<uint32_t> offsets_;  // into blob_, by id; one more than vocab_size
  std::string blob_;
  std::vector<std::pair<std::string, int32_t>> special_;  // sorted
  std::array<bool, 256> single_bytes_{};
};

}  // namespace lathe
