/* Lathe's C interface: the stable ABI, for C and for other languages' foreign function interfaces. C99 and C++.
 *
 * Conventions
 * - Text is UTF-8. A text argument comes with its size in bytes, or LATHE_NUL_TERMINATED.
 * - Functions that can fail return a lathe_status; lathe_last_error() then has one line on what was wrong. On failure,
 *   outputs are NULL or zero (buffers of the caller may be partly written). No C++ exception leaves the library.
 * - Memory handed out (text, ids) belongs to the caller, who gives it back with lathe_free(). Handles are closed with
 *   their own function. Both accept NULL. Nothing that is passed in is kept after the call.
 * - Every struct begins with struct_size, which the caller sets to its sizeof: use the _INIT macros. A smaller struct,
 * from a program built against an older header, is accepted: options it lacks take their defaults, results it lacks are
 * not written. A larger one is accepted if all bytes that this library does not know are zero (options); they are set
 * to zero (results). Fields named reserved must be zero.
 * - Threads: a lathe_model computes one call at a time; calls from several threads are safe and wait for one another
 *   (tokenize, detokenize and get_model_info never wait). A callback runs on the calling thread; generate, chat and
 * logits of the same model inside it fail. Closing a model while another thread uses it is not safe.
 */
#ifndef LATHE_LATHE_C_H_
#define LATHE_LATHE_C_H_

#include <stddef.h>
#include <stdint.h>

#ifndef LATHE_API
#define LATHE_API __attribute__((visibility("default")))
#endif

/* NOLINTBEGIN(readability-identifier-naming,modernize-use-using): C names */

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this interface. A program may use a library whose lathe_abi_version() equals the one it was built with;
 * additions do not change it. */
#define LATHE_ABI_VERSION 1

/* As a size: the text ends at its first zero byte. */
#define LATHE_NUL_TERMINATED ((size_t)-1)

/* As temperature, top_k, top_p or repetition_penalty: what the model's generation_config.json says. */
#define LATHE_MODEL_DEFAULT (-1)

typedef enum lathe_status {
  LATHE_OK = 0,
  LATHE_INVALID_ARGUMENT = 1, /* an argument or option is wrong */
  LATHE_INVALID_DATA = 2,     /* a file's content is wrong */
  LATHE_NOT_FOUND = 3,        /* the model, or a file or tensor of it, does not exist */
  LATHE_IO = 4,               /* the operating system refused a read, write, open or map */
  LATHE_OUT_OF_MEMORY = 5,    /* memory does not suffice, or the memory plan of the model was refused */
  LATHE_UNSUPPORTED = 6,      /* understood, but this build or model cannot do it */
  LATHE_NETWORK = 7,          /* a download failed */
  LATHE_CANCELLED = 8,        /* stopped from outside */
  LATHE_INTERNAL = 9          /* a bug, or an unforeseen failure of the system */
} lathe_status;

typedef enum lathe_cache_type {
  LATHE_CACHE_AUTO = 0, /* f16, or f32 with LATHE_COMPUTE_F32 */
  LATHE_CACHE_F32 = 1,
  LATHE_CACHE_F16 = 2,
  LATHE_CACHE_BF16 = 3,
  LATHE_CACHE_Q8 = 4, /* 8.5 bits per element, scales included */
  LATHE_CACHE_Q6 = 5  /* 6 bits per element, scales included */
} lathe_cache_type;

typedef enum lathe_compute {
  LATHE_COMPUTE_AUTO = 0,
  LATHE_COMPUTE_F32 = 1 /* reference-grade fp32 arithmetic on the stored weights */
} lathe_compute;

typedef enum lathe_finish_reason {
  LATHE_FINISH_STOP = 0,     /* end-of-sequence token or stop text */
  LATHE_FINISH_LENGTH = 1,   /* max_tokens, or the context is full */
  LATHE_FINISH_CANCELLED = 2 /* the callback said so */
} lathe_finish_reason;

/* Flags of lathe_tokenize. */
#define LATHE_TOKENIZE_ADD_BOS 1u           /* the model's BOS token in front, if it wants one */
#define LATHE_TOKENIZE_RECOGNISE_SPECIAL 2u /* text of special tokens becomes the token; never for untrusted text */

/* Flags of lathe_detokenize. */
#define LATHE_DETOKENIZE_KEEP_SPECIAL 1u /* special tokens appear as their text instead of nothing */

/* Which positions lathe_logits returns. */
typedef enum lathe_logit_rows {
  LATHE_LOGITS_ALL = 0, /* count rows */
  LATHE_LOGITS_LAST = 1 /* one row */
} lathe_logit_rows;

/* An open model; opaque. */
typedef struct lathe_model lathe_model;

