// The pre_tokenizer of tokenizer.json: cuts text into the pieces that byte-pair merging works on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/tokenizer/regex.h"

namespace lathe {

class Pretokenizer {
 public:
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

  struct Stage {
    Regex regex;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;        // what matches is a gap and the other way round
    bool prefix_space = false;  // before the stage, a space goes in front of a piece that does not begin with one
  };

  // From the value of "pre_tokenizer": ByteLevel, or a Sequence of Split, Digits and, last, ByteLevel.
  // Errors: `pre_tokenizer: unsupported type "Metaspace"`.
  static Result<Pretokenizer> parse(const Json& json);

  const std::vector<Stage>& stages() const { return stages_; }

  bool prefix_space() const { return prefix_space_; }

  // Whether no stage from `stage` on can do anything to a piece of one byte.
  bool keeps_single_bytes(size_t stage) const { return stage >= isolating_from_; }

 private:
  Status add_stage(const Json& json, const std::string& where, int depth);
  Status add_split(const Json& json, const std::string& where);
  Status add_byte_level(const Json& json, const std::string& where);

  std::vector<Stage> stages_;
  bool byte_level_ = false;
  bool prefix_space_ = false;  // of a ByteLevel without a regex, after all stages
  size_t isolating_from_ = 0;
};

// Receives the pieces of a text in order.
class PieceSink {
 public:
  virtual ~PieceSink() = default;
  // `piece` is valid during the call only.
  virtual void piece(std::string_view piece) = 0;
};

// Runs a pre-tokenizer; one per thread.
class PretokenizerRun {
 public:
  explicit PretokenizerRun(const Pretokenizer& pretokenizer);

  // Hands the pieces of `text` (valid UTF-8) to `sink`, in order; no piece is empty.
  void split(std::string_view text, PieceSink& sink) { run_stage(0, text, sink); }

 private:
  struct Segment {
    size_t begin;
    size_t end;
    bool match;
  };

  void run_stage(size_t index, std::string_view piece, PieceSink& sink);
  void merge_segments(size_t index, std::string_view piece, PieceSink& sink);

  const Pretokenizer* pretokenizer_;
  std::vector<RegexSearch> searches_;  // one per stage
  std::string prefixed_;               // a piece with its prefix space; only the last stage needs one
};

}  // namespace lathe
