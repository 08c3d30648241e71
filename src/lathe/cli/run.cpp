// lathe run: a chat or the continuation of text, on a terminal or once.
#include <unistd.h>

#include "lathe/base/env.h"
#include "lathe/base/file.h"
#include "lathe/base/str.h"
#include "lathe/cli/common.h"
#include "lathe/cli/run_session.h"
#include "lathe/cli/run_terminal.h"
#include "lathe/cli/terminal.h"

namespace lathe::cli {
namespace {

// What a model that only continues text begins with when it is given nothing.
constexpr std::string_view kStoryBeginning = "Once upon a time";

// All of stdin as a prompt; the line break that ends it is not part of it.
Result<std::string> piped_prompt() {
  LATHE_TRY(std::string text, read_stdin());
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

// The prompt of a run that is no dialogue. Nothing given: the beginning of a story.
Result<std::string> prompt_of(const RunOptions& options, const std::optional<std::string>& piped, bool is_chat) {
  if (options.prompt) return *options.prompt;
  if (piped && !piped->empty()) return *piped;
  if (!is_chat) return std::string(kStoryBeginning);
  return Error{Errc::kInvalidArgument, "run: expected -p TEXT, text on stdin or a terminal, found an empty stdin"};
}

// Writes one answer to stdout as it is made, ended by a line feed. Text that is continued is written before it, but for
// JSON, which is whole by itself.
Result<Completion> answer_once(RunSession& session, const std::string& prompt) {
  const bool to_terminal = is_terminal(STDOUT_FILENO);
  const auto show = [to_terminal](std::string_view text) {
    return to_terminal ? write_stdout(neutralised(text)) : write_stdout(text);
  };
  Status shown;
  if (!session.is_chat() && !session.is_json()) shown = show(prompt);
  LATHE_TRY(std::move(shown));
  shown = {};
  LATHE_TRY(Completion completion, session.answer(prompt, [&](std::string_view text) {
    if (!text.empty()) shown = show(text);
    return shown.has_value();
  }));
  LATHE_TRY(std::move(shown));
  LATHE_TRY(write_stdout("\n"));
  return completion;
}

int run_once(RunSession& session, const RunOptions& options, const std::optional<std::string>& piped) {
  const Result<std::string> prompt = prompt_of(options, piped, session.is_chat());
  if (!prompt) return report(prompt.error());
  const Result<Completion> completion = answer_once(session, *prompt);
  if (!completion) return report(completion.error());
  const auto note = [&](std::string_view text) {
    (void)write_all(STDERR_FILENO, dim(text, can_style(STDERR_FILENO)) + "\n", "stderr");
  };
  if (SignalScope::caught() != 0) return SignalScope::exit_code();
  if (options.engine.quiet) return kExitOk;
  if (session.is_full(*completion)) note("[the context is full: stopped here]");
  note(str("[", describe_speed(*completion), "]"));
  return kExitOk;
}

}  // namespace

int run_run(const RunOptions& options) {
  const bool dialogue = !options.prompt && is_terminal(STDIN_FILENO);
  std::optional<std::string> piped;
  if (!options.prompt && !dialogue) {
    Result<std::string> text = piped_prompt();
    if (!text) return report(text.error());
    piped = *std::move(text);
  }
  const Result<std::unique_ptr<Engine>> engine = open_engine(options.engine);
  if (!engine) return report(engine.error());
  // From here on a signal ends an answer; before, it ends the program.
  const SignalScope signals;
  const Result<std::unique_ptr<RunSession>> session = RunSession::create(**engine, options);
  if (!session) return report(session.error());
  if (!dialogue) return run_once(**session, options, piped);
  return run_in_terminal(**session, {.history = lathe_state_directory() / "history", .quiet = options.engine.quiet});
}

}  // namespace lathe::cli
