// Execution of regex programs: see regex.h.
#include <cstring>

#include "lathe/base/utf8.h"
#include "lathe/tokenizer/regex.h"

namespace lathe {
namespace {

using Op = RegexInstruction::Op;

// The code point at `position` of valid UTF-8 and its size.
inline char32_t code_point_at(std::string_view text, size_t position, size_t& size) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[position + i])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) {
    size = 1;
    return lead;
  }
  if (lead < 0xE0) {
    size = 2;
    return (lead & 0x1F) << 6 | (byte(1) & 0x3F);
  }
  if (lead < 0xF0) {
    size = 3;
    return (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  }
  size = 4;
  return (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
}

}  // namespace

void RegexSearch::reset(std::string_view subject) {
  if (pcre_) return pcre_->reset(subject);
  subject_ = subject;
  stack_.clear();
  steps_ = 0;
  budget_ = steps_per_byte_ * (static_cast<uint64_t>(subject.size()) + 64);
  if (remembering_) visited_.clear();
  remembering_ = false;
  forgotten_blocks_ = 0;
}

bool RegexSearch::next_own(size_t from, size_t& begin, size_t& end) {
  if (remembering_) {
    for (; forgotten_blocks_ < from / kBlock; ++forgotten_blocks_) visited_[forgotten_blocks_] = {};
  }
  const size_t size = subject_.size();
  for (size_t start = from; start < size; ++start) {
    if (!program_->first[static_cast<unsigned char>(subject_[start])]) continue;
    size_t stop = match_at(start);
    if (stop == kOverBudget) {
      remembering_ = true;
      visited_.assign(size / kBlock + 1, {});
      forgotten_blocks_ = 0;
      stop = match_at(start);
    }
    if (stop == kFail) continue;
    begin = start;
    end = stop;
    // States at `end` may lie on the path that succeeded; all others beyond it have failed and stay known as such.
    if (remembering_) forget_position(end);
    return true;
  }
  return false;
}

size_t RegexSearch::match_at(size_t position) {
  const std::vector<RegexInstruction>& code = program_->code;
  stack_.clear();
  int32_t pc = 0;
  for (;;) {
    const RegexInstruction& in = code[static_cast<size_t>(pc)];
    bool ok = true;
    if (remembering_) {
      if (in.slot >= 0 && !first_visit(2 * int64_t{in.slot}, position)) {
        if (!backtrack(pc, position)) return kFail;
        continue;
      }
    } else if (++steps_ > budget_) {
      return kOverBudget;
    }
    switch (in.op) {
      case Op::kMatch:
        return position;
      case Op::kLiteral:
        ok = step_literal(in, position);
        ++pc;
        break;
      case Op::kSet:
        ok = step_set(in.set, position);
        ++pc;
        break;
      case Op::kRun:
        ok = remembering_ && in.max == RegexInstruction::kUnlimited ? execute_run_remembering(in, pc, position)
                                                                    : execute_run(in, pc, position);
        break;
      case Op::kSplit:
        if (in.first >= 0 &&
            (position >= subject_.size() ||
             !program_->first_bytes[static_cast<size_t>(in.first)][static_cast<unsigned char>(subject_[position])])) {
          pc = in.target;
        } else {
          stack_.push_back({in.target, position, position});
          ++pc;
        }
        break;
      case Op::kSplitLazy:
        stack_.push_back({pc + 1, position, position});
        pc = in.target;
        break;
      case Op::kJump:
        pc = in.target;
        break;
      case Op::kLineStart:
        ok = position == 0 || (position < subject_.size() && subject_[position - 1] == '\n');
        ++pc;
        break;
      case Op::kLineEnd:
        ok = position == subject_.size() || subject_[position] == '\n';
        ++pc;
        break;
      case Op::kLookAhead:
        ok = look_ahead(pc + 1, position) != in.negative;
        pc = in.target;
        break;
    }
    if (!ok && !backtrack(pc, position)) return kFail;
  }
}

bool RegexSearch::execute_run(const RegexInstruction& in, int32_t& pc, size_t& position) {
  int64_t count = 0;
  const size_t start = position;
  const size_t end =
      run_end(in.set, start, in.max == RegexInstruction::kUnlimited ? INT64_MAX : int64_t{in.max}, count);
  if (!remembering_) steps_ += static_cast<uint64_t>(count);
  if (count < in.min) return false;
  position = end;
  ++pc;
  if (in.possessive || count == in.min) return true;
  int64_t needed = 0;
  const size_t low = in.min == 0 ? start : run_end(in.set, start, in.min, needed);
  stack_.push_back({pc, low, end});
  return true;
}

