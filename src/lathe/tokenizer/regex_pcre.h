// Patterns beyond the own engine's dialect (regex.h), matched by PCRE2: look-behind, \w, \b, back-references, POSIX
// classes, every script, look-ahead of any kind, and so on.
//
// Patterns are in Oniguruma's dialect, as tokenizer.json means them, and are rewritten where PCRE2 reads them another
// way (regex_pcre_syntax.h):
//   \s             the White_Space property, as in the own engine (PCRE2 adds U+180E)
//   \w \b \B       alphabetic characters, marks, decimal digits, connectors (and the ² ³ ¹ ¼ ½ ¾ of Latin-1)
//   \h \H \v       hexadecimal digits and the vertical tab (PCRE2: white space)
//   \uHHHH \O      a code point; any character. \x80 to \xff, single bytes, are refused
//   \p{Han}        the script itself (PCRE2: its extensions too); long names of categories, POSIX names, \p{^..}
//   [a[bc]&&[^b]]  nested classes and intersections
//   ^ $ .          lines end at \n only
//   (?m) (?i)      m lets . match \n; an option in the middle of a group reaches over its alternatives
//   a** a{2}+ a{2}? {,n}   repeat the repetition; no lower bound
// What stays different: (?i) uses PCRE2's simple case folding (no "ss" for sharp s), [:alpha:], [:punct:] and their
// kind are PCRE2's, look-behind must be of fixed length in each alternative, and Unicode is of the version PCRE2 was
// built with. (*VERBS), (?x), \Q..\E and absent groups are refused.
//
// Time is bounded whatever pattern and text are: an attempt first sees little of the text and few steps; only when it
// asks for more it gets more, which is charged against a budget that grows with the text (see regex_pcre.cpp). When the
// budget is spent, or a limit of PCRE2 itself (heap, JIT stack) is met, nothing more is found in that text. The same
// text gives the same matches every time; across builds of PCRE2, and with and without its JIT compiler, that holds for
// texts within the budget.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "lathe/base/result.h"

namespace lathe {

// A compiled pattern; immutable, to be shared between threads.
class PcreRegex {
 public:
  struct Code;  // of PCRE2

  // `pattern` must be valid UTF-8. Errors: `byte <offset>: <PCRE2's message>` (kUnsupported).
  static Result<PcreRegex> compile(std::string_view pattern);
  // Whether matching runs as machine code; the interpreter does the same more slowly.
  bool jit() const;

  const Code& code() const { return *code_; }

 private:
  std::shared_ptr<const Code> code_;
};

// Finds one match after the other. Not thread safe; the regex may be shared and must outlive the search.
class PcreSearch {
 public:
  explicit PcreSearch(const PcreRegex& regex);
  PcreSearch(PcreSearch&&) noexcept;
  ~PcreSearch();

  // Starts a new subject. It must be valid UTF-8 and outlive the search.
  void reset(std::string_view subject);
  // As RegexSearch::next, but matches may be empty: nowhere right after the last match, and not at the subject's end.
  bool next(size_t from, size_t& begin, size_t& end);
  // Whether next() returned false because the subject was too much for its limits.
  bool gave_up() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe
