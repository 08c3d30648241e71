#include "lathe/constrain/pattern.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/constrain/pattern_syntax.h"

namespace lathe {
namespace {

using unicode::kCodePointEnd;
using unicode::RangeSet;

constexpr size_t kMaxStates = 4000;
constexpr size_t kMaxPattern = 4096;   // bytes
constexpr int64_t kStepsPerByte = 32;  // of reading a pattern

Error too_large() {
  return Error{Errc::kUnsupported, str("needs an automaton of more than ", kMaxStates, " states or too many edges")};
}

// A nondeterministic automaton made from the tree.
struct Nfa {
  struct State {
    std::vector<int32_t> empty;     // always
    std::vector<int32_t> begin;     // only before the first code point
    std::vector<int32_t> end;       // only after the last
    const RangeSet* set = nullptr;  // then `target` follows
    int32_t target = -1;
    bool useful = false;  // leads to `accept` without a further ^
  };

  std::vector<State> states;
  int32_t accept = -1;
  size_t parts = 0;  // built so far, those that need no state included

  int32_t add() {
    states.emplace_back();
    return static_cast<int32_t>(states.size()) - 1;
  }

  State& at(int32_t s) { return states[static_cast<size_t>(s)]; }

  const State& at(int32_t s) const { return states[static_cast<size_t>(s)]; }
};

// Builds `node` from state `from`; returns the state behind it, or -1 when it becomes too large.
int32_t build(Nfa& nfa, const PatternNode& node, int32_t from) {
  if (nfa.states.size() > kMaxStates || ++nfa.parts > kMaxStates) return -1;
  switch (node.kind) {
    case PatternNode::Kind::kEmpty:
      return from;
    case PatternNode::Kind::kSet: {
      // A state of its own, since `from` may already read something else.
      const int32_t reader = nfa.add(), to = nfa.add();
      nfa.at(from).empty.push_back(reader);
      nfa.at(reader).set = &node.set;
      nfa.at(reader).target = to;
      return to;
    }
    case PatternNode::Kind::kSequence:
      for (const PatternNode& child : node.children) {
        from = build(nfa, child, from);
        if (from < 0) return -1;
      }
      return from;
    case PatternNode::Kind::kChoice: {
      const int32_t to = nfa.add();
      for (const PatternNode& child : node.children) {
        const int32_t begin = nfa.add();
        nfa.at(from).empty.push_back(begin);
        const int32_t end = build(nfa, child, begin);
        if (end < 0) return -1;
        nfa.at(end).empty.push_back(to);
      }
      return to;
    }
    case PatternNode::Kind::kRepeat: {
      const PatternNode& child = node.children[0];
      for (int32_t i = 0; i < node.min; ++i) {
        from = build(nfa, child, from);
        if (from < 0) return -1;
      }
      const int32_t to = nfa.add();
      if (node.max == PatternNode::kUnlimited) {
        const int32_t loop = nfa.add();
        nfa.at(from).empty.push_back(loop);
        const int32_t end = build(nfa, child, loop);
        if (end < 0) return -1;
        nfa.at(end).empty.push_back(loop);
        nfa.at(loop).empty.push_back(to);
        return to;
      }
      for (int32_t i = node.min; i < node.max; ++i) {
        nfa.at(from).empty.push_back(to);
        const int32_t begin = nfa.add();
        nfa.at(from).empty.push_back(begin);
        from = build(nfa, child, begin);
        if (from < 0) return -1;
      }
      nfa.at(from).empty.push_back(to);
      return to;
    }
    case PatternNode::Kind::kBegin:
    case PatternNode::Kind::kEnd: {
      const int32_t to = nfa.add();
      (node.kind == PatternNode::Kind::kBegin ? nfa.at(from).begin : nfa.at(from).end).push_back(to);
      return to;
    }
  }
  return from;
}

// Marks the states from which `accept` can be reached when no ^ holds any more.
void mark_useful(Nfa& nfa) {
  std::vector<std::vector<int32_t>> users(nfa.states.size());
  for (size_t s = 0; s < nfa.states.size(); ++s) {
    const Nfa::State& state = nfa.states[s];
    const auto from = static_cast<int32_t>(s);
    for (const int32_t to : state.empty) users[static_cast<size_t>(to)].push_back(from);
    for (const int32_t to : state.end) users[static_cast<size_t>(to)].push_back(from);
    if (state.set != nullptr) users[static_cast<size_t>(state.target)].push_back(from);
  }
  std::vector<int32_t> work{nfa.accept};
  nfa.at(nfa.accept).useful = true;
  while (!work.empty()) {
    const int32_t s = work.back();
    work.pop_back();
    for (const int32_t user : users[static_cast<size_t>(s)]) {
      if (nfa.at(user).useful) continue;
      nfa.at(user).useful = true;
      work.push_back(user);
    }
  }
}

// Turns the automaton into a deterministic one, set of states by set of states.
class Determiniser {
 public:
  Determiniser(const Nfa& nfa, int64_t& work) : nfa_(&nfa), work_(&work), seen_(nfa.states.size(), 0) {
    for (const Nfa::State& state : nfa.states) {
      if (state.set == nullptr) continue;
      for (const auto& [begin, end] : state.set->ranges()) {
        cuts_.push_back(begin);
        cuts_.push_back(end);
      }
    }
    cuts_.push_back(0);
    cuts_.push_back(kCodePointEnd);
    std::sort(cuts_.begin(), cuts_.end());
    cuts_.erase(std::unique(cuts_.begin(), cuts_.end()), cuts_.end());
  }

