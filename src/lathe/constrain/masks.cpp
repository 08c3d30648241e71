#include "lathe/constrain/masks.h"

#include <algorithm>
#include <utility>

namespace lathe {
namespace {

constexpr size_t kMaxKnownBytes = size_t{32} << 20;  // beyond it what is known is forgotten
constexpr size_t kMaxScratchBytes = size_t{16} << 20;

void set_bit(std::span<uint64_t> mask, int32_t id) {
  mask[static_cast<size_t>(id) / 64] |= uint64_t{1} << (static_cast<size_t>(id) % 64);
}

// Walks the subtree below node `root`, which `set` has reached: visit(node, set) for every node that is not dead;
// what it returns tells whether to go on below.
template <class Visit>
void walk(Recognizer& recognizer, const TokenTable& table, int32_t root, int32_t set, const Visit& visit) {
  const std::span<const TrieNode> nodes = table.nodes();
  const TrieNode& top = nodes[static_cast<size_t>(root)];
  if (top.end == root + 1) return;
  std::vector<int32_t> reached(static_cast<size_t>(table.longest_token()) + 1);
  reached[top.depth] = set;
  for (int32_t n = root + 1; n < top.end;) {
    const TrieNode& node = nodes[static_cast<size_t>(n)];
    const int32_t next = recognizer.step(reached[node.depth - size_t{1}], node.byte);
    if (next == Recognizer::kDead || !visit(n, next)) {
      n = node.end;
      continue;
    }
    reached[node.depth] = next;
    ++n;
  }
}

}  // namespace

size_t GrammarMasks::KeyHash::operator()(const Key& key) const {
  uint64_t hash = static_cast<uint32_t>(key.state);
  hash = (hash << 32) ^ static_cast<uint32_t>(key.count);
  hash = (hash ^ (static_cast<uint64_t>(static_cast<uint32_t>(key.depth)) << 20)) * 0x9E3779B97F4A7C15u;
  return static_cast<size_t>(hash ^ (hash >> 31));
}

GrammarMasks::GrammarMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTable> table)
    : grammar_(std::move(grammar)), table_(std::move(table)), scratch_(std::make_unique<Recognizer>(*grammar_)) {
  for (const std::string& text : grammar_->specials) special_ids_.push_back(table_->special_id(text).value_or(-1));
}

// Counters that are farther from both bounds than a token is long are all alike.
int32_t GrammarMasks::representative(const Configuration& c) const {
  const int32_t index = grammar_->state(c.state).bounds;
  if (index == 0) return c.count;
  const CountBounds& bounds = grammar_->bounds[static_cast<size_t>(index)];
  const int64_t far = table_->longest_token();
  if (bounds.max - c.count <= far) return c.count;
  if (c.count >= bounds.min) return static_cast<int32_t>(bounds.min);
  return bounds.min - c.count > far ? 0 : c.count;
}

std::shared_ptr<const StateMask> GrammarMasks::mask_of(const Configuration& c) {
  const std::lock_guard lock(mutex_);
  // Without regard to the nesting first; where it matters, for exactly this one.
  const Key key{c.state, representative(c), 0};
  std::shared_ptr<const StateMask> known = find_or_compute(key);
  if (c.depth == 0 || c.depth + known->reach <= grammar_->max_depth) return known;
  return find_or_compute({key.state, key.count, c.depth});
}

std::shared_ptr<const StateMask> GrammarMasks::find_or_compute(const Key& key) {
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  std::shared_ptr<const StateMask> made = compute(key);
  const size_t bytes = sizeof(StateMask) + made->bits.size() * sizeof(uint64_t) +
                       (made->ids.size() + made->ends.size() + made->verify.size()) * sizeof(int32_t);
  if (known_bytes_ + bytes > kMaxKnownBytes) {
    known_.clear();
    known_bytes_ = 0;
  }
  known_bytes_ += bytes;
  known_.emplace(key, made);
  bytes_ = known_bytes_ + scratch_->bytes();
  return made;
}

