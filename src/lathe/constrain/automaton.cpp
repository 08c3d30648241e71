#include "lathe/constrain/automaton.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "lathe/base/check.h"
#include "lathe/base/str.h"

namespace lathe {
namespace {

constexpr int32_t kNever = std::numeric_limits<int32_t>::max();
constexpr int64_t kEdgesPerState = 8;  // on average; what is copied when empty edges are removed counts too

// Nesting needed below a state when its edge is taken: what the target needs, seen from here.
int32_t height_through(const GrammarEdge& edge, int32_t target, int32_t callee) {
  if (target == kNever || callee == kNever) return kNever;
  int32_t height = std::max(target, callee);
  if (has(edge.ops, EdgeOp::kDeeper)) ++height;
  if (has(edge.ops, EdgeOp::kOut)) height = std::max(height - 1, 0);
  return height;
}

// For every state the edges that lead to it, by target or, of a call, by the callee's start: users[first[s]] up to
// users[first[s + 1]].
struct Users {
  std::vector<int32_t> first;
  std::vector<std::pair<int32_t, int32_t>> users;  // state, edge

  explicit Users(const Grammar& grammar) : first(grammar.states.size() + 1, 0) {
    const auto each = [&](const auto& visit) {
      for (size_t s = 0; s < grammar.states.size(); ++s) {
        for (int32_t e = grammar.states[s].first; e < grammar.states[s].end; ++e) {
          const GrammarEdge& edge = grammar.edges[static_cast<size_t>(e)];
          visit(edge.target, static_cast<int32_t>(s), e);
          if (edge.kind == GrammarEdge::Kind::kCall) visit(grammar.rule(edge.callee).start, static_cast<int32_t>(s), e);
        }
      }
    };
    each([&](int32_t used, int32_t, int32_t) { ++first[static_cast<size_t>(used) + 1]; });
    for (size_t s = 1; s < first.size(); ++s) first[s] += first[s - 1];
    users.resize(static_cast<size_t>(first.back()));
    std::vector<int32_t> next = first;
    each([&](int32_t used, int32_t from, int32_t e) {
      users[static_cast<size_t>(next[static_cast<size_t>(used)]++)] = {from, e};
    });
  }
};

// Least nesting for every state; kNever where the end of its rule cannot be reached within the nesting that is allowed.
// Values only fall, each at most max_depth times.
std::vector<int32_t> heights_of(const Grammar& grammar) {
  const Users users(grammar);
  std::vector<int32_t> heights(grammar.states.size(), kNever);
  std::vector<int32_t> work;
  for (size_t s = 0; s < grammar.states.size(); ++s) {
    if (!grammar.states[s].accept) continue;
    heights[s] = 0;
    work.push_back(static_cast<int32_t>(s));
  }
  while (!work.empty()) {
    const auto used = static_cast<size_t>(work.back());
    work.pop_back();
    for (int32_t u = users.first[used]; u < users.first[used + 1]; ++u) {
      const auto& [from, e] = users.users[static_cast<size_t>(u)];
      const GrammarEdge& edge = grammar.edges[static_cast<size_t>(e)];
      const bool call = edge.kind == GrammarEdge::Kind::kCall;
      const int32_t callee = call ? heights[static_cast<size_t>(grammar.rule(edge.callee).start)] : 0;
      const int32_t height = height_through(edge, heights[static_cast<size_t>(edge.target)], callee);
      if (height > grammar.max_depth || height >= heights[static_cast<size_t>(from)]) continue;
      heights[static_cast<size_t>(from)] = height;
      work.push_back(from);
    }
  }
  return heights;
}

// Ranks by depth-first search over what the rules' starts call. False when a rule's start calls itself.
bool rank_rules(Grammar& grammar) {
  enum : uint8_t { kNew, kOpen, kDone };

  std::vector<uint8_t> marks(grammar.rules.size(), kNew);
  std::vector<std::pair<int32_t, int32_t>> stack;  // rule, next edge
  auto rank = static_cast<int32_t>(grammar.rules.size());
  for (size_t root = 0; root < grammar.rules.size(); ++root) {
    if (marks[root] != kNew) continue;
    marks[root] = kOpen;
    stack.emplace_back(static_cast<int32_t>(root), grammar.state(grammar.rules[root].start).first);
    while (!stack.empty()) {
      auto& [rule, next] = stack.back();
      if (next == grammar.state(grammar.rule(rule).start).end) {
        marks[static_cast<size_t>(rule)] = kDone;
        grammar.rules[static_cast<size_t>(rule)].rank = --rank;
        stack.pop_back();
        continue;
      }
      const GrammarEdge& edge = grammar.edges[static_cast<size_t>(next++)];
      if (edge.kind != GrammarEdge::Kind::kCall) continue;
      uint8_t& mark = marks[static_cast<size_t>(edge.callee)];
      if (mark == kOpen) return false;
      if (mark == kDone) continue;
      mark = kOpen;
      stack.emplace_back(edge.callee, grammar.state(grammar.rule(edge.callee).start).first);
    }
  }
  return true;
}

}  // namespace

Result<bool> Grammar::trim() {
  const std::vector<int32_t> heights = heights_of(*this);
  std::vector<GrammarEdge> kept;
  kept.reserve(edges.size());
  for (size_t s = 0; s < states.size(); ++s) {
    GrammarState& state = states[s];
    const auto first = static_cast<int32_t>(kept.size());
    for (int32_t e = state.first; e < state.end; ++e) {
      const GrammarEdge& edge = edges[static_cast<size_t>(e)];
      if (heights[static_cast<size_t>(edge.target)] == kNever) continue;
      const bool call = edge.kind == GrammarEdge::Kind::kCall;
      if (call && heights[static_cast<size_t>(rule(edge.callee).start)] == kNever) continue;
      kept.push_back(edge);
    }
    state.first = first;
    state.end = static_cast<int32_t>(kept.size());
    state.height = heights[s] == kNever ? 0 : heights[s];
  }
  edges = std::move(kept);
  if (!rank_rules(*this)) return Error{Errc::kInternal, "grammar: a rule begins with itself"};
  return heights[static_cast<size_t>(rule(root).start)] != kNever;
}

Result<Grammar> Grammar::restricted(const std::array<bool, 256>& bytes, const std::vector<bool>& special) const {
  Grammar out = *this;
  out.edges.clear();
  for (GrammarState& state : out.states) {
    const auto first = static_cast<int32_t>(out.edges.size());
    for (int32_t e = state.first; e < state.end; ++e) {
      const GrammarEdge& edge = edges[static_cast<size_t>(e)];
      if (edge.kind == GrammarEdge::Kind::kCall ||
          (edge.kind == GrammarEdge::Kind::kSpecial && special[static_cast<size_t>(edge.callee)])) {
        out.edges.push_back(edge);
        continue;
      }
      if (edge.kind == GrammarEdge::Kind::kSpecial) continue;
      for (int low = edge.low; low <= edge.high; ++low) {
        if (!bytes[static_cast<size_t>(low)]) continue;
        int high = low;
        while (high < edge.high && bytes[static_cast<size_t>(high) + 1]) ++high;
        GrammarEdge part = edge;
        part.low = static_cast<uint8_t>(low);
        part.high = static_cast<uint8_t>(high);
        out.edges.push_back(part);
        low = high;
      }
    }
    state.first = first;
    state.end = static_cast<int32_t>(out.edges.size());
  }
  LATHE_TRY(const bool possible, out.trim());
  if (!possible) {
    return Error{Errc::kUnsupported, "grammar: expected a vocabulary that can write it, found one without the bytes"};
  }
  return out;
}

int32_t GrammarBuilder::new_rule(bool key) {
  const auto rule = static_cast<int32_t>(grammar_.rules.size());
  grammar_.rules.push_back({.start = static_cast<int32_t>(grammar_.states.size()), .key = key});
  return grammar_.states[static_cast<size_t>(new_state(rule))].rule;
}

int32_t GrammarBuilder::new_state(int32_t rule, int32_t bounds) {
  grammar_.states.push_back({.rule = rule, .bounds = bounds});
  edges_.emplace_back();
  empty_.emplace_back();
  return static_cast<int32_t>(grammar_.states.size()) - 1;
}

int32_t GrammarBuilder::new_bounds(CountBounds bounds) {
  if (grammar_.bounds.empty()) grammar_.bounds.emplace_back();  // of states that count nothing
  grammar_.bounds.push_back(bounds);
  return static_cast<int32_t>(grammar_.bounds.size()) - 1;
}

int32_t GrammarBuilder::new_key_set(std::vector<std::string> keys) {
  grammar_.key_sets.push_back(std::move(keys));
  return static_cast<int32_t>(grammar_.key_sets.size()) - 1;
}

int32_t GrammarBuilder::new_special(std::string_view text) {
  const auto found = std::find(grammar_.specials.begin(), grammar_.specials.end(), text);
  if (found != grammar_.specials.end()) return static_cast<int32_t>(found - grammar_.specials.begin());
  grammar_.specials.emplace_back(text);
  return static_cast<int32_t>(grammar_.specials.size()) - 1;
}

void GrammarBuilder::add_empty(int32_t from, int32_t to) {
  empty_[static_cast<size_t>(from)].push_back(to);
  ++edge_count_;
}

void GrammarBuilder::add_bytes(int32_t from, uint8_t low, uint8_t high, int32_t to, EdgeOp ops, int32_t key_set) {
  edges_[static_cast<size_t>(from)].push_back(
      {.kind = GrammarEdge::Kind::kBytes, .ops = ops, .low = low, .high = high, .target = to, .key_set = key_set});
  ++edge_count_;
  if (has(ops, EdgeOp::kKeys)) grammar_.rules[static_cast<size_t>(rule_of(from))].keeps_keys = true;
}

void GrammarBuilder::add_byte(int32_t from, char byte, int32_t to, EdgeOp ops, int32_t key_set) {
  add_bytes(from, static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), to, ops, key_set);
}

