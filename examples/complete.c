/* Continues a text through the C interface: example_complete MODEL TEXT */
#include <lathe/lathe_c.h>
#include <stdio.h>

static int print_token(void* user, int32_t token_id, const char* text, size_t text_size) {
  FILE* out = user;
  (void)token_id;
  fwrite(text, 1, text_size, out);
  return fflush(out); /* not 0: nobody reads any more, stop */
}

int main(int argc, char** argv) {
  lathe_model* model = NULL;
  lathe_generate_options options = LATHE_GENERATE_OPTIONS_INIT;
  lathe_completion answer = LATHE_COMPLETION_INIT;
  lathe_status status = LATHE_OK;

  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL TEXT\n", argv[0]);
    return 2;
  }
  if (lathe_abi_version() != LATHE_ABI_VERSION) {
    fprintf(stderr, "liblathe %s has another interface than this program\n", lathe_version());
    return 1;
  }
  status = lathe_open(argv[1], NULL, &model);
  if (status == LATHE_OK) {
    const char* stop[] = {"\n"}; /* one paragraph */
    options.max_tokens = 100;
    options.seed = 1; /* the same text every time */
    options.use_seed = 1;
    options.stop = stop;
    options.stop_count = 1;
    fputs(argv[2], stdout);
    status = lathe_generate(model, argv[2], LATHE_NUL_TERMINATED, &options, print_token, stdout, &answer);
  }
  if (status == LATHE_OK) {
    printf("\n");
    fprintf(stderr, "%zu tokens in %.2f s\n", answer.token_count, answer.prefill_seconds + answer.decode_seconds);
  } else {
    fprintf(stderr, "%s: %s\n", lathe_status_name((int32_t)status), lathe_last_error());
  }
  lathe_free(answer.text);
  lathe_free(answer.token_ids);
  lathe_close(model);
  return status == LATHE_OK ? 0 : 1;
}
