// The inside of a Grammar: a pushdown automaton over bytes (and special tokens, which are symbols of their own).
//
// A rule describes one value; a state belongs to one rule. An edge reads a byte of a range or one special token, or
// calls another rule and goes on when that one has ended. What plain states cannot hold without growing with the
// numbers in a schema is kept beside the state while a rule runs:
//   - a counter, for the length of a string, the items of an array or the members of a map;
//   - the keys that an object already has, where its keys are free, so that none comes twice;
//   - the nesting of objects and arrays, which is bounded.
// Edges test and change these. Nothing is allowed from which the end could not be reached: states that lead nowhere are
// removed, counters are only placed where every count up to the maximum can be had, and `height` tells how much deeper
// a state needs to go at least.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/constrain/grammar.h"

namespace lathe {

// What an edge tests and changes, as bits.
enum class EdgeOp : uint8_t {
  kNone = 0,
  kBelowMax = 1,    // test: counter < bounds.max
  kAtLeastMin = 2,  // test: counter >= bounds.min
  kCount = 4,       // counter + 1
  kReset = 8,       // counter = 0
  kDeeper = 16,     // an object or array begins
  kOut = 32,        // it ends
  kKeys = 64,       // from here on the object's keys are remembered, beginning with a set of the grammar
};

constexpr EdgeOp operator|(EdgeOp a, EdgeOp b) {
  return static_cast<EdgeOp>(static_cast<uint8_t>(a) | static_cast<uint8_t>(b));
}

// Whether `op` is among them.
constexpr bool has(EdgeOp ops, EdgeOp op) {
  return (static_cast<uint8_t>(ops) & static_cast<uint8_t>(op)) != 0;
}

// A way from a state to another.
struct GrammarEdge {
  enum class Kind : uint8_t { kBytes, kSpecial, kCall };

  Kind kind = Kind::kBytes;
  EdgeOp ops = EdgeOp::kNone;
  uint8_t low = 0;  // kBytes: the range, both ends included
  uint8_t high = 0;
  int32_t target = 0;   // state; of a call: where it goes on
  int32_t callee = 0;   // kCall: rule; kSpecial: index into specials
  int32_t key_set = 0;  // kKeys

  friend bool operator==(const GrammarEdge&, const GrammarEdge&) = default;
};

// What a counter may be where it is tested, both ends included.
struct CountBounds {
  int64_t min = 0;
  int64_t max = 0;
};

struct GrammarState {
  int32_t first = 0;  // edges [first, end)
  int32_t end = 0;
  int32_t rule = 0;
  int32_t bounds = 0;  // what counter tests compare with
  int32_t height = 0;  // nesting that is still needed at least, below the present one
  bool accept = false;
};

struct GrammarRule {
  int32_t start = 0;        // state
  int32_t rank = 0;         // a rule's start calls only rules of higher rank
  bool key = false;         // the key of a member: its text is compared with the keys before it
  bool keeps_keys = false;  // somewhere in it keys are remembered
};

// Whoever holds a Grammar may read all of it; nobody changes it after GrammarBuilder::finish.
class Grammar {
 public:
  std::vector<GrammarState> states;
  std::vector<GrammarEdge> edges;
  std::vector<GrammarRule> rules;
  std::vector<CountBounds> bounds;
  std::vector<std::vector<std::string>> key_sets;
  std::vector<std::string> specials;  // texts of special tokens
  int32_t root = 0;                   // rule
  int32_t max_depth = 0;

  const GrammarState& state(int32_t s) const { return states[static_cast<size_t>(s)]; }

  // Memory that it holds, about.
  size_t bytes() const { return states.size() * sizeof(GrammarState) + edges.size() * sizeof(GrammarEdge); }

  const GrammarRule& rule(int32_t r) const { return rules[static_cast<size_t>(r)]; }

  // The same, writing only bytes and special tokens that `bytes` and `special` have; fails (kUnsupported) when nothing
  // is left.
  Result<Grammar> restricted(const std::array<bool, 256>& bytes, const std::vector<bool>& special) const;

 private:
  friend class GrammarBuilder;
  // Removes edges that lead nowhere and computes heights and ranks. False when the root leads nowhere.
  Result<bool> trim();
};

// Builds a Grammar. States may also be joined by edges that read nothing; finish() removes those.
class GrammarBuilder {
 public:
  GrammarBuilder(int64_t max_states, int32_t max_depth) : max_states_(max_states) { grammar_.max_depth = max_depth; }

  // A rule with its start state. It must not accept the empty text.
  int32_t new_rule(bool key = false);
  int32_t new_state(int32_t rule, int32_t bounds = 0);

  int32_t start_of(int32_t rule) const { return grammar_.rules[static_cast<size_t>(rule)].start; }

  int32_t rule_of(int32_t state) const { return grammar_.states[static_cast<size_t>(state)].rule; }

  int32_t bounds_of(int32_t state) const { return grammar_.states[static_cast<size_t>(state)].bounds; }

  // Index for a state's `bounds`.
  int32_t new_bounds(CountBounds bounds);
  // Index for add_bytes with kKeys: the JSON texts of the keys that may not come again.
  int32_t new_key_set(std::vector<std::string> keys);
  int32_t new_special(std::string_view text);

  void accept(int32_t state) { grammar_.states[static_cast<size_t>(state)].accept = true; }

  // `to` may be reached without reading.
  void add_empty(int32_t from, int32_t to);
  // A byte of [low, high] leads from one state to another.
  void add_bytes(int32_t from, uint8_t low, uint8_t high, int32_t to, EdgeOp ops = EdgeOp::kNone, int32_t key_set = 0);
  // That byte alone.
  void add_byte(int32_t from, char byte, int32_t to, EdgeOp ops = EdgeOp::kNone, int32_t key_set = 0);
  // A special token (see new_special).
  void add_special(int32_t from, int32_t special, int32_t to);
  // What the rule describes.
  void add_call(int32_t from, int32_t rule, int32_t to, EdgeOp ops = EdgeOp::kNone);
  // The bytes of `text`; returns the state after them.
  int32_t add_text(int32_t from, std::string_view text);
  // One of the texts, sharing what they begin with, up to the state `to`. Sorts `texts`.
  void add_texts(int32_t from, std::vector<std::string> texts, int32_t to);
  // One code point of [low, high] as UTF-8; `ops` at its first byte.
  void add_code_points(int32_t from, char32_t low, char32_t high, int32_t to, EdgeOp ops = EdgeOp::kNone);

  // More states or edges than allowed.
  bool too_large() const;
  // The finished grammar: false when nothing at all can be written.
  Result<bool> finish(int32_t root, Grammar& out);

 private:
  int32_t tail_state(int32_t rule, const uint8_t* low, const uint8_t* high, int count, int32_t to);
  void add_sequence(int32_t from, const uint8_t* low, const uint8_t* high, int count, int32_t to, EdgeOp ops);
  void join_empty();

  Grammar grammar_;
  int64_t max_states_;
  int64_t edge_count_ = 0;
  std::vector<std::vector<GrammarEdge>> edges_;  // by state
  std::vector<std::vector<int32_t>> empty_;      // by state
  // The state from which the later bytes of a code point lead to a state: by that state and the ranges of the bytes.
  std::map<std::pair<int32_t, uint64_t>, int32_t> tails_;
};

}  // namespace lathe
