// Writes a story to the terminal as it is made: example_story MODEL [BEGINNING]
#include <cstdio>
#include <string>

#include "lathe/lathe.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s MODEL [BEGINNING]\n", argv[0]);
    return 2;
  }
  const std::string beginning = argc > 2 ? argv[2] : "Once upon a time";

  lathe::Expected<lathe::Model> model = lathe::Model::open(argv[1]);
  if (!model) {
    std::fprintf(stderr, "%s\n", model.error().message.c_str());
    return 1;
  }

  std::fputs(beginning.c_str(), stdout);
  const lathe::GenerateOptions options{.max_tokens = 200, .temperature = 0.8, .top_p = 0.95, .seed = 1};
  const lathe::Expected<lathe::Completion> story = model->generate(beginning, options, [](const lathe::Piece& piece) {
    std::fwrite(piece.text.data(), 1, piece.text.size(), stdout);
    return std::fflush(stdout) == 0;  // nobody reads any more: stop
  });
  if (!story) {
    std::fprintf(stderr, "%s\n", story.error().message.c_str());
    return 1;
  }
  std::puts("");
  std::fprintf(stderr,
               "%zu tokens in %.2f s, ended by %s\n",
               story->token_ids.size(),
               story->timings.prefill_s + story->timings.decode_s,
               std::string(name_of(story->finish_reason)).c_str());
  return 0;
}
