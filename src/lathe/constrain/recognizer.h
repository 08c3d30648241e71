// Recognizer: a Grammar as a deterministic automaton over sets of configurations, made while it is used. It is the
// definition of what a grammar accepts; masks.h computes the same for a whole vocabulary at once.
//
// A configuration is a state with its counter, keys and nesting, and a stack: where to go on in the rules that called.
// Stacks that meet in one configuration are kept as one set of frames, each with the set of frames below it, so that
// ambiguous grammars need no more than polynomially many. Everything is interned: equal sets have equal numbers, and a
// step is computed once.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lathe/constrain/automaton.h"

namespace lathe {

// Where a rule that called another goes on.
struct StackFrame {
  int32_t state = 0;
  int32_t count = 0;
  int32_t keys = 0;
  int32_t below = 0;  // frames of the caller
  bool key = false;   // what was called is a key: its text becomes one of `keys`

  friend auto operator<=>(const StackFrame&, const StackFrame&) = default;
};

// One way in which the text so far can be read.
struct Configuration {
  int32_t state = 0;
  int32_t count = 0;
  int32_t keys = 0;    // set of keys of the object it is in; kNoKeys, kUnknownKeys
  int32_t prefix = 0;  // the key so far, where its end has to be compared; kNoPrefix
  int32_t depth = 0;
  int32_t frames = 0;  // kBottom: the rule ends what is asked

  friend auto operator<=>(const Configuration&, const Configuration&) = default;
};

class Recognizer {
 public:
  static constexpr int32_t kDead = 0;  // the empty set: nothing can follow
  static constexpr int32_t kBottom = 0;
  static constexpr int32_t kNoKeys = 0;
  static constexpr int32_t kUnknownKeys = 1;
  static constexpr int32_t kNoPrefix = 0;

  // A set of configurations; `complete`: the text may end here.
  struct Set {
    std::vector<Configuration> configurations;  // sorted
    bool complete = false;
    bool tainted = false;  // a key was let through without having been compared
    int32_t reach = 0;     // largest depth plus height of a configuration
    std::unique_ptr<std::array<int32_t, 256>> next;
  };

  // The grammar must outlive it.
  explicit Recognizer(const Grammar& grammar);

  // The set at the beginning of a text.
  int32_t start();
  // The set that begins with one configuration.
  int32_t begin(const Configuration& configuration);
  // One byte further; kDead when nothing in the set reads it.
  int32_t step(int32_t set, uint8_t byte);
  int32_t step(int32_t set, std::string_view bytes);
  // One special token of the grammar further.
  int32_t step_special(int32_t set, int32_t special);
  // What goes on when the rule of a configuration ends here. Keys are not compared: they are unknown in the set.
  int32_t after_rule(const Configuration& configuration);

  const Set& set(int32_t s) const { return *sets_[static_cast<size_t>(s)]; }

  std::span<const StackFrame> frames(int32_t f) const { return stacks_[static_cast<size_t>(f)]; }

  // Whether the key that is `prefix` followed by `rest` is one of the set `keys`.
  bool has_key(int32_t keys, int32_t prefix, std::string_view rest) const;

  // Memory that it holds, about; it grows with the text until collect().
  size_t bytes() const { return bytes_; }

  // Forgets everything but what `set` needs; returns its new number.
  int32_t collect(int32_t set);

 private:
  struct Pending {
    Configuration configuration;  // frames: unused until they are joined
    std::vector<int32_t> stacks;  // sets of frames, each once
  };

  // What one step gathers.
  struct Work {
    std::vector<Pending> items;
    std::map<Configuration, size_t> index;          // of the items, where they are many
    std::vector<std::pair<size_t, int32_t>> fresh;  // item and stack not yet looked at
    bool complete = false;
    bool tainted = false;
  };

  void add(Work& work, const Configuration& configuration, int32_t stack) const;
  static size_t place_of(Work& work, const Configuration& configuration);
  void follow(Work& work, const Configuration& from, const GrammarEdge& edge, int byte);
  void end_rules(Work& work, bool compare_keys);
  void end_rule(Work& work, const Configuration& at, int32_t stack, bool compare_keys);
  int32_t finish(Work& work, bool compare_keys = true);
  void call_rules(Work& work, std::vector<Configuration>& out);
  bool passes(const Configuration& at, const GrammarEdge& edge) const;
  int32_t counted(const Configuration& at, const GrammarEdge& edge) const;
  bool viable(const Configuration& c) const;
  int32_t intern_set(std::vector<Configuration> configurations, bool complete, bool tainted);
  int32_t intern_frames(std::vector<StackFrame> frames);
  int32_t intern_text(std::string text);
  int32_t intern_keys(std::vector<int32_t> keys);
  int32_t initial_keys(int32_t key_set);
  int32_t join_stacks(std::vector<int32_t>& stacks);
  void reset();

  const Grammar* grammar_;
  std::vector<std::unique_ptr<Set>> sets_;
  std::unordered_multimap<uint64_t, int32_t> set_index_;
  std::vector<std::vector<StackFrame>> stacks_;
  std::unordered_multimap<uint64_t, int32_t> stack_index_;
  std::vector<std::string> texts_;
  std::unordered_map<std::string, int32_t> text_index_;
  std::vector<std::vector<int32_t>> keys_;
  std::unordered_multimap<uint64_t, int32_t> keys_index_;
  std::vector<int32_t> initial_keys_;  // by key set of the grammar; -1: not yet interned
  size_t bytes_ = 0;
};

}  // namespace lathe
