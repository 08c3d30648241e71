/* Prints the version and a greedy answer through the C interface: consumer_c MODEL PROMPT TOKENS */
#include <lathe/lathe_c.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  lathe_model* model = NULL;
  lathe_generate_options options = LATHE_GENERATE_OPTIONS_INIT;
  lathe_completion answer = LATHE_COMPLETION_INIT;

  if (argc != 4) return 2;
  options.max_tokens = atol(argv[3]);
  options.temperature = 0.0;
  if (lathe_open(argv[1], NULL, &model) != LATHE_OK ||
      lathe_generate(model, argv[2], LATHE_NUL_TERMINATED, &options, NULL, NULL, &answer) != LATHE_OK) {
    fprintf(stderr, "%s\n", lathe_last_error());
    lathe_close(model);
    return 1;
  }
  printf("%s\n%s\n", lathe_version(), answer.text);
  lathe_free(answer.text);
  lathe_free(answer.token_ids);
  lathe_close(model);
  return 0;
}