  Result<CodePointDfa> run(int32_t start) {
    number(closure({start}, true));
    for (size_t s = 0; s < sets_.size(); ++s) {
      const std::vector<int32_t> set = sets_[s];
      out_.states[s].accept = accepts(set);
      add_edges(s, set);
      if (sets_.size() > kMaxStates || *work_ < 0) return too_large();
    }
    return std::move(out_);
  }

 private:
  // Everything reached without reading, sorted; only states that read, lead to the end or accept matter afterwards.
  std::vector<int32_t> closure(std::vector<int32_t> work, bool at_begin) {
    ++round_;
    std::vector<int32_t> out;
    while (!work.empty()) {
      const int32_t s = work.back();
      work.pop_back();
      const Nfa::State& state = nfa_->at(s);
      if (seen_[static_cast<size_t>(s)] == round_) continue;
      seen_[static_cast<size_t>(s)] = round_;
      --*work_;
      if (state.useful && (state.set != nullptr || !state.end.empty() || s == nfa_->accept)) out.push_back(s);
      work.insert(work.end(), state.empty.begin(), state.empty.end());
      if (at_begin) work.insert(work.end(), state.begin.begin(), state.begin.end());
    }
    std::sort(out.begin(), out.end());
    return out;
  }

  bool accepts(const std::vector<int32_t>& set) {
    ++round_;
    std::vector<int32_t> work = set;
    while (!work.empty()) {
      const int32_t s = work.back();
      work.pop_back();
      if (s == nfa_->accept) return true;
      if (seen_[static_cast<size_t>(s)] == round_) continue;
      seen_[static_cast<size_t>(s)] = round_;
      --*work_;
      const Nfa::State& state = nfa_->at(s);
      work.insert(work.end(), state.empty.begin(), state.empty.end());
      work.insert(work.end(), state.end.begin(), state.end.end());
    }
    return false;
  }

  void add_edges(size_t s, const std::vector<int32_t>& set) {
    // Which states read which of the intervals between two cuts.
    std::map<size_t, std::vector<int32_t>> targets;  // by index of the interval
    for (const int32_t from : set) {
      const Nfa::State& state = nfa_->at(from);
      if (state.set == nullptr) continue;
      for (const auto& [begin, end] : state.set->ranges()) {
        auto at = static_cast<size_t>(std::lower_bound(cuts_.begin(), cuts_.end(), begin) - cuts_.begin());
        for (; cuts_[at] < end; ++at) {
          targets[at].push_back(state.target);
          --*work_;
        }
      }
      if (*work_ < 0) return;
    }
    std::map<std::vector<int32_t>, int32_t> known;  // many intervals lead to the same place
    for (auto& [at, to] : targets) {
      const auto [place, inserted] = known.try_emplace(to, 0);
      if (inserted) place->second = number(closure(to, false));
      if (place->second < 0) continue;
      std::vector<CodePointDfa::Edge>& edges = out_.states[s].edges;
      const char32_t low = cuts_[at], high = cuts_[at + 1] - 1;
      if (!edges.empty() && edges.back().target == place->second && edges.back().high + 1 == low) {
        edges.back().high = high;
      } else {
        edges.push_back({low, high, place->second});
      }
    }
  }

