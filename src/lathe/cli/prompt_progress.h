// What is seen while a prompt is read.
#pragma once

#include <cstdint>
#include <string>

#include "lathe/cli/progress.h"
#include "lathe/runtime/engine.h"

namespace lathe::cli {

// "prompt: 4,096 of 32,001 tokens, 75.0 tok/s, 6:13 left".
std::string prompt_line(int64_t done, int64_t total, double tokens_per_second);

// Shows on stderr how much of a long prompt is read, and lets a signal (SignalScope) end the reading, which would
// otherwise be seen at the first token only. A short prompt shows nothing.
class PromptProgress {
 public:
  explicit PromptProgress(bool quiet) : line_(quiet) {}

  // Makes `request` call this object, which must stay until the request has ended.
  void follow(Request& request);
  // Takes the line away, before anything else is written there.
  void clear();

 private:
  bool note(const PromptEvent& event);

  StatusLine line_;
  bool visible_ = false;
  int64_t last_done_ = 0;  // tokens at the step before
  double last_at_ = 0.0;   // and its end
};

// Engine::generate() under a PromptProgress, whose line is gone when this returns, with an answer or an error.
Result<Completion> generate_with_progress(Engine& engine, Request request, bool quiet);

}  // namespace lathe::cli
