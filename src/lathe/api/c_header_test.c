/* lathe_c.h as a C program uses it. Compiled as C99 without extensions; called by c_api_test.cpp. */
#include <string.h>

#include "lathe/lathe_c.h"

/* 0, or the number of the check that failed. */
int c_header_check(const char* model_name, char* text, size_t text_capacity);

static int count_token(void* user, int32_t token_id, const char* text, size_t text_size) {
  (void)token_id;
  if (strlen(text) != text_size) return 1;
  ++*(int*)user;
  return 0;
}

int c_header_check(const char* model_name, char* text, size_t text_capacity) {
  lathe_model* model = NULL;
  lathe_open_options open_options = LATHE_OPEN_OPTIONS_INIT;
  lathe_generate_options options = LATHE_GENERATE_OPTIONS_INIT;
  lathe_completion completion = LATHE_COMPLETION_INIT;
  lathe_model_info info = LATHE_MODEL_INFO_INIT;
  int tokens = 0;

  if (lathe_abi_version() != LATHE_ABI_VERSION) return 1;
  open_options.threads = 1;
  if (lathe_open(model_name, &open_options, &model) != LATHE_OK) return 2;
  if (lathe_get_model_info(model, &info) != LATHE_OK || info.thread_count != 1) return 3;
  options.max_tokens = 8;
  options.temperature = 0.0;
  if (lathe_generate(model, "The king", LATHE_NUL_TERMINATED, &options, count_token, &tokens, &completion) !=
      LATHE_OK) {
    return 4;
  }
  if (completion.token_count != 8 || tokens != 8 || completion.finish_reason != LATHE_FINISH_LENGTH) return 5;
  if (completion.text_size + 1 > text_capacity) return 6;
  memcpy(text, completion.text, completion.text_size + 1);
  lathe_free(completion.text);
  lathe_free(completion.token_ids);
  lathe_close(model);
  return 0;
}
