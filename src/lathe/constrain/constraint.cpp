#include "lathe/constrain/constraint.h"

#include <algorithm>
#include <utility>

#include "lathe/base/check.h"
#include "lathe/base/str.h"
#include "lathe/constrain/masks.h"

namespace lathe {
namespace {

constexpr size_t kCollectBytes = size_t{2} << 20;  // of a recognizer, beside what it needs in any case

void set_bits(std::span<uint64_t> mask, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) mask[static_cast<size_t>(id) / 64] |= uint64_t{1} << (static_cast<size_t>(id) % 64);
}

void clear_bits(std::span<uint64_t> mask, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) mask[static_cast<size_t>(id) / 64] &= ~(uint64_t{1} << (static_cast<size_t>(id) % 64));
}

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

class GrammarConstraint : public TokenConstraint {
 public:
  GrammarConstraint(std::shared_ptr<GrammarMasks> masks, std::vector<int32_t> eos)
      : masks_(std::move(masks)), eos_(std::move(eos)), recognizer_(masks_->grammar()), set_(recognizer_.start()) {
    for (const int32_t id : eos_) LATHE_CHECK(id >= 0 && id < masks_->table().vocab_size());
  }

  void allowed(std::span<uint64_t> mask) override {
    LATHE_CHECK(mask.size() == masks_->table().mask_words());
    std::fill(mask.begin(), mask.end(), 0);
    if (!ended_) masks_->add_allowed(recognizer_, set_, mask);
    clear_bits(mask, eos_);  // one of them may have a text that would fit
    if (ended_ || recognizer_.set(set_).complete) set_bits(mask, eos_);
    collect();
  }

  bool accept(int32_t id) override {
    if (contains(eos_, id)) {
      if (!ended_ && !recognizer_.set(set_).complete) return false;
      ended_ = true;
      return true;
    }
    const int32_t next = ended_ ? Recognizer::kDead : next_set(id);
    if (next == Recognizer::kDead) return false;
    set_ = next;
    collect();
    return true;
  }

  bool finished() const override { return ended_ || recognizer_.set(set_).configurations.empty(); }

 private:
  void collect() {
    if (recognizer_.bytes() < kept_bytes_ + kCollectBytes) return;
    set_ = recognizer_.collect(set_);
    kept_bytes_ = recognizer_.bytes();
  }

  int32_t next_set(int32_t id) {
    const std::string_view bytes = masks_->table().bytes(id);
    if (!bytes.empty()) return recognizer_.step(set_, bytes);
    const std::span<const int32_t> specials = masks_->special_ids();
    const auto found = std::find(specials.begin(), specials.end(), id);
    if (id < 0 || found == specials.end()) return Recognizer::kDead;
    return recognizer_.step_special(set_, static_cast<int32_t>(found - specials.begin()));
  }

  std::shared_ptr<GrammarMasks> masks_;
  std::vector<int32_t> eos_;
  Recognizer recognizer_;
  int32_t set_;
  size_t kept_bytes_ = 0;  // after the last collection
  bool ended_ = false;
};

class ConstraintAfter : public TokenConstraint {
 public:
  ConstraintAfter(int32_t marker,
                  std::unique_ptr<TokenConstraint> inner,
                  std::shared_ptr<const TokenTable> table,
                  std::vector<int32_t> eos)
      : marker_(marker), inner_(std::move(inner)), table_(std::move(table)), eos_(std::move(eos)) {}

  void allowed(std::span<uint64_t> mask) override {
    if (begun_) return inner_->allowed(mask);
    std::fill(mask.begin(), mask.end(), ~uint64_t{0});
    const int64_t size = table_->vocab_size();
    if (size % 64 != 0) mask.back() = (uint64_t{1} << (size % 64)) - 1;
    clear_bits(mask, eos_);
  }

  bool accept(int32_t id) override {
    if (begun_) return inner_->accept(id);
    if (id < 0 || id >= table_->vocab_size() || contains(eos_, id)) return false;
    begun_ = id == marker_;
    return true;
  }

  bool finished() const override { return begun_ && inner_->finished(); }

 private:
  int32_t marker_;
  std::unique_ptr<TokenConstraint> inner_;
  std::shared_ptr<const TokenTable> table_;
  std::vector<int32_t> eos_;
  bool begun_ = false;
};

}  // namespace

Result<std::shared_ptr<GrammarMasks>> prepare_grammar(std::shared_ptr<const Grammar> grammar,
                                                      std::shared_ptr<const TokenTable> table) {
  const std::array<bool, 256>& bytes = table->single_bytes();
  bool whole = std::all_of(bytes.begin(), bytes.end(), [](bool b) { return b; });
  std::vector<bool> special;
  for (const std::string& text : grammar->specials) {
    special.push_back(table->special_id(text).has_value());
    whole = whole && special.back();
  }
  if (!whole) {
    LATHE_TRY(Grammar restricted, grammar->restricted(bytes, special));
    grammar = std::make_shared<const Grammar>(std::move(restricted));
  }
  return std::make_shared<GrammarMasks>(std::move(grammar), std::move(table));
}

std::unique_ptr<TokenConstraint> make_constraint(std::shared_ptr<GrammarMasks> masks, std::vector<int32_t> eos) {
  return std::make_unique<GrammarConstraint>(std::move(masks), std::move(eos));
}

Result<std::unique_ptr<TokenConstraint>> make_constraint(std::shared_ptr<const Grammar> grammar,
                                                         std::shared_ptr<const TokenTable> table,
                                                         std::vector<int32_t> eos) {
  LATHE_TRY(std::shared_ptr<GrammarMasks> masks, prepare_grammar(std::move(grammar), std::move(table)));
  return make_constraint(std::move(masks), std::move(eos));
}

std::unique_ptr<TokenConstraint> constrain_after(int32_t marker,
                                                 std::unique_ptr<TokenConstraint> inner,
                                                 std::shared_ptr<const TokenTable> table,
                                                 std::vector<int32_t> eos) {
  return std::make_unique<ConstraintAfter>(marker, std::move(inner), std::move(table), std::move(eos));
}

}  // namespace lathe
