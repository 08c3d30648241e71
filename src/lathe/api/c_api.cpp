// The C interface: each function checks its pointers, calls the C++ interface, and hands results out in memory of
// malloc.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <span>
#include <string>

#include "lathe/api/c_structs.h"
#include "lathe/base/str.h"
#include "lathe/lathe.h"
#include "lathe/lathe_c.h"

namespace v1 = lathe::v1;

struct lathe_model {  // NOLINT(readability-identifier-naming): the C interface's name
  v1::Model model;
};

namespace {

using v1::Error;
using v1::ErrorCode;
using v1::Expected;

struct LastError {
  std::string message;
  const char* shown = "";  // message, or a literal when there was no memory for it
};

LastError& last_error() noexcept {
  thread_local LastError error;
  return error;
}

lathe_status status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return LATHE_INVALID_ARGUMENT;
    case ErrorCode::kInvalidData:
      return LATHE_INVALID_DATA;
    case ErrorCode::kNotFound:
      return LATHE_NOT_FOUND;
    case ErrorCode::kIo:
      return LATHE_IO;
    case ErrorCode::kOutOfMemory:
      return LATHE_OUT_OF_MEMORY;
    case ErrorCode::kUnsupported:
      return LATHE_UNSUPPORTED;
    case ErrorCode::kNetwork:
      return LATHE_NETWORK;
    case ErrorCode::kCancelled:
      return LATHE_CANCELLED;
    case ErrorCode::kInternal:
      return LATHE_INTERNAL;
  }
  return LATHE_INTERNAL;
}

lathe_status out_of_memory() noexcept {
  last_error().shown = "out of memory";
  return LATHE_OUT_OF_MEMORY;
}

lathe_status fail(Error&& error) {
  LastError& last = last_error();
  last.message = std::move(error.message);
  last.shown = last.message.c_str();
  return status_of(error.code);
}

// Runs the body of a function of the C interface; nothing gets past it.
template <class Body>
lathe_status guarded(Body&& body) noexcept {
  try {
    Expected<void> done = body();
    return done ? LATHE_OK : fail(std::move(done).error());
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception& failure) {
    last_error().shown = "an exception of the callback or the standard library";
    try {
      return fail({ErrorCode::kInternal, failure.what()});
    } catch (...) {
      return LATHE_INTERNAL;
    }
  } catch (...) {
    last_error().shown = "an exception of the callback that is not a std::exception";
    return LATHE_INTERNAL;
  }
}

Error null_argument(const char* name) {
  return {ErrorCode::kInvalidArgument, lathe::str(name, ": expected a pointer, found NULL")};
}

// `count` elements of the caller; NULL is fine for none.
template <class T>
Expected<std::span<const T>> array_argument(const char* name, const T* data, size_t count) {
  if (data == nullptr && count != 0) return null_argument(name);
  return std::span<const T>(data, count);
}

Expected<std::string_view> text_argument(const char* name, const char* text, size_t size) {
  if (text == nullptr && size != 0) return null_argument(name);
  if (size == LATHE_NUL_TERMINATED) return std::string_view(text);
  return std::string_view(text, size);
}

Expected<void> check_flags(uint32_t flags, uint32_t known) {
  if ((flags & ~known) == 0) return {};
  return Error{ErrorCode::kInvalidArgument, lathe::str("flags: expected bits of ", known, ", found ", flags)};
}

