#include "lathe/cli/prompt_progress.h"

#include <utility>

#include "lathe/base/str.h"
#include "lathe/cli/common.h"

namespace lathe::cli {
namespace {

constexpr double kPatience = 2.0;  // seconds before the first line

}  // namespace

std::string prompt_line(int64_t done, int64_t total, double tokens_per_second) {
  const double left = static_cast<double>(total - done) / tokens_per_second;
  return str("prompt: ",
             with_commas(done),
             " of ",
             with_commas(total),
             " tokens, ",
             fixed(tokens_per_second, 1),
             " tok/s, ",
             clock_text(left),
             " left");
}

void PromptProgress::follow(Request& request) {
  request.on_prompt = [this](const PromptEvent& event) { return note(event); };
  request.on_token = [this, next = std::move(request.on_token)](const TokenEvent& event) {
    clear();
    return !next || next(event);
  };
}

void PromptProgress::clear() {
  if (std::exchange(visible_, false)) line_.clear();
}

// The rate is that of the last step: what is left has no fewer positions behind it.
bool PromptProgress::note(const PromptEvent& event) {
  const int64_t done_before = last_done_ == 0 ? event.cached : last_done_;
  const double rate = tokens_per_second(event.done - done_before, event.seconds - last_at_);
  last_done_ = event.done;
  last_at_ = event.seconds;
  if (event.seconds >= kPatience && line_.due(/*last=*/false)) {
    line_.show(prompt_line(event.done, event.total, rate), /*last=*/false);
    visible_ = true;
  }
  return SignalScope::caught() == 0;
}

Result<Completion> generate_with_progress(Engine& engine, Request request, bool quiet) {
  PromptProgress progress(quiet);
  progress.follow(request);
  Result<Completion> completion = engine.generate(std::move(request));
  progress.clear();
  return completion;
}

}  // namespace lathe::cli
