// Regular expressions for pre-tokenizers. The own engine takes the part of Oniguruma's dialect (the one tokenizer.json
// is written in) that published byte-level vocabularies use: literals, classes with \p{..}, nesting and &&, \s \d,
// groups, (?i:..), alternation, greedy, lazy and possessive repetition, ^ $, and look-ahead of fixed sequences. Every
// other pattern goes to PCRE2 (regex_pcre.h, which lists what differs); one that neither takes is refused by name.
//
// Searching with the own engine is backtracking (leftmost, first alternative wins, as in Oniguruma and Perl) with a
// step budget; beyond it the states that failed are remembered, so that time is linear in the text for every pattern.
// Patterns come from strangers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/tokenizer/regex_pcre.h"
#include "lathe/tokenizer/regex_unicode.h"

namespace lathe {

struct RegexInstruction {
  enum class Op : uint8_t {
    kLiteral,    // the bytes of one code point
    kSet,        // one code point of sets[set]
    kRun,        // min..max code points of sets[set], greedy
    kSplit,      // first `target`-less path (pc + 1), then `target`
    kSplitLazy,  // first `target`, then pc + 1
    kJump,
    kLineStart,
    kLineEnd,
    kLookAhead,  // pc + 1 .. target - 1 (ends in kMatch) must match here, or must not (negative)
    kMatch,
  };
  static constexpr int32_t kUnlimited = -1;

  Op op = Op::kMatch;
  bool possessive = false;  // kRun: never gives back
  bool negative = false;
  uint8_t literal_size = 0;
  std::array<char, 4> literal{};
  int32_t set = -1;
  int32_t min = 0;
  int32_t max = kUnlimited;
  int32_t target = -1;
  int32_t first = -1;  // kSplit: first_bytes of the path pc + 1 when that path cannot be empty
  int32_t slot = -1;   // number of the states worth remembering; -1: none
};

// A compiled pattern.
struct RegexProgram {
  std::vector<RegexInstruction> code;
  std::vector<unicode::CodePointSet> sets;
  std::vector<std::array<bool, 256>> first_bytes;
  std::array<bool, 256> first{};  // bytes a match may begin with
  int32_t slots = 0;
};

enum class RegexEngine {
  kAny,    // the own engine, or PCRE2 for what it does not support
  kOwn,    // refuses what it does not support, and patterns that match the empty string
  kPcre2,  // the other way to the same matches, for comparison
};

class Regex {
 public:
  // Errors (kUnsupported, kInvalidData): `regex "a)": byte 1: unmatched closing parenthesis`, in PCRE2's words where
  // both engines were asked.
  static Result<Regex> compile(std::string_view pattern, RegexEngine engine = RegexEngine::kAny);
  // A pattern that matches exactly that text, which must be valid UTF-8 and not empty.
  static Result<Regex> literal(std::string_view text);

  // Exactly one of the two is there.
  const RegexProgram* program() const { return program_.get(); }

  const PcreRegex* pcre() const { return pcre_.get(); }

 private:
  std::shared_ptr<const RegexProgram> program_;
  std::shared_ptr<const PcreRegex> pcre_;
};

// Finds the matches of one regex in one subject after the other. Not thread safe; the regex may be shared.
class RegexSearch {
 public:
  // Ordinary patterns need some 10 steps for each byte; a subject that needs more than `steps_per_byte` gets the
  // linear-time mode (of the own engine; PCRE2 has its own limits). The regex must outlive the search.
  explicit RegexSearch(const Regex& regex, uint64_t steps_per_byte = 64)
      : program_(regex.program()), steps_per_byte_(steps_per_byte) {
    if (regex.pcre() != nullptr) pcre_.emplace(*regex.pcre());
  }

  // Starts a new subject. It must be valid UTF-8 and outlive the search.
  void reset(std::string_view subject);

  // The leftmost match that begins at or after `from`: false when there is none. `from` must not decrease between two
  // calls on one subject, and must be where a code point begins. Matches of the own engine are not empty; one of PCRE2
  // may be, but not right after the match before it and not at the end of the subject.
  bool next(size_t from, size_t& begin, size_t& end) {
    return pcre_ ? pcre_->next(from, begin, end) : next_own(from, begin, end);
  }

  // Whether next() returned false only because the search reached PCRE2's limits.
  bool gave_up() const { return pcre_ && pcre_->gave_up(); }

 private:
  struct Frame {
    int32_t pc;
    size_t low;  // a run may still give back down to here
    size_t position;
  };

  static constexpr size_t kFail = static_cast<size_t>(-1);
  static constexpr size_t kOverBudget = static_cast<size_t>(-2);
  static constexpr size_t kBlock = 1024;  // positions per block of remembered states

  bool next_own(size_t from, size_t& begin, size_t& end);
  size_t match_at(size_t position);
  bool execute_run(const RegexInstruction& in, int32_t& pc, size_t& position);
  bool execute_run_remembering(const RegexInstruction& in, int32_t& pc, size_t& position);
  bool look_ahead(int32_t pc, size_t position) const;
  bool backtrack(int32_t& pc, size_t& position);
  bool step_set(int32_t set, size_t& position) const;
  bool step_literal(const RegexInstruction& in, size_t& position) const;
  size_t run_end(int32_t set, size_t position, int64_t limit, int64_t& count) const;
  bool first_visit(int64_t state, size_t position);
  void forget_position(size_t position);

  const RegexProgram* program_;
  std::optional<PcreSearch> pcre_;  // does everything when it is there
  uint64_t steps_per_byte_;
  std::string_view subject_;
  std::vector<Frame> stack_;
  uint64_t steps_ = 0;
  uint64_t budget_ = 0;
  bool remembering_ = false;
  size_t forgotten_blocks_ = 0;
  std::vector<std::vector<uint64_t>> visited_;  // by position / kBlock, then bit (position % kBlock) * states + state
};

}  // namespace lathe
