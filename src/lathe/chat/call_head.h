// The head of a tool call: everything from its first marker to where its arguments begin.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "lathe/chat/chat_format.h"

namespace lathe {

enum class TextMatch {
  kNo,
  kPartial,  // with more text it may become one
  kYes,
};

struct CallHead {
  std::string name;
  size_t bytes = 0;  // of the text that it takes
};

// The markers that a call, or a list of calls, may begin with: the vocabulary's, and misspellings of the list's that
// DeepSeek's models are known for.
std::span<const std::string_view> call_openers();

// Whether `text`, which begins with one of call_openers(), is the head of a call. `out` is set with kYes. Never
// kPartial for a text of more than a few hundred bytes.
TextMatch match_call_head(ToolFormat format, std::string_view text, CallHead& out);

}  // namespace lathe
