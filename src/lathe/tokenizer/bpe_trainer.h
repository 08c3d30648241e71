// Learns a byte-level BPE vocabulary from text and writes it as HuggingFace's tokenizer.json. The pair that occurs most
// often is merged, of equal ones that with the lowest ids: the result depends on the text alone.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"

namespace lathe {

// How text is cut into the words that merges stay inside.
enum class SplitPattern {
  kGpt2,      // ByteLevel's own
  kDeepseek,  // DeepSeek's later one without its parts for Chinese: numbers in groups of at most three digits
};

struct BpeTrainerOptions {
  int64_t vocab_size = 4096;  // all tokens: special ones, 256 bytes, merges
  int64_t min_frequency = 2;  // of a pair that is merged
  SplitPattern pattern = SplitPattern::kDeepseek;
  std::string bos = "<｜begin▁of▁sentence｜>";  // id 0
  std::string eos = "<｜end▁of▁sentence｜>";    // id 1
  int64_t max_length = 2048;                    // model_max_length of tokenizer_config.json
  // Different words that are counted; beyond it those that came once are forgotten, so that memory stays bounded.
  int64_t max_words = int64_t{1} << 23;
};

// The files of a tokenizer folder.
struct TrainedTokenizer {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
  int64_t vocab_size = 0;  // smaller than asked for when the text has no more pairs
};

// One per vocabulary; not thread safe.
class BpeTrainer {
 public:
  // kInvalidArgument when vocab_size leaves no room for the bytes and special tokens.
  static Result<BpeTrainer> create(const BpeTrainerOptions& options);
  BpeTrainer(BpeTrainer&&) noexcept;
  BpeTrainer& operator=(BpeTrainer&&) noexcept;
  ~BpeTrainer();

  // Counts the words of a text (valid UTF-8).
  void add(std::string_view text);

  // Different words so far.
  int64_t words() const;

  // Learns the merges from what was added. Time grows with the words that a merge changes, not with the text.
  TrainedTokenizer train() const;

 private:
  BpeTrainer();

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe
