// The prompt of `lathe run` on a terminal.
#pragma once

#include <filesystem>

#include "lathe/cli/run_session.h"

namespace lathe::cli {

struct TerminalOptions {
  std::filesystem::path history;  // file of run_history.h
  bool quiet = false;             // no greeting and no speeds
};

// Reads messages from stdin, a terminal, with a line editor and answers them until /exit, Ctrl-D or SIGTERM. Ctrl-C
// stops an answer or clears the line. Answers go to stdout, prompt and everything else to stderr where stdout is not a
// terminal. A SignalScope must be in force. Returns the exit code.
int run_in_terminal(RunSession& session, const TerminalOptions& options);

}  // namespace lathe::cli
