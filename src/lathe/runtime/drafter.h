// Drafter: where the guesses of speculative decoding come from. What it guesses changes no token of any answer, only
// how many a step gives (docs/serving-engine.md).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace lathe {

struct Batch;  // scheduler.h, like the other
struct Sequence;

enum class DrafterKind {
  kText,  // what followed the last time that the text ended like this
  kMtp,   // the checkpoint's multi-token prediction layer
};
std::string_view name_of(DrafterKind kind);  // "text", "mtp"

// A step of the engine: plan() for every answer that may get guesses, draft() once, the pass over the batch,
// after_pass(), the answers, after_answers().
class Drafter {
 public:
  virtual ~Drafter() = default;

  // What its guesses are counted under.
  virtual DrafterKind kind() const = 0;

  // Whether it needs something of the token before the first one that a pass computes of a sequence. It has that only
  // of the last token of a page and of what the sequence itself has computed.
  virtual bool needs_row_before() const { return false; }

  // How many guesses, at most `most` (at least 1), draft() will have made for what follows sequence.tokens, of which
  // all but the last are computed and whose drafts are empty.
  virtual int64_t plan(Sequence& sequence, int64_t most) = 0;
  // Writes them to Sequence::drafts.
  virtual void draft() = 0;

  // The batch is computed and counted in Sequence::computed, drafts excepted; no request has ended by it yet.
  virtual void after_pass(const Batch& batch) = 0;
  // Right drafts are counted too. Entries of requests that have ended have no sequence.
  virtual void after_answers(const Batch& batch) = 0;
};

// draft_from_text() for every answer.
class TextDrafter final : public Drafter {
 public:
  DrafterKind kind() const override { return DrafterKind::kText; }

  int64_t plan(Sequence& sequence, int64_t most) override;

  void draft() override {}

  void after_pass(const Batch&) override {}

  void after_answers(const Batch&) override {}
};

// Appends to `out` at most `count` guesses of what follows `tokens` (prompt and output): the tokens after the earlier
// place that shares the longest end with it, 2 to 4 tokens, the latest place among equals. Nothing without such a
// place. Where that place is closer to the end than `count`, its period goes on.
void draft_from_text(std::span<const int32_t> tokens, int64_t count, std::vector<int32_t>& out);

}  // namespace lathe
