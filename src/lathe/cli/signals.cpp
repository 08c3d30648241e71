// SIGINT and SIGTERM as a flag that loops look at.
#include <csignal>

#include "lathe/cli/common.h"

namespace lathe::cli {

namespace {

// A signal handler can reach nothing but statics.
volatile std::sig_atomic_t caught_signal = 0;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

extern "C" void remember_signal(int signal) {
  caught_signal = signal;
}

void install(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  (void)sigemptyset(&action.sa_mask);
  // No SA_RESTART: a blocking read returns, so that the loop sees the flag.
  (void)sigaction(SIGINT, &action, nullptr);
  (void)sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

SignalScope::SignalScope() {
  reset();
  install(remember_signal);
}

SignalScope::~SignalScope() {
  install(SIG_DFL);
}

int SignalScope::caught() {
  return caught_signal;
}

void SignalScope::reset() {
  caught_signal = 0;
}

int SignalScope::exit_code() {
  return 128 + caught();
}

}  // namespace lathe::cli