void GrammarBuilder::add_special(int32_t from, int32_t special, int32_t to) {
  edges_[static_cast<size_t>(from)].push_back({.kind = GrammarEdge::Kind::kSpecial, .target = to, .callee = special});
  ++edge_count_;
}

void GrammarBuilder::add_call(int32_t from, int32_t rule, int32_t to, EdgeOp ops) {
  edges_[static_cast<size_t>(from)].push_back(
      {.kind = GrammarEdge::Kind::kCall, .ops = ops, .target = to, .callee = rule});
  ++edge_count_;
}

int32_t GrammarBuilder::add_text(int32_t from, std::string_view text) {
  for (const char c : text) {
    if (too_large()) break;
    const int32_t next = new_state(rule_of(from));
    add_byte(from, c, next);
    from = next;
  }
  return from;
}

void GrammarBuilder::add_texts(int32_t from, std::vector<std::string> texts, int32_t to) {
  std::sort(texts.begin(), texts.end());
  std::vector<int32_t> path{from};  // the state after each byte of the text before
  std::string_view before;
  for (const std::string& text : texts) {
    const size_t most = std::min(before.size(), text.size());
    const auto common = static_cast<size_t>(
        std::mismatch(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(most), text.begin()).first -
        before.begin());
    path.resize(common + 1);
    for (size_t i = common; i < text.size(); ++i)
      path.push_back(add_text(path.back(), std::string_view(text).substr(i, 1)));
    add_empty(path.back(), to);
    before = text;
  }
}