// `bytes` of memory for lathe_free, at least one.
void* allocate(size_t bytes) {
  void* memory = std::malloc(std::max<size_t>(bytes, 1));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

char* copy_text(std::string_view text) {
  char* out = static_cast<char*>(allocate(text.size() + 1));
  if (!text.empty()) std::memcpy(out, text.data(), text.size());
  out[text.size()] = '\0';
  return out;
}

int32_t* copy_ids(std::span<const int32_t> ids) {
  auto* out = static_cast<int32_t*>(allocate(ids.size_bytes()));
  if (!ids.empty()) std::memcpy(out, ids.data(), ids.size_bytes());
  return out;
}

v1::OnPiece on_piece(lathe_token_callback callback, void* user) {
  if (callback == nullptr) return {};
  return [callback, user, text = std::string()](const v1::Piece& piece) mutable {
    text.assign(piece.text);  // with the zero byte that a view does not promise
    return callback(user, piece.id, text.c_str(), text.size()) == 0;
  };
}

int32_t reason_of(v1::FinishReason reason) {
  switch (reason) {
    case v1::FinishReason::kStop:
      return LATHE_FINISH_STOP;
    case v1::FinishReason::kLength:
      return LATHE_FINISH_LENGTH;
    case v1::FinishReason::kCancelled:
      return LATHE_FINISH_CANCELLED;
  }
  return LATHE_FINISH_LENGTH;
}

// What every call that makes an answer shares: `make(options, callback)` runs the model.
template <class Make>
lathe_status generate(lathe_model* model,
                      const lathe_generate_options* options,
                      lathe_token_callback callback,
                      void* user,
                      lathe_completion* completion,
                      Make&& make) noexcept {
  return guarded([&]() -> Expected<void> {
    if (completion != nullptr) {
      constexpr size_t kLeast = offsetof(lathe_completion, prompt_token_count);  // what owns memory is always written
      Expected<void> valid =
          v1::check_struct_size("completion", completion->struct_size, kLeast, alignof(lathe_completion));
      if (!valid) return valid;
      v1::write_result(lathe_completion{}, completion);
    }
    if (model == nullptr) return null_argument("model");
    Expected<v1::GenerateOptions> typed = v1::to_generate_options(options);
    if (!typed) return std::move(typed).error();
    Expected<v1::Completion> answer = make(*typed, on_piece(callback, user));
    if (!answer) return std::move(answer).error();
    if (completion == nullptr) return {};
    lathe_completion out = LATHE_COMPLETION_INIT;
    out.text_size = answer->text.size();
    out.token_count = answer->token_ids.size();
    out.prompt_token_count = answer->prompt_tokens;
    out.finish_reason = reason_of(answer->finish_reason);
    out.prefill_seconds = answer->timings.prefill_s;
    out.decode_seconds = answer->timings.decode_s;
    std::unique_ptr<int32_t, decltype(&std::free)> ids(copy_ids(answer->token_ids), &std::free);
    out.text = copy_text(answer->text);
    out.token_ids = ids.release();
    v1::write_result(out, completion);
    return {};
  });
}

lathe_model_info to_c(const v1::ModelInfo& info) {
  lathe_model_info out{};
  const size_t length = std::min(info.architecture.size(), sizeof out.architecture - 1);
  std::memcpy(out.architecture, info.architecture.data(), length);
  out.vocab_size = info.vocab_size;
  out.context_size = info.context_size;
  out.max_context_size = info.max_context_size;
  out.layer_count = info.layers;
  out.hidden_size = info.hidden_size;
  out.attention_head_count = info.attention_heads;
  out.routed_expert_count = info.routed_experts;
  out.experts_per_token = info.experts_per_token;
  out.parameter_count = info.parameters;
  out.active_parameter_count = info.active_parameters;
  out.cache_bytes_per_token = info.cache_bytes_per_token;
  out.weight_bytes = info.weight_bytes;
  out.cache_bytes = info.cache_bytes;
  out.scratch_bytes = info.scratch_bytes;
  out.thread_count = info.threads;
  out.has_tokenizer = info.has_tokenizer ? 1 : 0;
  out.bos_token_id = info.bos_id.value_or(-1);
  out.eos_token_id = info.eos_id.value_or(-1);
  out.load_seconds = info.load_seconds;
  return out;
}

}  // namespace

