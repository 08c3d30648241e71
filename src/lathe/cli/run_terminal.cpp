#include "lathe/cli/run_terminal.h"

#include <histedit.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <memory>
#include <utility>

#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/cli/common.h"
#include "lathe/cli/run_history.h"
#include "lathe/cli/run_message.h"
#include "lathe/cli/terminal.h"

namespace lathe::cli {
namespace {

std::wstring widened(std::string_view text) {
  std::wstring out;
  for (size_t at = 0; at < text.size();) out += static_cast<wchar_t>(decode_utf8(text, at));
  return out;
}

std::string narrowed(std::wstring_view text) {
  std::string out;
  for (const wchar_t c : text) append_utf8(out, static_cast<char32_t>(c));
  return out;
}

enum class Typed { kLine, kInterrupted, kEnd };

// One line at a time from libedit. Its own reading of characters and handling of signals are replaced: it would
// continue after a signal, or pass it on to the whole process group.
class LineEditor {
 public:
  static Result<std::unique_ptr<LineEditor>> create(std::FILE* out, const std::vector<std::string>& history);
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  ~LineEditor() {
    if (edit_ != nullptr) el_end(edit_);
    if (history_ != nullptr) history_wend(history_);
  }

  // `line` without its line break. kInterrupted: a signal was caught; the line is lost.
  Typed read(const std::wstring& prompt, std::string& line);
  // Makes the line available to the arrow keys.
  void remember(const std::string& line);

 private:
  LineEditor() = default;
  static int read_character(EditLine* edit, wchar_t* out);
  static wchar_t* give_prompt(EditLine* edit);
  static LineEditor& of(EditLine* edit);
  bool wait_for_input();
  void follow_size();

  EditLine* edit_ = nullptr;
  HistoryW* history_ = nullptr;
  std::wstring prompt_;
  bool interrupted_ = false;
  std::pair<int, int> size_{0, 0};  // columns, rows
};

std::pair<int, int> terminal_size() {
  struct winsize size {};

  if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0) return {0, 0};
  return {size.ws_col, size.ws_row};
}

Result<std::unique_ptr<LineEditor>> LineEditor::create(std::FILE* out, const std::vector<std::string>& history) {
  std::unique_ptr<LineEditor> editor(new LineEditor());
  // What a terminal shows and sends is UTF-8, whatever the locale is called.
  if (std::setlocale(LC_CTYPE, "C.UTF-8") == nullptr) {  // NOLINT(concurrency-mt-unsafe): no other thread looks at it
    log_debug("locale C.UTF-8 is not there: only ASCII can be edited");
  }
  editor->history_ = history_winit();
  editor->edit_ = el_init("lathe", stdin, out, stderr);
  if (editor->history_ == nullptr || editor->edit_ == nullptr) {
    return Error{Errc::kIo, "terminal: the line editor cannot start"};
  }
  EditLine* edit = editor->edit_;
  el_wset(edit, EL_CLIENTDATA, editor.get());
  el_wset(edit, EL_SIGNAL, 0);
  el_wset(edit, EL_GETCFN, &LineEditor::read_character);
  el_wset(edit, EL_PROMPT, &LineEditor::give_prompt);
  el_wset(edit, EL_EDITOR, L"emacs");
  const std::array<std::pair<const char*, const char*>, 6> keys{{
      {"^R", "em-inc-search-prev"},
      {"^W", "ed-delete-prev-word"},
      {"\\e[3~", "ed-delete-next-char"},
      {"\\e[1~", "ed-move-to-beg"},
      {"\\e[4~", "ed-move-to-end"},
      {"\\e[H", "ed-move-to-beg"},
  }};
  for (const auto& [key, action] : keys) el_set(edit, EL_BIND, key, action, nullptr);
  HistEventW event;
  history_w(editor->history_, &event, H_SETSIZE, static_cast<int>(kHistoryLines));
  el_wset(edit, EL_HIST, history_w, editor->history_);
  for (const std::string& line : history) editor->remember(line);
  editor->size_ = terminal_size();
  return editor;
}

LineEditor& LineEditor::of(EditLine* edit) {
  void* self = nullptr;
  el_wget(edit, EL_CLIENTDATA, &self);
  return *static_cast<LineEditor*>(self);
}

wchar_t* LineEditor::give_prompt(EditLine* edit) {
  return of(edit).prompt_.data();
}

void LineEditor::follow_size() {
  const std::pair<int, int> now = terminal_size();
  if (now == size_) return;
  size_ = now;
  el_resize(edit_);
}

// False when a signal was caught. Looks now and then, so that neither a signal between the look and the wait nor a
// change of the window's size is missed for long.
bool LineEditor::wait_for_input() {
  constexpr int kLookEveryMs = 200;
  while (true) {
    if (SignalScope::caught() != 0) return false;
    follow_size();

    struct pollfd wait {
      .fd = STDIN_FILENO, .events = POLLIN, .revents = 0
    };

    const int ready = ::poll(&wait, 1, kLookEveryMs);
    if (ready > 0) return true;
    if (ready < 0 && errno == EINTR && SignalScope::caught() == 0) {
      // Most likely the program was stopped (Ctrl-Z) and continues: the shell has changed the terminal's mode.
      el_wset(edit_, EL_PREP_TERM, 1);
      el_wset(edit_, EL_REFRESH);
    }
  }
}

// 1 for a character, 0 at the end of the input, -1 to give up the line.
int LineEditor::read_character(EditLine* edit, wchar_t* out) {
  LineEditor& self = of(edit);
  std::string bytes;
  while (true) {
    if (!self.wait_for_input()) {
      self.interrupted_ = true;
      return -1;
    }
    char byte = 0;
    const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return 0;  // the terminal is gone
    bytes += byte;
    const auto lead = static_cast<unsigned char>(bytes.front());
    const size_t wanted = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (bytes.size() < wanted) continue;
    size_t at = 0;
    *out = static_cast<wchar_t>(decode_utf8(bytes, at));
    return 1;
  }
}

Typed LineEditor::read(const std::wstring& prompt, std::string& line) {
  prompt_ = prompt;
  interrupted_ = false;
  // Before the prompt shows: what is typed at once must already be the editor's.
  el_wset(edit_, EL_PREP_TERM, 1);
  int count = 0;
  const wchar_t* text = el_wgets(edit_, &count);
  if (interrupted_) {
    el_reset(edit_);
    return Typed::kInterrupted;
  }
  if (text == nullptr || count <= 0) return Typed::kEnd;
  line = narrowed(std::wstring_view(text, static_cast<size_t>(count)));
  while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
  return Typed::kLine;
}

void LineEditor::remember(const std::string& line) {
  HistEventW event;
  history_w(history_, &event, H_ENTER, widened(line).c_str());
}

// The loop of prompts and answers.
class Dialogue {
 public:
  Dialogue(RunSession& session, const TerminalOptions& options)
      : session_(session),
        options_(options),
        answers_to_terminal_(is_terminal(STDOUT_FILENO)),
        styled_(can_style(STDERR_FILENO)) {}

