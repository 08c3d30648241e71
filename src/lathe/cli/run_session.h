// RunSession: the conversation of `lathe run` without its terminal: what was said, the settings, and the commands that
// change them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/cli/answer_format.h"
#include "lathe/cli/options.h"
#include "lathe/runtime/engine.h"
#include "lathe/tokenizer/chat_template.h"

namespace lathe::cli {

class RunSession {
 public:
  // Fails when the model has no tokenizer, a template or a schema does not compile, a setting is out of range, or a
  // system message is given for a model without chat template. `engine` is borrowed and must outlive the session.
  static Result<std::unique_ptr<RunSession>> create(Engine& engine, const RunOptions& options);

  // Whether there is a chat template, so that texts are turns of a conversation; otherwise they are text to continue.
  bool is_chat() const { return chat_template_.has_value(); }

  // Whether answers are JSON.
  bool is_json() const { return !format_.is_any_text(); }

  // Answers `text` as the next turn, or continues what was written so far and then `text`. `show` receives the answer
  // piece by piece; false ends it. A signal (SignalScope) ends it too, with kCancelled and what was made until then.
  // On failure the conversation is as it was.
  Result<Completion> answer(const std::string& text, const std::function<bool(std::string_view)>& show);

  // Whether an empty text is a turn: a model without chat template was stopped before its text ended.
  bool can_continue() const { return !is_chat() && !written_.empty(); }

  // Whether the answer ended because the context is full.
  bool is_full(const Completion& completion) const;

  // A command that begins with "/": what to print, lines separated by line feeds, or an error with what was expected.
  Result<std::string> command(std::string_view line);

  // Whether a command asked to end.
  bool ended() const { return ended_; }

 private:
  RunSession(Engine& engine, const RunOptions& options) : engine_(engine), options_(options) {}

  Result<std::vector<int32_t>> prompt_ids(const std::string& text) const;
  void remember(const std::string& text, const std::vector<int32_t>& prompt, const Completion& completion);
  Result<std::string> set(std::string_view arguments);
  Result<std::string> set_system(std::string_view text);
  std::string settings() const;
  std::string statistics() const;
  void clear();

  Engine& engine_;
  RunOptions options_;
  SamplingParams sampling_;
  AnswerFormat format_;
  std::optional<ChatTemplate> chat_template_;
  Json::Array messages_;          // the turns of a chat, without the system message
  std::vector<int32_t> written_;  // the text so far of a model without chat template
  uint64_t turn_ = 0;             // added to the seed, so that turns differ and a session repeats
  int64_t context_used_ = 0;      // tokens of the last prompt and answer
  std::optional<std::string> last_speed_;
  bool ended_ = false;
};

}  // namespace lathe::cli