typedef struct lathe_open_options {
  size_t struct_size;
  int64_t context_size; /* positions of the cache: prompt and answer; 0: the model's, at most 32768 */
  int32_t threads;      /* 0: what the machine and its limits allow, else 1 to 4096 */
  int32_t cache_type;   /* lathe_cache_type */
  int32_t compute;      /* lathe_compute */
  int32_t reserved;
  const char* weight_type;   /* quantise the weights on load: "q8_0", "q4_0", "q4_k_m", ...; NULL: as they are stored */
  const char* packed_folder; /* keeps packed weights of large models for the next start; NULL: packed into memory */
} lathe_open_options;

#define LATHE_OPEN_OPTIONS_INIT \
  { sizeof(lathe_open_options), 0, 0, LATHE_CACHE_AUTO, LATHE_COMPUTE_AUTO, 0, NULL, NULL }

typedef struct lathe_generate_options {
  size_t struct_size;
  int64_t max_tokens;        /* new tokens; -1: until the context is full */
  double temperature;        /* 0 to 100; 0: greedy, ties to the lowest id; or LATHE_MODEL_DEFAULT */
  int64_t top_k;             /* 0: off; or LATHE_MODEL_DEFAULT */
  double top_p;              /* 0 to 1; 1: off; or LATHE_MODEL_DEFAULT */
  double min_p;              /* 0 to 1, relative to the most likely token; 0: off */
  double repetition_penalty; /* over prompt and answer; 1: off; or LATHE_MODEL_DEFAULT */
  double presence_penalty;   /* -2 to 2, over the answer */
  double frequency_penalty;  /* -2 to 2, over the answer */
  uint64_t seed;             /* same seed, same answer; looked at only if use_seed is not 0 */
  int32_t use_seed;          /* 0: a random seed */
  int32_t ignore_eos;        /* not 0: go on after the end-of-sequence token */
  const char* const* stop;   /* stop_count NUL-terminated texts, not empty, that end the answer */
  size_t stop_count;
  /* DRY: a token that would continue a repeated sequence of L tokens, L at least dry_allowed_length, loses
     dry_multiplier * dry_base^(L - dry_allowed_length) from its logit. */
  double dry_multiplier;      /* 0 to 100; 0: off; or LATHE_MODEL_DEFAULT */
  double dry_base;            /* 1 to 100; or LATHE_MODEL_DEFAULT */
  int64_t dry_allowed_length; /* from 1; or LATHE_MODEL_DEFAULT */
  int64_t dry_penalty_last_n; /* tokens of prompt and answer that are looked at; -1: all */
  /* NUL-terminated texts; no sequence reaches over a token with one of them in it. NULL: newline, colon, double quote
     and asterisk. */
  const char* const* dry_sequence_breakers;
  size_t dry_sequence_breaker_count;
} lathe_generate_options;

#define LATHE_GENERATE_OPTIONS_INIT                                                                         \
  {                                                                                                         \
    sizeof(lathe_generate_options), -1, LATHE_MODEL_DEFAULT, LATHE_MODEL_DEFAULT, LATHE_MODEL_DEFAULT, 0.0, \
        LATHE_MODEL_DEFAULT, 0.0, 0.0, 0, 0, 0, NULL, 0, LATHE_MODEL_DEFAULT, LATHE_MODEL_DEFAULT,          \
        LATHE_MODEL_DEFAULT, -1, NULL, 0                                                                    \
  }

/* A finished answer. text and token_ids are the caller's, to be given to lathe_free. */
typedef struct lathe_completion {
  size_t struct_size;
  char* text;         /* UTF-8, ends with a zero byte that text_size does not count */
  size_t text_size;   /* bytes */
  int32_t* token_ids; /* without the end-of-sequence token */
  size_t token_count;
  int64_t prompt_token_count;
  int32_t finish_reason; /* lathe_finish_reason */
  int32_t reserved;
  double prefill_seconds; /* from the call's turn to the first token */
  double decode_seconds;  /* from the first token to the last */
} lathe_completion;

#define LATHE_COMPLETION_INIT \
  { sizeof(lathe_completion), NULL, 0, NULL, 0, 0, 0, 0, 0.0, 0.0 }

/* What a model is and what it takes. */
typedef struct lathe_model_info {
  size_t struct_size;
  char architecture[64];    /* of config.json; ends with a zero byte, cut if longer */
  int64_t vocab_size;       /* ids are 0 to vocab_size - 1 */
  int64_t context_size;     /* positions the model was opened with */
  int64_t max_context_size; /* positions the model was made for */
  int64_t layer_count;
  int64_t hidden_size;
  int64_t attention_head_count;
  int64_t routed_expert_count; /* per MoE layer; 0: a dense model */
  int64_t experts_per_token;
  int64_t parameter_count;
  int64_t active_parameter_count; /* used per token: without the embedding, with the head */
  int64_t cache_bytes_per_token;
  uint64_t weight_bytes; /* of the memory plan, likewise the next two */
  uint64_t cache_bytes;
  uint64_t scratch_bytes;
  int32_t thread_count;
  int32_t has_tokenizer; /* 0: text in or out fails with LATHE_NOT_FOUND */
  int32_t bos_token_id;  /* -1: none; likewise the next */
  int32_t eos_token_id;
  double load_seconds;
} lathe_model_info;

