#include "lathe/cli/prompt_progress.h"

#include <gtest/gtest.h>

#include <csignal>

#include "lathe/cli/common.h"

namespace lathe::cli {
namespace {

TEST(PromptProgress, LineHasTokensRateAndWhatIsLeft) {
  EXPECT_EQ(prompt_line(4096, 32001, 75.0), "prompt: 4,096 of 32,001 tokens, 75.0 tok/s, 6:13 left");
  EXPECT_EQ(prompt_line(512, 32001, 0.0), "prompt: 512 of 32,001 tokens, 0.0 tok/s, -:-- left");
}

TEST(PromptProgress, ASignalEndsTheReading) {
  const SignalScope signals;
  PromptProgress progress(/*quiet=*/true);
  Request request;
  progress.follow(request);
  EXPECT_TRUE(request.on_prompt({.done = 10, .total = 100, .seconds = 5.0}));
  (void)std::raise(SIGINT);
  EXPECT_FALSE(request.on_prompt({.done = 20, .total = 100, .seconds = 9.0}));
}

TEST(PromptProgress, TheListenerStillHearsTheAnswer) {
  PromptProgress progress(/*quiet=*/true);
  Request request;
  int heard = 0;
  request.on_token = [&](const TokenEvent&) { return ++heard < 2; };
  progress.follow(request);
  const SampledToken token;
  EXPECT_TRUE(request.on_token({token, "a"}));
  EXPECT_FALSE(request.on_token({token, "b"}));
  EXPECT_EQ(heard, 2);
}

TEST(PromptProgress, WithoutAListenerTheAnswerGoesOn) {
  PromptProgress progress(/*quiet=*/true);
  Request request;
  progress.follow(request);
  const SampledToken token;
  EXPECT_TRUE(request.on_token({token, "a"}));
}

}  // namespace
}  // namespace lathe::cli
