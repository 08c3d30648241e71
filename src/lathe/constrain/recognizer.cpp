#include "lathe/constrain/recognizer.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "lathe/base/check.h"

namespace lathe {
namespace {

constexpr int32_t kUnknownStep = -1;
constexpr size_t kFewItems = 16;                         // are searched one by one
constexpr size_t kMaxBytesWithSteps = size_t{64} << 20;  // beyond it steps are no longer kept
constexpr size_t kEntryBytes = 64;                       // of an index, for each thing that is interned

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

uint64_t hash_of(const StackFrame& f) {
  uint64_t hash = mix(static_cast<uint32_t>(f.state), static_cast<uint32_t>(f.count));
  hash = mix(hash, static_cast<uint32_t>(f.keys));
  return mix(hash, (static_cast<uint64_t>(static_cast<uint32_t>(f.below)) << 1) | (f.key ? 1 : 0));
}

uint64_t hash_of(const Configuration& c) {
  uint64_t hash = mix(static_cast<uint32_t>(c.state), static_cast<uint32_t>(c.count));
  hash = mix(hash, (static_cast<uint64_t>(static_cast<uint32_t>(c.keys)) << 32) | static_cast<uint32_t>(c.prefix));
  return mix(hash, (static_cast<uint64_t>(static_cast<uint32_t>(c.depth)) << 32) | static_cast<uint32_t>(c.frames));
}

uint64_t hash_of(int32_t key) {
  return static_cast<uint32_t>(key);
}

template <class T>
uint64_t hash_all(const std::vector<T>& values, uint64_t hash) {
  for (const T& value : values) hash = mix(hash, hash_of(value));
  return hash;
}

// Number of the equal element of `all`, or of a new one, whose memory is added to `bytes`.
template <class T>
int32_t intern(std::vector<std::vector<T>>& all,
               std::unordered_multimap<uint64_t, int32_t>& index,
               std::vector<T> value,
               size_t& bytes) {
  const uint64_t hash = hash_all(value, value.size());
  for (auto [at, end] = index.equal_range(hash); at != end; ++at) {
    if (all[static_cast<size_t>(at->second)] == value) return at->second;
  }
  const auto number = static_cast<int32_t>(all.size());
  bytes += sizeof(value) + value.size() * sizeof(T) + kEntryBytes;
  all.push_back(std::move(value));
  index.emplace(hash, number);
  return number;
}

}  // namespace

Recognizer::Recognizer(const Grammar& grammar) : grammar_(&grammar) {
  reset();
}

void Recognizer::reset() {
  sets_.clear();
  set_index_.clear();
  stacks_.assign(1, {});  // kBottom
  stack_index_.clear();
  texts_.assign(1, {});  // kNoPrefix
  text_index_.clear();
  keys_.assign(2, {});  // kNoKeys, kUnknownKeys
  keys_index_.clear();
  initial_keys_.assign(grammar_->key_sets.size(), -1);
  bytes_ = 0;
  intern_set({}, false, false);  // kDead
}

int32_t Recognizer::start() {
  return begin({.state = grammar_->rule(grammar_->root).start});
}

int32_t Recognizer::begin(const Configuration& configuration) {
  Work work;
  add(work, configuration, configuration.frames);
  return finish(work);
}

int32_t Recognizer::step(int32_t set, uint8_t byte) {
  Set& from = *sets_[static_cast<size_t>(set)];
  if (from.next && (*from.next)[byte] != kUnknownStep) return (*from.next)[byte];
  Work work;
  work.tainted = from.tainted;
  for (const Configuration& c : from.configurations) {
    const GrammarState& state = grammar_->state(c.state);
    for (int32_t e = state.first; e < state.end; ++e) {
      const GrammarEdge& edge = grammar_->edges[static_cast<size_t>(e)];
      if (edge.kind == GrammarEdge::Kind::kBytes && byte >= edge.low && byte <= edge.high) follow(work, c, edge, byte);
    }
  }
  const int32_t next = work.items.empty() ? kDead : finish(work);
  if (!from.next && bytes_ < kMaxBytesWithSteps) {
    from.next = std::make_unique<std::array<int32_t, 256>>();
    from.next->fill(kUnknownStep);
    bytes_ += sizeof(*from.next);
  }
  if (from.next) (*from.next)[byte] = next;
  return next;
}

int32_t Recognizer::step(int32_t set, std::string_view bytes) {
  for (const char c : bytes) {
    if (set == kDead) break;
    set = step(set, static_cast<uint8_t>(c));
  }
  return set;
}

int32_t Recognizer::step_special(int32_t set, int32_t special) {
  Work work;
  const Set& from = *sets_[static_cast<size_t>(set)];
  work.tainted = from.tainted;
  for (const Configuration& c : from.configurations) {
    const GrammarState& state = grammar_->state(c.state);
    for (int32_t e = state.first; e < state.end; ++e) {
      const GrammarEdge& edge = grammar_->edges[static_cast<size_t>(e)];
      if (edge.kind == GrammarEdge::Kind::kSpecial && edge.callee == special) follow(work, c, edge, -1);
    }
  }
  return work.items.empty() ? kDead : finish(work);
}

int32_t Recognizer::after_rule(const Configuration& configuration) {
  Work work;
  end_rule(work, configuration, configuration.frames, false);
  end_rules(work, false);
  return finish(work, false);
}

bool Recognizer::has_key(int32_t keys, int32_t prefix, std::string_view rest) const {
  const std::vector<int32_t>& set = keys_[static_cast<size_t>(keys)];
  if (set.empty()) return false;
  std::string text = texts_[static_cast<size_t>(prefix)];
  text += rest;
  const auto found = text_index_.find(text);
  return found != text_index_.end() && std::binary_search(set.begin(), set.end(), found->second);
}

bool Recognizer::passes(const Configuration& at, const GrammarEdge& edge) const {
  const CountBounds& bounds = grammar_->bounds[static_cast<size_t>(grammar_->state(at.state).bounds)];
  if (has(edge.ops, EdgeOp::kBelowMax) && at.count >= bounds.max) return false;
  return !has(edge.ops, EdgeOp::kAtLeastMin) || at.count >= bounds.min;
}

// The counter behind an edge. Where there is no maximum it stops at the minimum.
int32_t Recognizer::counted(const Configuration& at, const GrammarEdge& edge) const {
  if (has(edge.ops, EdgeOp::kReset)) return 0;
  if (!has(edge.ops, EdgeOp::kCount)) return at.count;
  const CountBounds& bounds = grammar_->bounds[static_cast<size_t>(grammar_->state(at.state).bounds)];
  const bool endless = bounds.max > std::numeric_limits<int32_t>::max();
  return endless && at.count >= bounds.min ? at.count : at.count + 1;
}

bool Recognizer::viable(const Configuration& c) const {
  return c.depth + grammar_->state(c.state).height <= grammar_->max_depth;
}

// Index of the item with that configuration, which is added where there is none.
size_t Recognizer::place_of(Work& work, const Configuration& configuration) {
  size_t i = 0;
  if (work.items.size() <= kFewItems) {
    while (i < work.items.size() && work.items[i].configuration != configuration) ++i;
  } else {
    for (size_t k = work.index.size(); k < work.items.size(); ++k) work.index.emplace(work.items[k].configuration, k);
    i = work.index.try_emplace(configuration, work.items.size()).first->second;
  }
  if (i == work.items.size()) work.items.push_back({configuration, {}});
  return i;
}

void Recognizer::add(Work& work, const Configuration& configuration, int32_t stack) const {
  if (!viable(configuration)) return;
  Configuration key = configuration;
  key.frames = 0;
  const size_t i = place_of(work, key);
  std::vector<int32_t>& stacks = work.items[i].stacks;
  if (std::find(stacks.begin(), stacks.end(), stack) != stacks.end()) return;
  stacks.push_back(stack);
  work.fresh.emplace_back(i, stack);
}

// Adds where an edge that reads leads to.
void Recognizer::follow(Work& work, const Configuration& from, const GrammarEdge& edge, int byte) {
  if (!passes(from, edge)) return;
  Configuration to = from;
  to.state = edge.target;
  to.count = counted(from, edge);
  if (has(edge.ops, EdgeOp::kDeeper)) ++to.depth;
  if (has(edge.ops, EdgeOp::kOut)) {
    --to.depth;
    to.keys = kNoKeys;
  }
  if (has(edge.ops, EdgeOp::kKeys)) to.keys = initial_keys(edge.key_set);
  if (from.prefix != kNoPrefix && byte >= 0) {
    to.prefix = intern_text(texts_[static_cast<size_t>(from.prefix)] + static_cast<char>(byte));
  }
  add(work, to, from.frames);
}

void Recognizer::end_rule(Work& work, const Configuration& at, int32_t stack, bool compare_keys) {
  if (stack == kBottom) {
    work.complete = true;
    return;
  }
  for (const StackFrame& frame : stacks_[static_cast<size_t>(stack)]) {
    Configuration to{.state = frame.state, .count = frame.count, .keys = frame.keys, .depth = at.depth};
    if (frame.key && frame.keys != kNoKeys) {
      if (frame.keys == kUnknownKeys || at.prefix == kNoPrefix || !compare_keys) {
        to.keys = kUnknownKeys;
        work.tainted = work.tainted || compare_keys;
      } else {
        std::vector<int32_t> keys = keys_[static_cast<size_t>(frame.keys)];
        const auto place = std::lower_bound(keys.begin(), keys.end(), at.prefix);
        if (place != keys.end() && *place == at.prefix) continue;
        keys.insert(place, at.prefix);
        to.keys = intern_keys(std::move(keys));
      }
    }
    add(work, to, frame.below);
  }
}

// Goes on in the callers of all rules that may end, until nothing new is found.
void Recognizer::end_rules(Work& work, bool compare_keys) {
  while (!work.fresh.empty()) {
    const auto [item, stack] = work.fresh.back();
    work.fresh.pop_back();
    const Configuration at = work.items[item].configuration;
    if (grammar_->state(at.state).accept) end_rule(work, at, stack, compare_keys);
  }
}

int32_t Recognizer::join_stacks(std::vector<int32_t>& stacks) {
  if (stacks.size() == 1) return stacks[0];
  // The bottom is no frame: a rule that may both end everything and go on elsewhere cannot be one set.
  std::vector<StackFrame> all;
  for (const int32_t stack : stacks) {
    LATHE_DCHECK(stack != kBottom);
    all.insert(all.end(), stacks_[static_cast<size_t>(stack)].begin(), stacks_[static_cast<size_t>(stack)].end());
  }
  return intern_frames(std::move(all));
}

// Begins the rules that are called, by rank, so that the callers of each are complete before it is begun itself.
void Recognizer::call_rules(Work& work, std::vector<Configuration>& out) {
  struct Call {
    std::vector<StackFrame> frames;
    int32_t rule = 0;
    int32_t depth = 0;
    bool compare = true;
  };

  std::map<int32_t, Call> calls;  // by rank
  const auto scan = [&](const Configuration& at) {
    const GrammarState& state = grammar_->state(at.state);
    for (int32_t e = state.first; e < state.end; ++e) {
      const GrammarEdge& edge = grammar_->edges[static_cast<size_t>(e)];
      if (edge.kind != GrammarEdge::Kind::kCall || !passes(at, edge)) continue;
      const GrammarRule& rule = grammar_->rule(edge.callee);
      StackFrame frame{
          .state = edge.target, .count = counted(at, edge), .keys = at.keys, .below = at.frames, .key = rule.key};
      if (at.depth + grammar_->state(edge.target).height > grammar_->max_depth) continue;
      if (at.depth + grammar_->state(rule.start).height > grammar_->max_depth) continue;
      Call& call = calls[rule.rank];
      call.rule = edge.callee;
      call.depth = at.depth;
      call.compare = call.compare && rule.key && at.keys != kUnknownKeys && at.keys != kNoKeys;
      call.frames.push_back(frame);
    }
  };
  for (Pending& item : work.items) {
    if (grammar_->state(item.configuration.state).first == grammar_->state(item.configuration.state).end) continue;
    Configuration c = item.configuration;
    // The bottom stays apart from stacks with frames.
    const auto bottom = std::find(item.stacks.begin(), item.stacks.end(), kBottom);
    if (bottom != item.stacks.end()) {
      item.stacks.erase(bottom);
      c.frames = kBottom;
      out.push_back(c);
      scan(c);
    }
    if (item.stacks.empty()) continue;
    c.frames = join_stacks(item.stacks);
    out.push_back(c);
    scan(c);
  }
  while (!calls.empty()) {
    Call call = std::move(calls.begin()->second);
    calls.erase(calls.begin());
    Configuration c{.state = grammar_->rule(call.rule).start, .depth = call.depth};
    if (call.compare) c.prefix = intern_text("");
    c.frames = intern_frames(std::move(call.frames));
    out.push_back(c);
    scan(c);
  }
}

int32_t Recognizer::finish(Work& work, bool compare_keys) {
  end_rules(work, compare_keys);
  std::vector<Configuration> configurations;
  call_rules(work, configurations);
  std::sort(configurations.begin(), configurations.end());
  return intern_set(std::move(configurations), work.complete, work.tainted);
}

int32_t Recognizer::intern_set(std::vector<Configuration> configurations, bool complete, bool tainted) {
  if (configurations.empty() && !complete) tainted = false;
  const uint64_t hash = hash_all(configurations, (complete ? 1u : 0u) + (tainted ? 2u : 0u));
  for (auto [at, end] = set_index_.equal_range(hash); at != end; ++at) {
    const Set& found = *sets_[static_cast<size_t>(at->second)];
    if (found.complete == complete && found.tainted == tainted && found.configurations == configurations) {
      return at->second;
    }
  }
  auto made = std::make_unique<Set>();
  for (const Configuration& c : configurations) {
    made->reach = std::max(made->reach, c.depth + grammar_->state(c.state).height);
  }
  made->configurations = std::move(configurations);
  bytes_ += sizeof(Set) + made->configurations.size() * sizeof(Configuration) + kEntryBytes;
  made->complete = complete;
  made->tainted = tainted;
  sets_.push_back(std::move(made));
  const auto number = static_cast<int32_t>(sets_.size()) - 1;
  set_index_.emplace(hash, number);
  return number;
}

int32_t Recognizer::intern_frames(std::vector<StackFrame> frames) {
  std::sort(frames.begin(), frames.end());
  frames.erase(std::unique(frames.begin(), frames.end()), frames.end());
  return intern(stacks_, stack_index_, std::move(frames), bytes_);
}

int32_t Recognizer::intern_text(std::string text) {
  const auto [at, inserted] = text_index_.try_emplace(std::move(text), static_cast<int32_t>(texts_.size()));
  if (inserted) {
    texts_.push_back(at->first);
    bytes_ += 2 * (sizeof(std::string) + at->first.size()) + kEntryBytes;
  }
  return at->second;
}

int32_t Recognizer::intern_keys(std::vector<int32_t> keys) {
  return intern(keys_, keys_index_, std::move(keys), bytes_);
}

int32_t Recognizer::initial_keys(int32_t key_set) {
  int32_t& number = initial_keys_[static_cast<size_t>(key_set)];
  if (number >= 0) return number;
  std::vector<int32_t> keys;
  for (const std::string& key : grammar_->key_sets[static_cast<size_t>(key_set)]) keys.push_back(intern_text(key));
  std::sort(keys.begin(), keys.end());
  number = intern_keys(std::move(keys));
  return number;
}

int32_t Recognizer::collect(int32_t set) {
  Recognizer fresh(*grammar_);
  std::vector<int32_t> keys_to(keys_.size(), -1), stacks_to(stacks_.size(), -1);
  const auto move_keys = [&](int32_t keys) {
    if (keys == kNoKeys || keys == kUnknownKeys) return keys;
    int32_t& to = keys_to[static_cast<size_t>(keys)];
    if (to >= 0) return to;
    std::vector<int32_t> moved;
    for (const int32_t key : keys_[static_cast<size_t>(keys)]) {
      moved.push_back(fresh.intern_text(texts_[static_cast<size_t>(key)]));
    }
    std::sort(moved.begin(), moved.end());
    to = fresh.intern_keys(std::move(moved));
    return to;
  };
  // What lies below a set of frames has a lower number, so that marking goes down once and copying up once.
  std::vector<bool> needed(stacks_.size(), false);
  for (const Configuration& c : sets_[static_cast<size_t>(set)]->configurations) {
    needed[static_cast<size_t>(c.frames)] = true;
  }
  for (size_t s = stacks_.size(); s-- > 1;) {
    if (!needed[s]) continue;
    for (const StackFrame& frame : stacks_[s]) needed[static_cast<size_t>(frame.below)] = true;
  }
  stacks_to[kBottom] = kBottom;
  for (size_t s = 1; s < stacks_.size(); ++s) {
    if (!needed[s]) continue;
    std::vector<StackFrame> frames = stacks_[s];
    for (StackFrame& frame : frames) {
      frame.below = stacks_to[static_cast<size_t>(frame.below)];
      frame.keys = move_keys(frame.keys);
    }
    stacks_to[s] = fresh.intern_frames(std::move(frames));
  }
  std::vector<Configuration> configurations = sets_[static_cast<size_t>(set)]->configurations;
  for (Configuration& c : configurations) {
    c.frames = stacks_to[static_cast<size_t>(c.frames)];
    c.keys = move_keys(c.keys);
    if (c.prefix != kNoPrefix) c.prefix = fresh.intern_text(texts_[static_cast<size_t>(c.prefix)]);
  }
  std::sort(configurations.begin(), configurations.end());
  const bool complete = sets_[static_cast<size_t>(set)]->complete, tainted = sets_[static_cast<size_t>(set)]->tainted;
  const int32_t moved = fresh.intern_set(std::move(configurations), complete, tainted);
  *this = std::move(fresh);
  return moved;
}

}  // namespace lathe