int32_t GrammarBuilder::tail_state(int32_t rule, const uint8_t* low, const uint8_t* high, int count, int32_t to) {
  if (count == 0) return to;
  uint64_t ranges = 0;
  for (int i = 0; i < count; ++i) ranges = (ranges << 16) | (static_cast<uint64_t>(low[i]) << 8) | high[i];
  const auto [at, inserted] = tails_.try_emplace({to, ranges}, 0);
  if (!inserted) return at->second;
  // In a region that counts, the state that is led to has the region's bounds.
  const int32_t state = new_state(rule, grammar_.states[static_cast<size_t>(to)].bounds);
  at->second = state;
  add_bytes(state, low[0], high[0], tail_state(rule, low + 1, high + 1, count - 1, to));
  return state;
}

void GrammarBuilder::add_sequence(
    int32_t from, const uint8_t* low, const uint8_t* high, int count, int32_t to, EdgeOp ops) {
  add_bytes(from, low[0], high[0], tail_state(rule_of(from), low + 1, high + 1, count - 1, to), ops);
}

void GrammarBuilder::add_code_points(int32_t from, char32_t low, char32_t high, int32_t to, EdgeOp ops) {
  // Cut into parts in which every byte runs through a range of its own: first where the number of bytes changes and
  // around the surrogates, then where later bytes would not run from 80 to BF.
  static constexpr char32_t kCuts[] = {0x80, 0x800, 0xD800, 0xE000, 0x10000, 0x110000};
  while (low <= high) {
    const char32_t* cut = std::upper_bound(std::begin(kCuts), std::end(kCuts), low);
    if (cut == std::end(kCuts)) return;  // behind the last code point
    char32_t end = *cut - 1;
    if (low >= 0xD800 && low < 0xE000) {
      low = 0xE000;
      continue;
    }
    end = std::min(end, high);
    const int tail = low < 0x80 ? 0 : low < 0x800 ? 1 : low < 0x10000 ? 2 : 3;
    for (int i = tail; i > 0; --i) {
      const char32_t mask = (char32_t{1} << (6 * i)) - 1;
      if ((low & ~mask) == (end & ~mask)) continue;
      if ((low & mask) != 0) {
        end = std::min<char32_t>(end, low | mask);
      } else if ((end & mask) != mask) {
        end = (end & ~mask) - 1;
      }
    }
    static constexpr uint8_t kLead[] = {0x00, 0xC0, 0xE0, 0xF0};
    uint8_t lows[4] = {}, highs[4] = {};
    for (int i = 0; i <= tail; ++i) {
      const int shift = 6 * (tail - i);
      const auto bits = [&](char32_t c) {
        return static_cast<uint8_t>(i == 0 ? kLead[tail] | (c >> shift) : 0x80 | ((c >> shift) & 0x3F));
      };
      lows[i] = bits(low);
      highs[i] = bits(end);
    }
    add_sequence(from, lows, highs, tail + 1, to, ops);
    low = end + 1;
  }
}

