// Lathe's C++ interface: open a DeepSeek-V2-family model, generate text, tokenize, compute logits.
//
//   lathe::Expected<lathe::Model> model =
//       lathe::Model::open("path/to/model");
//   if (!model) return fail(model.error().message);
//   const auto answer =
//       model->generate("Once upon a time", {.max_tokens = 64}, [](const lathe::Piece& piece) {
//         std::cout << piece.text << std::flush;
//         return true;  // false stops
//       });
//
// Conventions. Text is UTF-8. Token ids are int32_t from 0 to vocab_size - 1. Everything is returned by value and owned
// by the caller; nothing that is passed in is kept after the call. What can fail returns Expected<T>; nothing here
// throws, running out of memory included (kOutOfMemory), except what the caller's own callback throws. Messages are one
// line: what, where, expected, found.
//
// Threads. A Model computes one call at a time, on its own worker threads: generate, chat and logits called from
// several threads are safe and wait for one another; tokenize, detokenize and the getters never wait. Opening, moving
// or destroying a Model while another thread uses it is not safe. A callback runs on the calling thread, and generate,
// chat and logits of the same Model called inside it fail with kInvalidArgument. Different Models are independent.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#ifndef LATHE_API
#define LATHE_API __attribute__((visibility("default")))
#endif