extern "C" {

uint32_t lathe_abi_version(void) {
  return LATHE_ABI_VERSION;
}

const char* lathe_version(void) {
  return v1::version().data();
}

const char* lathe_last_error(void) {
  return last_error().shown;
}

void lathe_free(void* memory) {
  std::free(memory);
}

const char* lathe_status_name(int32_t status) {
  if (status == LATHE_OK) return "ok";
  for (const ErrorCode code : {ErrorCode::kInvalidArgument,
                               ErrorCode::kInvalidData,
                               ErrorCode::kNotFound,
                               ErrorCode::kIo,
                               ErrorCode::kOutOfMemory,
                               ErrorCode::kUnsupported,
                               ErrorCode::kNetwork,
                               ErrorCode::kCancelled,
                               ErrorCode::kInternal}) {
    if (status_of(code) == status) return v1::name_of(code).data();
  }
  return "unknown status";
}

lathe_status lathe_open(const char* name, const lathe_open_options* options, lathe_model** model) {
  return guarded([&]() -> Expected<void> {
    if (model == nullptr) return null_argument("model");
    *model = nullptr;
    if (name == nullptr) return null_argument("name");
    Expected<v1::OpenOptions> typed = v1::to_open_options(options);
    if (!typed) return std::move(typed).error();
    Expected<v1::Model> opened = v1::Model::open(name, *typed);
    if (!opened) return std::move(opened).error();
    *model = new lathe_model{*std::move(opened)};
    return {};
  });
}

void lathe_close(lathe_model* model) {
  delete model;
}

lathe_status lathe_get_model_info(const lathe_model* model, lathe_model_info* info) {
  return guarded([&]() -> Expected<void> {
    if (info == nullptr) return null_argument("info");
    Expected<void> valid =
        v1::check_struct_size("info", info->struct_size, sizeof info->struct_size, alignof(lathe_model_info));
    if (!valid) return valid;
    v1::write_result(lathe_model_info{}, info);
    if (model == nullptr) return null_argument("model");
    v1::write_result(to_c(model->model.info()), info);
    return {};
  });
}

lathe_status lathe_tokenize(
    const lathe_model* model, const char* text, size_t text_size, uint32_t flags, int32_t** ids, size_t* count) {
  return guarded([&]() -> Expected<void> {
    if (ids == nullptr) return null_argument("ids");
    *ids = nullptr;
    if (count == nullptr) return null_argument("count");
    *count = 0;
    if (model == nullptr) return null_argument("model");
    Expected<std::string_view> view = text_argument("text", text, text_size);
    if (!view) return std::move(view).error();
    Expected<void> known = check_flags(flags, LATHE_TOKENIZE_ADD_BOS | LATHE_TOKENIZE_RECOGNISE_SPECIAL);
    if (!known) return known;
    Expected<std::vector<int32_t>> encoded =
        model->model.tokenize(*view,
                              {.add_bos = (flags & LATHE_TOKENIZE_ADD_BOS) != 0,
                               .recognise_special = (flags & LATHE_TOKENIZE_RECOGNISE_SPECIAL) != 0});
    if (!encoded) return std::move(encoded).error();
    *ids = copy_ids(*encoded);
    *count = encoded->size();
    return {};
  });
}

lathe_status lathe_detokenize(
    const lathe_model* model, const int32_t* ids, size_t count, uint32_t flags, char** text, size_t* text_size) {
  return guarded([&]() -> Expected<void> {
    if (text == nullptr) return null_argument("text");
    *text = nullptr;
    if (text_size != nullptr) *text_size = 0;
    if (model == nullptr) return null_argument("model");
    Expected<std::span<const int32_t>> view = array_argument("ids", ids, count);
    if (!view) return std::move(view).error();
    Expected<void> known = check_flags(flags, LATHE_DETOKENIZE_KEEP_SPECIAL);
    if (!known) return known;
    Expected<std::string> decoded =
        model->model.detokenize(*view, {.skip_special = (flags & LATHE_DETOKENIZE_KEEP_SPECIAL) == 0});
    if (!decoded) return std::move(decoded).error();
    *text = copy_text(*decoded);
    if (text_size != nullptr) *text_size = decoded->size();
    return {};
  });
}

lathe_status lathe_generate(lathe_model* model,
                            const char* prompt,
                            size_t prompt_size,
                            const lathe_generate_options* options,
                            lathe_token_callback callback,
                            void* user,
                            lathe_completion* completion) {
  const auto make = [&](const v1::GenerateOptions& typed, const v1::OnPiece& listener) -> Expected<v1::Completion> {
    Expected<std::string_view> text = text_argument("prompt", prompt, prompt_size);
    if (!text) return std::move(text).error();
    return model->model.generate(*text, typed, listener);
  };
  return generate(model, options, callback, user, completion, make);
}

lathe_status lathe_generate_ids(lathe_model* model,
                                const int32_t* ids,
                                size_t count,
                                const lathe_generate_options* options,
                                lathe_token_callback callback,
                                void* user,
                                lathe_completion* completion) {
  const auto make = [&](const v1::GenerateOptions& typed, const v1::OnPiece& listener) -> Expected<v1::Completion> {
    Expected<std::span<const int32_t>> view = array_argument("ids", ids, count);
    if (!view) return std::move(view).error();
    return model->model.generate(*view, typed, listener);
  };
  return generate(model, options, callback, user, completion, make);
}

lathe_status lathe_chat(lathe_model* model,
                        const lathe_message* messages,
                        size_t count,
                        const lathe_generate_options* options,
                        lathe_token_callback callback,
                        void* user,
                        lathe_completion* completion) {
  const auto make = [&](const v1::GenerateOptions& typed, const v1::OnPiece& listener) -> Expected<v1::Completion> {
    Expected<std::span<const lathe_message>> view = array_argument("messages", messages, count);
    if (!view) return std::move(view).error();
    std::vector<v1::Message> list;
    list.reserve(count);
    for (const lathe_message& message : *view) {
      if (message.role == nullptr) return null_argument(lathe::str("messages[", list.size(), "].role").c_str());
      if (message.content == nullptr) return null_argument(lathe::str("messages[", list.size(), "].content").c_str());
      list.push_back({message.role, message.content});
    }
    return model->model.chat(list, typed, listener);
  };
  return generate(model, options, callback, user, completion, make);
}

lathe_status lathe_logits(
    lathe_model* model, const int32_t* ids, size_t count, int32_t rows, float* logits, size_t capacity) {
  return guarded([&]() -> Expected<void> {
    if (model == nullptr) return null_argument("model");
    if (logits == nullptr) return null_argument("logits");
    Expected<std::span<const int32_t>> view = array_argument("ids", ids, count);
    if (!view) return std::move(view).error();
    if (rows != LATHE_LOGITS_ALL && rows != LATHE_LOGITS_LAST) {
      return Error{ErrorCode::kInvalidArgument, lathe::str("rows: expected 0 or 1, found ", rows)};
    }
    const auto vocab_size = static_cast<size_t>(model->model.info().vocab_size);
    const size_t wanted = rows == LATHE_LOGITS_LAST ? 1 : count;
    if (wanted > capacity / vocab_size) {
      return Error{ErrorCode::kInvalidArgument,
                   lathe::str("capacity: expected at least ", wanted, " x ", vocab_size, " floats, found ", capacity)};
    }
    Expected<v1::Logits> scored =
        model->model.logits(*view, rows == LATHE_LOGITS_LAST ? v1::LogitRows::kLast : v1::LogitRows::kAll);
    if (!scored) return std::move(scored).error();
    std::memcpy(logits, scored->values.data(), scored->values.size() * sizeof(float));
    return {};
  });
}

}  // extern "C"