bool GrammarBuilder::too_large() const {
  return static_cast<int64_t>(grammar_.states.size()) > max_states_ || edge_count_ > kEdgesPerState * max_states_;
}

// Gives every state the edges of the states it is joined to.
void GrammarBuilder::join_empty() {
  std::vector<int32_t> seen(grammar_.states.size(), -1);
  std::vector<int32_t> work;
  edge_count_ = 0;
  for (size_t s = 0; s < grammar_.states.size() && !too_large(); ++s) {
    GrammarState& state = grammar_.states[s];
    state.first = static_cast<int32_t>(grammar_.edges.size());
    work.assign(1, static_cast<int32_t>(s));
    seen[s] = static_cast<int32_t>(s);
    while (!work.empty()) {
      const auto at = static_cast<size_t>(work.back());
      work.pop_back();
      state.accept = state.accept || grammar_.states[at].accept;
      grammar_.edges.insert(grammar_.edges.end(), edges_[at].begin(), edges_[at].end());
      for (const int32_t next : empty_[at]) {
        if (seen[static_cast<size_t>(next)] == static_cast<int32_t>(s)) continue;
        seen[static_cast<size_t>(next)] = static_cast<int32_t>(s);
        // Counter tests of one state compare with one pair of bounds.
        const int32_t bounds = grammar_.states[static_cast<size_t>(next)].bounds;
        LATHE_CHECK(bounds == 0 || state.bounds == 0 || bounds == state.bounds);
        if (bounds != 0) state.bounds = bounds;
        work.push_back(next);
      }
    }
    state.end = static_cast<int32_t>(grammar_.edges.size());
    edge_count_ = static_cast<int64_t>(grammar_.edges.size());
  }
}

Result<bool> GrammarBuilder::finish(int32_t root, Grammar& out) {
  if (grammar_.bounds.empty()) grammar_.bounds.emplace_back();
  join_empty();
  if (too_large()) return Error{Errc::kInvalidArgument, str("schema needs more than ", max_states_, " states")};
  for (const GrammarRule& rule : grammar_.rules) {
    LATHE_CHECK(!grammar_.state(rule.start).accept, "a rule accepts the empty text");
  }
  grammar_.root = root;
  LATHE_TRY(const bool possible, grammar_.trim());
  out = std::move(grammar_);
  return possible;
}

}  // namespace lathe