#define LATHE_MODEL_INFO_INIT \
  { sizeof(lathe_model_info), "", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0 }

/* One turn of a conversation: NUL-terminated role ("system", "user", "assistant", ... as the model's chat template has
 * them) and content. Fixed: this struct never grows. */
typedef struct lathe_message {
  const char* role;
  const char* content;
} lathe_message;

/* Called for every token of an answer, in order, on the calling thread. `text` (text_size bytes, then a zero byte) is
 * what became certain with the token: whole characters, nothing that may begin a stop text, so it may be empty; it is
 * valid during the call. Not 0 stops the answer (LATHE_FINISH_CANCELLED). */
typedef int (*lathe_token_callback)(void* user, int32_t token_id, const char* text, size_t text_size);

/* LATHE_ABI_VERSION of the library. */
LATHE_API uint32_t lathe_abi_version(void);
/* Version of the library, e.g. "0.1.0". A static string. */
LATHE_API const char* lathe_version(void);
/* "ok", "invalid argument", ...; "unknown status" for other values. A static string. */
LATHE_API const char* lathe_status_name(int32_t status);
/* One line on the last failure in this thread, "" before the first. Calls that succeed do not change it. Valid until
 * the thread's next failing call. */
LATHE_API const char* lathe_last_error(void);
/* Gives back memory that the library handed out. NULL is allowed. */
LATHE_API void lathe_free(void* memory);

/* Opens a model: a folder in HuggingFace layout, or ORG/NAME[@REVISION] of a model in the local hub cache (nothing is
 * downloaded). `name` is NUL-terminated, `options` may be NULL. *model is closed with lathe_close. LATHE_OUT_OF_MEMORY
 * with the numbers when the memory plan does not fit. */
LATHE_API lathe_status lathe_open(const char* name, const lathe_open_options* options, lathe_model** model);
/* Closes a model and frees what it holds. NULL is allowed. */
LATHE_API void lathe_close(lathe_model* model);
/* Fills *info, whose struct_size the caller has set. */
LATHE_API lathe_status lathe_get_model_info(const lathe_model* model, lathe_model_info* info);

/* Text to ids; `flags` of LATHE_TOKENIZE_*. *ids (never NULL on success) goes to lathe_free. */
LATHE_API lathe_status lathe_tokenize(
    const lathe_model* model, const char* text, size_t text_size, uint32_t flags, int32_t** ids, size_t* count);
/* Ids to text, invalid UTF-8 replaced by U+FFFD; `flags` of LATHE_DETOKENIZE_*. *text ends with a zero byte that
 * *text_size does not count (text_size may be NULL) and goes to lathe_free. */
LATHE_API lathe_status lathe_detokenize(
    const lathe_model* model, const int32_t* ids, size_t count, uint32_t flags, char** text, size_t* text_size);

/* Continues a text. BOS is put in front if the model wants one; special tokens in the text stay text. `options`,
 * `callback` and `completion` may be NULL. */
LATHE_API lathe_status lathe_generate(lathe_model* model,
                                      const char* prompt,
                                      size_t prompt_size,
                                      const lathe_generate_options* options,
                                      lathe_token_callback callback,
                                      void* user,
                                      lathe_completion* completion);
/* Continues token ids as they are: at least one; no BOS is added. Otherwise as lathe_generate. */
LATHE_API lathe_status lathe_generate_ids(lathe_model* model,
                                          const int32_t* ids,
                                          size_t count,
                                          const lathe_generate_options* options,
                                          lathe_token_callback callback,
                                          void* user,
                                          lathe_completion* completion);
/* Answers a conversation of `count` messages through the model's chat template. Contents are never read as special
 * tokens. Otherwise as lathe_generate. */
LATHE_API lathe_status lathe_chat(lathe_model* model,
                                  const lathe_message* messages,
                                  size_t count,
                                  const lathe_generate_options* options,
                                  lathe_token_callback callback,
                                  void* user,
                                  lathe_completion* completion);

/* Scores of the next token after each position (`rows`, a lathe_logit_rows: LATHE_LOGITS_ALL), or after the last one
 * (LATHE_LOGITS_LAST), of `count` ids (at least one, at most context_size): row-major [count or 1, vocab_size] into
 * `logits`, which has room for `capacity` floats. */
LATHE_API lathe_status
lathe_logits(lathe_model* model, const int32_t* ids, size_t count, int32_t rows, float* logits, size_t capacity);

#ifdef __cplusplus
}
#endif

/* NOLINTEND(readability-identifier-naming,modernize-use-using) */

#endif /* LATHE_LATHE_C_H_ */
