// Masks: which tokens of a vocabulary a grammar allows. What depends on a state alone is found by one walk over the
// trie of tokens and kept: the tokens that stay inside the state's rule, and the places in the trie where the rule may
// end. Only what follows there depends on the stack and is walked again each time, through small subtrees.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "lathe/constrain/constraint.h"
#include "lathe/constrain/recognizer.h"

namespace lathe {

// What is known of one state with its counter.
struct StateMask {
  std::vector<uint64_t> bits;   // allowed whatever the stack is; empty: `ids` has them
  std::vector<int32_t> ids;     // the same where they are few
  std::vector<int32_t> ends;    // nodes of the trie where the rule may end
  std::vector<int32_t> verify;  // tokens that hold a whole key, which may be one too many
  int32_t reach = 0;            // nesting that the walk looked at
};

// The masks of one grammar for one vocabulary, shared by all sequences that use both. Thread safe.
class GrammarMasks {
 public:
  GrammarMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTable> table);

  const Grammar& grammar() const { return *grammar_; }

  const TokenTable& table() const { return *table_; }

  // Ids of the grammar's special tokens; -1: the vocabulary has none such.
  std::span<const int32_t> special_ids() const { return special_ids_; }

  std::shared_ptr<const TokenTable> shared_table() const { return table_; }

  // Memory of the grammar and of what is kept between calls, about. Thread safe.
  size_t bytes() const { return grammar_->bytes() + bytes_; }

  // Adds the tokens that one set of the recognizer, which is of this grammar, allows to `mask`. Thread safe as long as
  // each thread has its own recognizer.
  void add_allowed(Recognizer& recognizer, int32_t set, std::span<uint64_t> mask);

 private:
  struct Key {
    int32_t state = 0;
    int32_t count = 0;
    int32_t depth = 0;

    friend bool operator==(const Key&, const Key&) = default;
  };

  struct KeyHash {
    size_t operator()(const Key& key) const;
  };

  std::shared_ptr<const StateMask> mask_of(const Configuration& c);
  std::shared_ptr<const StateMask> find_or_compute(const Key& key);
  std::shared_ptr<const StateMask> compute(const Key& key);
  int32_t representative(const Configuration& c) const;
  void add_after_rule(Recognizer& recognizer, const Configuration& c, const StateMask& known, std::span<uint64_t> mask);
  void add_checked(Recognizer& recognizer, const Configuration& c, int32_t id, std::span<uint64_t> mask) const;

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTable> table_;
  std::vector<int32_t> special_ids_;
  std::mutex mutex_;  // of what follows
  std::unique_ptr<Recognizer> scratch_;
  std::unordered_map<Key, std::shared_ptr<const StateMask>, KeyHash> known_;
  size_t known_bytes_ = 0;
  std::atomic<size_t> bytes_ = 0;
};

}  // namespace lathe
