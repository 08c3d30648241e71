#include "lathe/tokenizer/regex_pcre.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/regex_pcre_syntax.h"

namespace lathe {
namespace {

// An attempt at one position sees `window` bytes and may take `steps` steps of backtracking. A step costs up to the
// window (a run over white space is one step), so the product bounds the work. Attempts of the first size are free,
// which makes the work linear in the text; retries of an attempt that needed more are charged their product.
constexpr size_t kFirstWindow = 128;
constexpr uint32_t kFirstSteps = 128;
constexpr size_t kGrowth = 8;
constexpr uint32_t kMostSteps = 1U << 30;
constexpr uint64_t kBudget = uint64_t{1} << 36;
constexpr uint64_t kBudgetPerByte = uint64_t{1} << 16;

constexpr uint32_t kHeapLimitKib = 64 << 10;  // of the interpreter, for one attempt
constexpr size_t kJitStackBytes = 32 << 10, kMaxJitStackBytes = 1 << 20;
constexpr uint32_t kMaxGroupDepth = 128;

template <auto kFree>
struct Deleter {
  template <class T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};

using CodePointer = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>>;

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

CodePointer compile_code(const std::string& text, int& error, size_t& offset) {
  const CompileContext context(pcre2_compile_context_create(nullptr));
  if (context == nullptr) {
    error = PCRE2_ERROR_NOMEMORY;
    return nullptr;
  }
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_bsr(context.get(), PCRE2_BSR_UNICODE);
  pcre2_set_parens_nest_limit(context.get(), kMaxGroupDepth);
  // Anchored: the search tries each position itself, so that it knows what each one costs.
  constexpr uint32_t kOptions =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_UTF_CHECK;
  return CodePointer(pcre2_compile(units(text), text.size(), kOptions, &error, &offset, context.get()));
}

bool compiles(const std::string& text) {
  int error = 0;
  size_t offset = 0;
  return compile_code(text, error, offset) != nullptr;
}

std::string message(int error) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(error, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

size_t next_character(std::string_view text, size_t position) {
  do {
    ++position;
  } while (position < text.size() && is_utf8_continuation(text[position]));
  return position;
}

}  // namespace

struct PcreRegex::Code {
  CodePointer code;
  bool jit = false;
};

Result<PcreRegex> PcreRegex::compile(std::string_view pattern) {
  LATHE_TRY(const PcrePattern translated, translate_to_pcre(pattern, compiles));
  int error = 0;
  size_t offset = 0;
  auto code = std::make_shared<Code>();
  code->code = compile_code(translated.text, error, offset);
  if (code->code == nullptr) {
    return Error{Errc::kUnsupported, str("byte ", translated.origin(offset), ": ", message(error))};
  }
  // Fails where the system forbids making code; matching then falls back to the interpreter by itself.
  code->jit = pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD) == 0;
  PcreRegex out;
  out.code_ = std::move(code);
  return out;
}

bool PcreRegex::jit() const {
  return code_->jit;
}

struct PcreSearch::State {
  enum class Outcome { kMatch, kNone, kGaveUp };

  const pcre2_code* code = nullptr;
  MatchContext context;
  MatchData data;
  JitStack jit_stack;

  std::string_view subject;
  uint64_t budget = 0;
  size_t last_end = kNowhere;  // of the last match
  bool gave_up = false;

  static constexpr size_t kNowhere = std::numeric_limits<size_t>::max();

  Outcome match_at(size_t position, size_t& begin, size_t& end);
  int attempt(size_t position, size_t window, uint32_t steps);
  bool charge(size_t window, uint32_t steps);
};

// Matches in the next `window` bytes, or reports PCRE2_ERROR_PARTIAL when what follows them could make a difference.
int PcreSearch::State::attempt(size_t position, size_t window, uint32_t steps) {
  size_t size = subject.size();
  if (window < size - position) size = next_character(subject, position + window - 1);
  const uint32_t options = PCRE2_NO_UTF_CHECK | (size < subject.size() ? PCRE2_PARTIAL_HARD : 0);
  pcre2_set_match_limit(context.get(), steps);
  pcre2_set_depth_limit(context.get(), steps);
  return pcre2_match(code, units(subject), size, position, options, data.get(), context.get());
}

bool PcreSearch::State::charge(size_t window, uint32_t steps) {
  const uint64_t cost = uint64_t{window} * steps;
  if (cost > budget) return false;
  budget -= cost;
  return true;
}

PcreSearch::State::Outcome PcreSearch::State::match_at(size_t position, size_t& begin, size_t& end) {
  size_t window = kFirstWindow;
  uint32_t steps = kFirstSteps;
  for (;;) {
    const int result = attempt(position, window, steps);
    if (result >= 0) {
      const size_t* found = pcre2_get_ovector_pointer(data.get());
      begin = found[0];
      end = found[1];
      return begin >= position && begin <= end ? Outcome::kMatch : Outcome::kNone;  // \K in odd places
    }
    const size_t rest = subject.size() - position;
    if (result == PCRE2_ERROR_NOMATCH) return Outcome::kNone;
    if (result == PCRE2_ERROR_PARTIAL && window < rest) {
      window = window > rest / kGrowth ? rest : window * kGrowth;
    } else if ((result == PCRE2_ERROR_MATCHLIMIT || result == PCRE2_ERROR_DEPTHLIMIT) && steps < kMostSteps) {
      steps *= kGrowth;
    } else {
      return Outcome::kGaveUp;
    }
    if (!charge(std::min(window, rest), steps)) return Outcome::kGaveUp;
  }
}

PcreSearch::PcreSearch(const PcreRegex& regex) : state_(std::make_unique<State>()) {
  state_->code = regex.code().code.get();
  state_->context.reset(pcre2_match_context_create(nullptr));
  state_->data.reset(pcre2_match_data_create(1, nullptr));
  if (state_->context == nullptr) return;
  pcre2_set_heap_limit(state_->context.get(), kHeapLimitKib);
  if (!regex.jit()) return;
  state_->jit_stack.reset(pcre2_jit_stack_create(kJitStackBytes, kMaxJitStackBytes, nullptr));
  pcre2_jit_stack_assign(state_->context.get(), nullptr, state_->jit_stack.get());
}

PcreSearch::PcreSearch(PcreSearch&&) noexcept = default;
PcreSearch::~PcreSearch() = default;

void PcreSearch::reset(std::string_view subject) {
  state_->subject = subject;
  state_->budget = kBudget + kBudgetPerByte * subject.size();
  state_->last_end = State::kNowhere;
  state_->gave_up = state_->context == nullptr || state_->data == nullptr;  // no memory
}

bool PcreSearch::next(size_t from, size_t& begin, size_t& end) {
  State& s = *state_;
  for (size_t start = from; start < s.subject.size() && !s.gave_up; start = next_character(s.subject, start)) {
    const State::Outcome outcome = s.match_at(start, begin, end);
    s.gave_up = outcome == State::Outcome::kGaveUp;
    if (outcome != State::Outcome::kMatch || (begin == end && end == s.last_end)) continue;
    s.last_end = end;
    return true;
  }
  return false;
}

bool PcreSearch::gave_up() const {
  return state_->gave_up;
}

}  // namespace lathe
