// TextStream: token ids in, user-visible text out: whole characters only, and nothing that may turn out to be the
// beginning of a stop string.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

class TextStream {
 public:
  // `tokenizer` may be null (a model without one): the text stays empty. Special tokens have no text, but for those of
  // `visible_special`. A stop string counts only when it ends behind the first `min_tokens` tokens.
  TextStream(const Tokenizer* tokenizer,
             std::vector<std::string> stop,
             std::vector<int32_t> visible_special = {},
             int64_t min_tokens = 0);

  // Text that became certain with this token. After it, stopped() tells whether a stop string was completed; text from
  // it on is dropped.
  std::string push(int32_t id);
  // The rest at the end of the output.
  std::string finish();

  bool stopped() const { return stopped_; }

 private:
  std::string release(bool at_end);

  bool is_hidden(int32_t id) const;

  const Tokenizer* tokenizer_;
  std::vector<StreamDecoder> decoder_;  // none or one
  std::vector<int32_t> visible_special_;
  std::vector<std::string> stop_;
  std::string pending_;  // decoded, not yet released
  int64_t min_tokens_;
  int64_t tokens_ = 0;  // pushed
  size_t immune_ = 0;   // bytes of `pending_` in which no stop string may end
  bool stopped_ = false;
};

}  // namespace lathe