  int run();

 private:
  // False ends the dialogue with exit_code_.
  bool take(const std::string& text);
  bool answer(const std::string& text);
  Status show(std::string_view text) const;
  void note(std::string_view text) const;
  void keep_history(std::vector<std::string>& lines);

  RunSession& session_;
  const TerminalOptions& options_;
  const bool answers_to_terminal_;
  const bool styled_;
  bool history_works_ = true;
  int exit_code_ = kExitOk;
};

void Dialogue::note(std::string_view text) const {
  (void)write_all(STDERR_FILENO, dim(neutralised(text), styled_) + "\n", "stderr");
}

// The model's words are not trusted with the terminal; a file gets them as they are.
Status Dialogue::show(std::string_view text) const {
  return answers_to_terminal_ ? write_stdout(neutralised(text)) : write_stdout(text);
}

void Dialogue::keep_history(std::vector<std::string>& lines) {
  const std::vector<std::string> typed = std::exchange(lines, {});
  if (!history_works_) return;
  const Status kept = append_history(options_.history, typed);
  if (kept) return;
  history_works_ = false;  // said once
  log_warning("history: ", kept.error().message);
}

bool Dialogue::answer(const std::string& text) {
  Status shown;
  const Result<Completion> completion = session_.answer(text, [&](std::string_view piece) {
    if (!piece.empty()) shown = show(piece);
    return shown.has_value();
  });
  if (shown) shown = show("\n");
  if (!shown) {
    exit_code_ = report(shown.error());
    return false;
  }
  if (SignalScope::caught() == SIGTERM) {
    exit_code_ = SignalScope::exit_code();
    return false;
  }
  SignalScope::reset();
  if (!completion) {
    log_error(completion.error().message, "; /clear starts anew");
    return true;
  }
  if (completion->finish_reason == FinishReason::kCancelled) note("[stopped]");
  if (session_.is_full(*completion)) note("[the context is full: stopped here; /clear starts anew]");
  if (!options_.quiet && completion->prefill_s > 0.0) note(str("[", describe_speed(*completion), "]"));
  return true;
}

bool Dialogue::take(const std::string& text) {
  if (text.starts_with('/') && text.find('\n') == std::string::npos) {
    const Result<std::string> reply = session_.command(text);
    if (!reply) {
      log_error(reply.error().message);
    } else if (!reply->empty()) {
      note(*reply);
    }
    return !session_.ended();
  }
  if (text.find_first_not_of(" \t\n") == std::string::npos && !session_.can_continue()) return true;
  return answer(text);
}

int Dialogue::run() {
  const Result<std::vector<std::string>> history = read_history(options_.history);
  if (!history) {
    history_works_ = false;
    log_warning("history: ", history.error().message);
  }
  std::FILE* out = answers_to_terminal_ ? stdout : stderr;
  Result<std::unique_ptr<LineEditor>> editor = LineEditor::create(out, history ? *history : std::vector<std::string>());
  if (!editor) return report(editor.error());
  if (!options_.quiet) {
    note(session_.is_chat() ? "A message for the model; /help lists commands, Ctrl-D ends."
                            : "A text for the model to continue; /help lists commands, Ctrl-D ends.");
  }
  MessageReader message;
  std::vector<std::string> lines;
  while (true) {
    std::string line;
    const Typed typed = (*editor)->read(message.pending() ? L"... " : L"> ", line);
    if (typed == Typed::kInterrupted) {
      (void)write_all(::fileno(out), "\n", "terminal");
      if (SignalScope::caught() == SIGTERM) return SignalScope::exit_code();
      SignalScope::reset();
      message.reset();
      lines.clear();
      continue;
    }
    if (typed == Typed::kEnd) {
      (void)write_all(::fileno(out), "\n", "terminal");
      return kExitOk;
    }
    (*editor)->remember(line);
    lines.push_back(line);
    const std::optional<std::string> text = message.push(line);
    if (!text) continue;
    keep_history(lines);
    if (!take(*text)) return exit_code_;
  }
}

}  // namespace

int run_in_terminal(RunSession& session, const TerminalOptions& options) {
  return Dialogue(session, options).run();
}

}  // namespace lathe::cli