  int32_t number(std::vector<int32_t> set) {
    if (set.empty() && !sets_.empty()) return -1;
    const auto [at, inserted] = numbers_.try_emplace(std::move(set), static_cast<int32_t>(sets_.size()));
    if (inserted) {
      sets_.push_back(at->first);
      out_.states.emplace_back();
    }
    return at->second;
  }

  const Nfa* nfa_;
  int64_t* work_;
  std::vector<char32_t> cuts_;
  std::vector<uint64_t> seen_;
  uint64_t round_ = 0;
  std::map<std::vector<int32_t>, int32_t> numbers_;
  std::vector<std::vector<int32_t>> sets_;
  CodePointDfa out_;
};

// Removes the states from which nothing is accepted.
CodePointDfa trimmed(const CodePointDfa& dfa) {
  std::vector<std::vector<int32_t>> users(dfa.states.size());
  std::vector<bool> useful(dfa.states.size(), false);
  std::vector<int32_t> work;
  for (size_t s = 0; s < dfa.states.size(); ++s) {
    for (const CodePointDfa::Edge& edge : dfa.states[s].edges) {
      users[static_cast<size_t>(edge.target)].push_back(static_cast<int32_t>(s));
    }
    if (!dfa.states[s].accept) continue;
    useful[s] = true;
    work.push_back(static_cast<int32_t>(s));
  }
  while (!work.empty()) {
    const int32_t s = work.back();
    work.pop_back();
    for (const int32_t user : users[static_cast<size_t>(s)]) {
      if (useful[static_cast<size_t>(user)]) continue;
      useful[static_cast<size_t>(user)] = true;
      work.push_back(user);
    }
  }
  CodePointDfa out;
  if (dfa.states.empty() || !useful[0]) return out;
  std::vector<int32_t> to(dfa.states.size(), -1);
  int32_t count = 0;
  for (size_t s = 0; s < dfa.states.size(); ++s) {
    if (useful[s]) to[s] = count++;
  }
  for (size_t s = 0; s < dfa.states.size(); ++s) {
    if (!useful[s]) continue;
    CodePointDfa::State& state = out.states.emplace_back();
    state.accept = dfa.states[s].accept;
    for (CodePointDfa::Edge edge : dfa.states[s].edges) {
      edge.target = to[static_cast<size_t>(edge.target)];
      if (edge.target >= 0) state.edges.push_back(edge);
    }
  }
  return out;
}

// Pairs of states of two automata; the second may have stopped (-1) where `b_may_stop`.
template <class Accept>
Result<CodePointDfa> product(
    const CodePointDfa& a, const CodePointDfa& b, bool b_may_stop, int64_t& work, const Accept& accept) {
  CodePointDfa out;
  if (a.states.empty()) return out;
  std::map<std::pair<int32_t, int32_t>, int32_t> numbers;
  std::vector<std::pair<int32_t, int32_t>> pairs;
  const auto number = [&](int32_t x, int32_t y) {
    const auto [at, inserted] = numbers.try_emplace({x, y}, static_cast<int32_t>(pairs.size()));
    if (inserted) {
      pairs.emplace_back(x, y);
      out.states.emplace_back();
    }
    return at->second;
  };
  if (b.states.empty() && !b_may_stop) return out;
  number(0, b.states.empty() ? -1 : 0);
  for (size_t s = 0; s < pairs.size(); ++s) {
    const auto [x, y] = pairs[s];
    static const CodePointDfa::State kStopped;
    const CodePointDfa::State& left = a.states[static_cast<size_t>(x)];
    const CodePointDfa::State& right = y < 0 ? kStopped : b.states[static_cast<size_t>(y)];
    out.states[s].accept = accept(left.accept, right.accept);
    auto other = right.edges.begin();
    for (const CodePointDfa::Edge& edge : left.edges) {
      char32_t low = edge.low;
      while (low <= edge.high) {
        --work;
        while (other != right.edges.end() && other->high < low) ++other;
        const bool inside = other != right.edges.end() && other->low <= low;
        char32_t high = edge.high;
        if (inside) {
          high = std::min(high, other->high);
        } else if (other != right.edges.end() && other->low <= high) {
          high = other->low - 1;
        }
        if (inside || b_may_stop) {
          const int32_t target = number(edge.target, inside ? other->target : -1);
          out.states[s].edges.push_back({low, high, target});
        }
        low = high + 1;
      }
    }
    if (pairs.size() > kMaxStates || work < 0) return too_large();
  }
  return trimmed(out);
}

}  // namespace

bool CodePointDfa::accepts(std::string_view text) const {
  if (states.empty()) return false;
  size_t state = 0, position = 0;
  while (position < text.size()) {
    const char32_t c = decode_utf8(text, position);
    const std::vector<Edge>& edges = states[state].edges;
    const auto at =
        std::lower_bound(edges.begin(), edges.end(), c, [](const Edge& e, char32_t v) { return e.high < v; });
    if (at == edges.end() || at->low > c) return false;
    state = static_cast<size_t>(at->target);
  }
  return states[state].accept;
}

Result<CodePointDfa> compile_pattern(std::string_view pattern, int64_t& work) {
  if (pattern.size() > kMaxPattern) {
    return Error{Errc::kUnsupported, str("expected at most ", kMaxPattern, " bytes, found ", pattern.size())};
  }
  work -= std::ssize(pattern) * kStepsPerByte;
  LATHE_TRY(const PatternNode tree, parse_pattern(pattern));
  RangeSet everything;
  everything.add(0, kCodePointEnd);
  Nfa nfa;
  // Anything may come before and behind a match.
  const int32_t before = nfa.add(), start = nfa.add();
  nfa.at(before).set = &everything;
  nfa.at(before).target = before;
  nfa.at(before).empty.push_back(start);
  const int32_t end = build(nfa, tree, start);
  if (end < 0 || nfa.states.size() > kMaxStates) return too_large();
  nfa.accept = nfa.add();
  nfa.at(end).empty.push_back(nfa.accept);
  nfa.at(nfa.accept).set = &everything;
  nfa.at(nfa.accept).target = nfa.accept;
  mark_useful(nfa);
  LATHE_TRY(const CodePointDfa dfa, Determiniser(nfa, work).run(before));
  return trimmed(dfa);
}

Result<CodePointDfa> intersect(const CodePointDfa& a, const CodePointDfa& b, int64_t& work) {
  return product(a, b, false, work, [](bool x, bool y) { return x && y; });
}

Result<CodePointDfa> subtract(const CodePointDfa& a, const CodePointDfa& b, int64_t& work) {
  return product(a, b, true, work, [](bool x, bool y) { return x && !y; });
}

Result<CodePointDfa> with_length(const CodePointDfa& dfa, int64_t min, int64_t max, int64_t& work) {
  // Another automaton that counts: a chain, the last state of which stays where there is no maximum.
  const bool endless = max == kNoMaximum;
  const int64_t count = endless ? min : max;
  if (count > static_cast<int64_t>(kMaxStates)) return too_large();
  CodePointDfa lengths;
  for (int64_t i = 0; i <= count; ++i) {
    CodePointDfa::State& state = lengths.states.emplace_back();
    state.accept = i >= min;
    const int64_t next = i < count ? i + 1 : i;
    if (i < count || endless) state.edges.push_back({0, kCodePointEnd - 1, static_cast<int32_t>(next)});
  }
  return intersect(dfa, lengths, work);
}

bool is_endless(const CodePointDfa& dfa) {
  // Every edge leads on, so a state without any is the only way in which texts can come to an end.
  return !dfa.states.empty() && std::none_of(dfa.states.begin(), dfa.states.end(), [](const CodePointDfa::State& s) {
    return s.edges.empty();
  });
}

std::string_view format_pattern(std::string_view format) {
#define LATHE_YEAR "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
#define LATHE_DAY \
  "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
#define LATHE_TIME "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define LATHE_BYTE "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kFormats = {{
      {"date", "^" LATHE_YEAR "-" LATHE_DAY "$"},
      {"date-time", "^" LATHE_YEAR "-" LATHE_DAY "T" LATHE_TIME "$"},
      {"time", "^" LATHE_TIME "$"},
      {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
      {"email",
       "^[A-Za-z0-9_+-]{1,16}(\\.[A-Za-z0-9_+-]{1,16}){0,3}@([A-Za-z0-9]([A-Za-z0-9-]{0,14}[A-Za-z0-9])?\\.){1,4}"
       "[A-Za-z]{2,8}$"},
      {"ipv4", "^" LATHE_BYTE "(\\." LATHE_BYTE "){3}$"},
  }};
#undef LATHE_YEAR
#undef LATHE_DAY
#undef LATHE_TIME
#undef LATHE_BYTE
  for (const auto& [name, pattern] : kFormats) {
    if (name == format) return pattern;
  }
  return {};
}

}  // namespace lathe
