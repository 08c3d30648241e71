// Chat templates: the Jinja subset that published templates use, in an interpreter with hard limits (data never runs:
// no attributes of the host, no input or output, bounded steps, output and depth), with DeepSeek's own forms as
// fallback.
#pragma once

#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"

namespace lathe {

struct TemplateLimits {
  int64_t max_steps = 1'000'000;
  int64_t max_output_bytes = 4 << 20;
  int max_depth = 64;
};

// A piece of a rendered prompt. Text that came out of message contents (user, system, tool text, ...) is `literal`: it
// is encoded with AddedTokens::kText, so that nobody forges a turn. Text of the template itself is not.
struct RenderedPiece {
  std::string text;
  bool literal = false;
};

// Bytes [begin, end) of the content of one of the messages that are this program's words, not somebody's: special
// tokens in them are tokens.
struct TrustedText {
  size_t message = 0;  // its index
  size_t begin = 0;
  size_t end = 0;

  friend bool operator==(const TrustedText&, const TrustedText&) = default;
};

class ChatTemplate {
 public:
  // Compiles Jinja source (trim_blocks and lstrip_blocks on, as transformers does). Errors: `line 3: ...`.
  static Result<ChatTemplate> compile(std::string_view source, const TemplateLimits& limits = {});
  // One of the built-in forms: "v2", "v3" (see spec checkpoints.md section 4).
  static Result<ChatTemplate> builtin(std::string_view name);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // What it was compiled from.
  const std::string& source() const;

  // What strftime_now() reads; the local time unless set. Not to be called while another thread renders.
  void set_clock(std::function<std::tm()> clock);

  // `variables` is an object: messages, add_generation_prompt, bos_token, eos_token, tools, thinking, ... Every string
  // in it is tracked through concatenation, slicing and filters, and comes out as literal pieces (adjacent pieces of
  // one kind are merged); only variables whose name ends in `_token`, messages with the role "assistant", which are the
  // model's own words, and `trusted` are trusted. Errors of the template begin with their line; raise_exception('text')
  // becomes an error with just that text. Thread safe.
  Result<std::vector<RenderedPiece>> render_pieces(const Json& variables,
                                                   std::span<const TrustedText> trusted = {}) const;
  // The same, joined.
  Result<std::string> render(const Json& variables) const;

 private:
  ChatTemplate();
  struct State;
  std::unique_ptr<State> state_;
};

// Which built-in form a model without chat_template gets: by the special tokens its vocabulary has.
std::string_view builtin_template_for(bool has_user_and_assistant_tokens);

}  // namespace lathe