namespace lathe {
#ifdef LATHE_BUILDING_API
namespace v1 {  // the library's own names live in lathe::, where an inline namespace would be ambiguous with them
#else
inline namespace v1 {
#endif

// Why a call failed.
enum class ErrorCode {
  kInvalidArgument,  // an argument or option is wrong
  kInvalidData,      // a file's content is wrong
  kNotFound,         // the model, or a file or tensor of it, does not exist
  kIo,               // the operating system refused a read, write, open or map
  kOutOfMemory,      // memory does not suffice, or the memory plan of the model was refused
  kUnsupported,      // understood, but this build or model cannot do it
  kNetwork,          // a download failed
  kCancelled,        // stopped from outside
  kInternal,         // a bug, or an unforeseen failure of the system
};

// "invalid argument", "out of memory", ...
LATHE_API std::string_view name_of(ErrorCode code);

// What went wrong, in one line for people and one code for programs.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};

namespace detail {
// Prints to stderr why an Expected was used wrongly, and aborts.
[[noreturn]] LATHE_API void bad_access(const char* what, std::string_view message);
}  // namespace detail

// A value or an Error, with the member names of std::expected. Reading the value of an error (or the error of a value)
// is a bug of the caller and ends the program with the message; test first.
template <class T>
class [[nodiscard]] Expected {
 public:
  Expected(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT(google-explicit-constructor)

  Expected(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool has_value() const { return state_.index() == 0; }

  explicit operator bool() const { return has_value(); }

  // The value; valid as long as this object.
  T& value() & { return *checked(std::get_if<0>(&state_)); }

  const T& value() const& { return *checked(std::get_if<0>(&state_)); }

  T&& value() && { return std::move(*checked(std::get_if<0>(&state_))); }

  T& operator*() & { return value(); }

  const T& operator*() const& { return value(); }

  T&& operator*() && { return std::move(*this).value(); }

  T* operator->() { return &value(); }

  const T* operator->() const { return &value(); }

  // Why there is no value.
  const Error& error() const& {
    if (has_value()) detail::bad_access("error() of a value", {});
    return *std::get_if<1>(&state_);
  }

  Error&& error() && {
    if (has_value()) detail::bad_access("error() of a value", {});
    return std::move(*std::get_if<1>(&state_));
  }

 private:
  template <class P>
  P checked(P value) const {
    if (value == nullptr) detail::bad_access("value() of an error", std::get_if<1>(&state_)->message);
    return value;
  }

  std::variant<T, Error> state_;
};

// Success, or an Error.
template <>
class [[nodiscard]] Expected<void> {
 public:
  Expected() = default;

  Expected(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool has_value() const { return !error_.has_value(); }

  explicit operator bool() const { return has_value(); }

  // Why it failed.
  const Error& error() const& {
    if (has_value()) detail::bad_access("error() of a success", {});
    return *error_;
  }

  Error&& error() && {
    if (has_value()) detail::bad_access("error() of a success", {});
    return std::move(*error_);
  }

 private:
  std::optional<Error> error_;
};

// Version of the library, e.g. "0.1.0". A static string.
LATHE_API std::string_view version();

// How the attention cache is stored.
enum class CacheType {
  kAuto,  // f16, or f32 with Compute::kF32
  kF32,
  kF16,
  kBF16,
  kQ8,  // 8.5 bits per element, scales included
  kQ6,  // 6 bits per element, scales included
};

// Arithmetic: the fast default, or reference-grade fp32 on the stored weights.
enum class Compute { kAuto, kF32 };

// How a model is opened.
struct OpenOptions {
  int threads = 0;           // worker threads; 0: what the machine and its limits allow, else 1 to 4096
  int64_t context_size = 0;  // positions of the cache: prompt and answer; 0: the model's, at most 32768
  CacheType cache_type = CacheType::kAuto;
  Compute compute = Compute::kAuto;
  // Quantise the weights on load: "q8_0", "q4_0", "q4_k_m", "q5_k_m" or "q6_k"; empty: as they are stored.
  std::string weight_type = {};
  // Folder where packed quantised weights of large models are kept for the next start; empty: packed into memory.
  std::string packed_folder = {};
};

// What an answer is sampled with. An empty optional takes what the model's generation_config.json says, and without
// that file the value named here.
struct GenerateOptions {
  int64_t max_tokens = -1;  // new tokens; -1: until the context is full
  // 0 to 100; 0: greedy, ties to the lowest id (default, also where do_sample is false)
  std::optional<double> temperature = {};
  std::optional<int64_t> top_k = {};              // 0: off (default)
  std::optional<double> top_p = {};               // 0 to 1; 1: off (default)
  double min_p = 0.0;                             // 0 to 1, relative to the most likely token; 0: off
  std::optional<double> repetition_penalty = {};  // over prompt and answer; 1: off (default)
  double presence_penalty = 0.0;                  // -2 to 2, over the answer
  double frequency_penalty = 0.0;                 // -2 to 2, over the answer
  std::optional<uint64_t> seed = {};              // same seed, same answer; empty: a random one
  std::vector<std::string> stop = {};             // texts that end the answer and are not part of it; none may be empty
  bool ignore_eos = false;                        // go on after the end-of-sequence token
  // DRY: a token that would continue a repeated sequence of L tokens, L at least dry_allowed_length, loses
  // dry_multiplier * dry_base^(L - dry_allowed_length) from its logit
  std::optional<double> dry_multiplier = {};       // 0 to 100; 0: off (default, also where temperature is 0)
  std::optional<double> dry_base = {};             // 1 to 100; 1.75 (default)
  std::optional<int64_t> dry_allowed_length = {};  // from 1; 2 (default)
  int64_t dry_penalty_last_n = -1;                 // tokens of prompt and answer that are looked at; -1: all
  // No sequence reaches over a token with one of these texts in it; default: newline, colon, double quote and asterisk.
  std::optional<std::vector<std::string>> dry_sequence_breakers = {};
};

// A token of an answer as it appears. Text is handed out when its characters are whole and it cannot be the beginning
// of a stop text, so it may be empty. When an answer ends at its end-of-sequence token with text still held back, one
// last piece carries that text and that token's id.
struct Piece {
  int32_t id = 0;
  std::string_view text;  // valid during the callback
};

// Called for every token of an answer, in order, on the calling thread. false stops the answer
// (FinishReason::kCancelled). An exception stops it too and leaves generate() or chat() unchanged; the Model stays
// usable. May be empty.
using OnPiece = std::function<bool(const Piece&)>;

enum class FinishReason {
  kStop,       // end-of-sequence token or stop text
  kLength,     // max_tokens, or the context is full
  kCancelled,  // the callback said so
};

// "stop", "length" or "cancelled".
LATHE_API std::string_view name_of(FinishReason reason);

// Wall-clock time of one answer, in seconds.
struct Timings {
  double prefill_s = 0.0;  // from the call's turn to the first token
  double decode_s = 0.0;   // from the first token to the last
};

// A finished answer.
struct Completion {
  std::string text;                // UTF-8, without the stop text; empty for a model without tokenizer
  std::vector<int32_t> token_ids;  // without the end-of-sequence token
  FinishReason finish_reason = FinishReason::kLength;
  int64_t prompt_tokens = 0;
  Timings timings;
};

// One turn of a conversation. The roles a model knows are those of its chat template: "system", "user", "assistant",
// ...
struct Message {
  std::string role;
  std::string content;
};

struct TokenizeOptions {
  bool add_bos = false;  // the model's BOS token in front, if it wants one
  bool recognise_special =
      false;  // text like "<|...|>" of a special token becomes that token; never for untrusted text
};

struct DetokenizeOptions {
  bool skip_special = true;  // special tokens leave no text
};

// Which positions logits() returns.
enum class LogitRows { kAll, kLast };

// Logits, row-major [rows, vocab_size]: row i holds the scores of the token after position i (kAll), or the one row is
// that of the last position (kLast).
struct Logits {
  int64_t rows = 0;
  int64_t vocab_size = 0;
  std::vector<float> values;

  // Scores [vocab_size] of row i, 0 <= i < rows; borrowed from `values`.
  std::span<const float> row(int64_t i) const {
    return std::span<const float>(values).subspan(static_cast<size_t>(i * vocab_size), static_cast<size_t>(vocab_size));
  }
};

// What a model is and what it takes. Sizes in bytes.
struct ModelInfo {
  std::string architecture;      // of config.json, e.g. "DeepseekV2ForCausalLM"
  int64_t vocab_size = 0;        // ids are 0 to vocab_size - 1
  int64_t context_size = 0;      // positions this Model was opened with
  int64_t max_context_size = 0;  // positions the model was made for
  int64_t layers = 0;
  int64_t hidden_size = 0;
  int64_t attention_heads = 0;
  int64_t routed_experts = 0;  // per MoE layer; 0: a dense model
  int64_t experts_per_token = 0;
  int64_t parameters = 0;
  int64_t active_parameters = 0;  // used per token: without the embedding, with the head
  int64_t cache_bytes_per_token = 0;
  uint64_t weight_bytes = 0;  // of the memory plan, likewise the next two
  uint64_t cache_bytes = 0;
  uint64_t scratch_bytes = 0;
  int threads = 0;
  bool has_tokenizer = false;  // without one, text in or out fails with kNotFound
  std::optional<int32_t> bos_id = {};
  std::optional<int32_t> eos_id = {};
  double load_seconds = 0.0;
};

// An open model. Movable, not copyable; a moved-from Model may only be assigned to or destroyed (calls that return
// Expected fail with kInvalidArgument). See the top of this file for threads.
class LATHE_API Model {
 public:
  // Maps, checks and binds the weights and reserves cache and scratch. `model` is a folder in HuggingFace layout, or
  // ORG/NAME[@REVISION] of a model in the local hub cache (nothing is downloaded). Fails with kOutOfMemory and the
  // numbers when the memory plan does not fit.
  static Expected<Model> open(std::string_view model, const OpenOptions& options = {});
  Model(Model&& other) noexcept;
  Model& operator=(Model&& other) noexcept;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model();

  // What the model is. Valid as long as this Model, not to be called on a moved-from one; likewise warnings().
  const ModelInfo& info() const;
  // What was doubtful while opening (unknown config fields, unused tensors, ...), one line each.
  const std::vector<std::string>& warnings() const;

  // Continues a text. BOS is put in front if the model wants one; special tokens in the text stay text. An empty text
  // is allowed when there is a BOS. Fails with kInvalidArgument when the prompt does not fit the context or an option
  // is out of range.
  Expected<Completion> generate(std::string_view prompt,
                                const GenerateOptions& options = {},
                                const OnPiece& on_piece = {});
  // Continues token ids as they are. At least one; no BOS is added.
  Expected<Completion> generate(std::span<const int32_t> prompt_ids,
                                const GenerateOptions& options = {},
                                const OnPiece& on_piece = {});
  // Answers a conversation: chat_ids(), then generate().
  Expected<Completion> chat(const std::vector<Message>& messages,
                            const GenerateOptions& options = {},
                            const OnPiece& on_piece = {});
  // The prompt of a conversation through the model's chat template (its own, or the built-in form of its family), up to
  // where the assistant's turn begins. Contents are never read as special tokens. Thread safe.
  Expected<std::vector<int32_t>> chat_ids(const std::vector<Message>& messages) const;

  // Text to ids. Bytes that are not UTF-8 are encoded one by one where the vocabulary allows. Thread safe.
  Expected<std::vector<int32_t>> tokenize(std::string_view text, const TokenizeOptions& options = {}) const;
  // Ids to text, invalid UTF-8 replaced by U+FFFD. Ids outside the vocabulary are an error. Thread safe.
  Expected<std::string> detokenize(std::span<const int32_t> ids, const DetokenizeOptions& options = {}) const;

  // Scores of the next token after each position of `ids` (at least one, at most context_size). kAll takes
  // 4 * ids.size() * vocab_size bytes.
  Expected<Logits> logits(std::span<const int32_t> ids, LogitRows rows = LogitRows::kAll);

 private:
  struct Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace v1
}  // namespace lathe