std::shared_ptr<const StateMask> GrammarMasks::compute(const Key& key) {
  if (scratch_->bytes() > kMaxScratchBytes) scratch_ = std::make_unique<Recognizer>(*grammar_);
  const GrammarRule& rule = grammar_->rule(grammar_->state(key.state).rule);
  const int32_t keys = rule.keeps_keys ? Recognizer::kUnknownKeys : Recognizer::kNoKeys;
  const int32_t begin = scratch_->begin({.state = key.state, .count = key.count, .keys = keys, .depth = key.depth});
  auto out = std::make_shared<StateMask>();
  out->reach = scratch_->set(begin).reach;
  const std::span<const TrieNode> nodes = table_->nodes();
  walk(*scratch_, *table_, 0, begin, [&](int32_t n, int32_t s) {
    const Recognizer::Set& set = scratch_->set(s);
    out->reach = std::max(out->reach, set.reach);
    const int32_t end = nodes[static_cast<size_t>(n)].end;
    if (set.tainted) {
      const auto unsure = table_->tokens_in(n, set.complete ? end : n + 1);
      out->verify.insert(out->verify.end(), unsure.begin(), unsure.end());
      return !set.complete;
    }
    // A key that ends is compared first, with those of the object around it.
    const std::span<const int32_t> here = table_->tokens_at(n);
    if (!rule.key || !set.complete) out->ids.insert(out->ids.end(), here.begin(), here.end());
    if (set.complete && (rule.key || end > n + 1)) out->ends.push_back(n);
    return !set.configurations.empty();
  });
  if (out->ids.size() * 32 > static_cast<size_t>(table_->vocab_size())) {
    out->bits.resize(table_->mask_words());
    for (const int32_t id : out->ids) set_bit(out->bits, id);
    out->ids.clear();
  }
  out->ids.shrink_to_fit();
  out->ends.shrink_to_fit();
  return out;
}

void GrammarMasks::add_checked(Recognizer& recognizer,
                               const Configuration& c,
                               int32_t id,
                               std::span<uint64_t> mask) const {
  const int32_t begin = recognizer.begin(c);
  if (recognizer.step(begin, table_->bytes(id)) != Recognizer::kDead) set_bit(mask, id);
}

void GrammarMasks::add_after_rule(Recognizer& recognizer,
                                  const Configuration& c,
                                  const StateMask& known,
                                  std::span<uint64_t> mask) {
  const int32_t after = recognizer.after_rule(c);
  const bool is_key = grammar_->rule(grammar_->state(c.state).rule).key;
  for (const int32_t n : known.ends) {
    if (is_key) {
      size_t refused = 0;
      for (const StackFrame& frame : recognizer.frames(c.frames)) {
        if (recognizer.has_key(frame.keys, c.prefix, table_->path(n))) ++refused;
      }
      if (refused == recognizer.frames(c.frames).size()) continue;
      if (refused > 0) {  // not the same for all callers
        for (const int32_t id : table_->tokens_in(n, table_->nodes()[static_cast<size_t>(n)].end)) {
          add_checked(recognizer, c, id, mask);
        }
        continue;
      }
      for (const int32_t id : table_->tokens_at(n)) set_bit(mask, id);
    }
    if (after == Recognizer::kDead) continue;
    walk(recognizer, *table_, n, after, [&](int32_t below, int32_t s) {
      const bool tainted = recognizer.set(s).tainted;
      for (const int32_t id : table_->tokens_at(below)) {
        if (tainted) {
          add_checked(recognizer, c, id, mask);
        } else {
          set_bit(mask, id);
        }
      }
      return true;
    });
  }
}

void GrammarMasks::add_allowed(Recognizer& recognizer, int32_t set, std::span<uint64_t> mask) {
  const std::vector<Configuration> configurations = recognizer.set(set).configurations;
  for (const Configuration& c : configurations) {
    const GrammarState& state = grammar_->state(c.state);
    for (int32_t e = state.first; e < state.end; ++e) {
      const GrammarEdge& edge = grammar_->edges[static_cast<size_t>(e)];
      if (edge.kind != GrammarEdge::Kind::kSpecial) continue;
      const int32_t id = special_ids_[static_cast<size_t>(edge.callee)];
      if (id >= 0) set_bit(mask, id);
    }
    const std::shared_ptr<const StateMask> known = mask_of(c);
    for (size_t w = 0; w < known->bits.size(); ++w) mask[w] |= known->bits[w];
    for (const int32_t id : known->ids) set_bit(mask, id);
    for (const int32_t id : known->verify) add_checked(recognizer, c, id, mask);
    if (!known->ends.empty()) add_after_rule(recognizer, c, *known, mask);
  }
}

}  // namespace lathe