// The loop taken one code point at a time, each position a state of its own: what a run tried from here once is not
// tried again from another start in the same run.
bool RegexSearch::execute_run_remembering(const RegexInstruction& in, int32_t& pc, size_t& position) {
  for (int32_t i = 0; i < in.min; ++i) {
    if (!step_set(in.set, position)) return false;
  }
  for (;;) {
    if (!first_visit(2 * int64_t{in.slot} + 1, position)) return false;
    const size_t before = position;
    if (!step_set(in.set, position)) break;
    if (!in.possessive) stack_.push_back({pc + 1, before, before});
  }
  ++pc;
  return true;
}

// Bodies are alternatives of fixed sequences: no state to remember, work bounded by the size of the body.
bool RegexSearch::look_ahead(int32_t pc, size_t position) const {
  const size_t start = position;
  int32_t other = -1;  // the alternative to take when this one fails
  for (;;) {
    const RegexInstruction& in = program_->code[static_cast<size_t>(pc)];
    bool ok = true;
    switch (in.op) {
      case Op::kLiteral:
        ok = step_literal(in, position);
        break;
      case Op::kSet:
        ok = step_set(in.set, position);
        break;
      case Op::kLineStart:
        ok = position == 0 || (position < subject_.size() && subject_[position - 1] == '\n');
        break;
      case Op::kLineEnd:
        ok = position == subject_.size() || subject_[position] == '\n';
        break;
      case Op::kSplit:
        other = in.target;
        break;
      default:
        return true;  // kMatch, or the jump to it
    }
    ++pc;
    if (ok) continue;
    if (other < 0) return false;
    pc = other;
    other = -1;
    position = start;
  }
}

bool RegexSearch::backtrack(int32_t& pc, size_t& position) {
  if (stack_.empty()) return false;
  Frame& frame = stack_.back();
  pc = frame.pc;
  position = frame.position;
  if (frame.low < frame.position) {
    do {
      --position;
    } while (is_utf8_continuation(subject_[position]));
    frame.position = position;
  }
  if (frame.low >= frame.position) stack_.pop_back();
  return true;
}

bool RegexSearch::step_set(int32_t set, size_t& position) const {
  if (position >= subject_.size()) return false;
  size_t size = 0;
  if (!program_->sets[static_cast<size_t>(set)].contains(code_point_at(subject_, position, size))) return false;
  position += size;
  return true;
}

bool RegexSearch::step_literal(const RegexInstruction& in, size_t& position) const {
  if (subject_.size() - position < in.literal_size) return false;
  if (std::memcmp(subject_.data() + position, in.literal.data(), in.literal_size) != 0) return false;
  position += in.literal_size;
  return true;
}

size_t RegexSearch::run_end(int32_t set_index, size_t position, int64_t limit, int64_t& count) const {
  const unicode::CodePointSet& set = program_->sets[static_cast<size_t>(set_index)];
  const size_t size = subject_.size();
  int64_t n = 0;
  while (n < limit && position < size) {
    const unsigned char byte = static_cast<unsigned char>(subject_[position]);
    if (byte < 0x80) {
      if (!set.contains_ascii(byte)) break;
      ++position;
    } else {
      size_t bytes = 0;
      if (!set.contains(code_point_at(subject_, position, bytes))) break;
      position += bytes;
    }
    ++n;
  }
  count = n;
  return position;
}

bool RegexSearch::first_visit(int64_t state, size_t position) {
  const size_t states = 2 * static_cast<size_t>(program_->slots);
  std::vector<uint64_t>& block = visited_[position / kBlock];
  if (block.empty()) block.resize(kBlock * states / 64);
  const size_t bit = (position % kBlock) * states + static_cast<size_t>(state);
  uint64_t& word = block[bit / 64];
  const uint64_t mask = uint64_t{1} << (bit % 64);
  if ((word & mask) != 0) return false;
  word |= mask;
  return true;
}

void RegexSearch::forget_position(size_t position) {
  std::vector<uint64_t>& block = visited_[position / kBlock];
  if (block.empty()) return;
  const size_t states = 2 * static_cast<size_t>(program_->slots);
  for (size_t bit = (position % kBlock) * states, end = bit + states; bit < end; ++bit) {
    block[bit / 64] &= ~(uint64_t{1} << (bit % 64));
  }
}

}  // namespace lathe
