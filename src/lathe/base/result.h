// Result<T>: a value or an Error. Same member names as std::expected, so that it can become an alias
// of it once every supported compiler has one. Lathe throws nothing; see docs/ARCHITECTURE.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "lathe/base/check.h"

namespace lathe {

enum class Errc {
  kInvalidArgument,    // a flag, a request field or a call argument is wrong: exit code 2 from the command line
  kInvalidData,        // a file's content is wrong
  kNotFound,           // a file, tensor, model or token does not exist
  kIo,                 // the operating system refused a read, write, open or map
  kResourceExhausted,  // memory, disk or a plan does not suffice: exit code 3 when a plan is refused
  kUnsupported,        // understood, but this build or model cannot do it
  kNetwork,            // a download failed
  kCancelled,          // the user or a callback stopped the work
  kInternal,           // an invariant that should have held did not
};

// The message is one line: what, where, expected, found. It never ends in a full stop or a newline.
struct Error {
  Errc code = Errc::kInternal;
  std::string message;

  // The same error with `where: ` in front of its message.
  Error at(std::string_view where) const&;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT(google-explicit-constructor)

  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool has_value() const { return state_.index() == 0; }

  explicit operator bool() const { return has_value(); }

  T& value() & {
    LATHE_CHECK(has_value(), error_message());
    return *std::get_if<0>(&state_);
  }

  const T& value() const& {
    LATHE_CHECK(has_value(), error_message());
    return *std::get_if<0>(&state_);
  }

  T&& value() && {
    LATHE_CHECK(has_value(), error_message());
    return std::move(*std::get_if<0>(&state_));
  }

  T& operator*() & { return value(); }

  const T& operator*() const& { return value(); }

  T&& operator*() && { return std::move(*this).value(); }

  T* operator->() { return &value(); }

  const T* operator->() const { return &value(); }

  const Error& error() const& {
    LATHE_CHECK(!has_value());
    return *std::get_if<1>(&state_);
  }

  Error&& error() && {
    LATHE_CHECK(!has_value());
    return std::move(*std::get_if<1>(&state_));
  }

 private:
  std::string error_message() const { return has_value() ? std::string() : std::get_if<1>(&state_)->message; }

  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;

  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool has_value() const { return !error_.has_value(); }

  explicit operator bool() const { return has_value(); }

  void value() const { LATHE_CHECK(has_value(), error_ ? error_->message : std::string()); }

  const Error& error() const& {
    LATHE_CHECK(!has_value());
    return *error_;
  }

  Error&& error() && {
    LATHE_CHECK(!has_value());
    return std::move(*error_);
  }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace lathe

#define LATHE_CONCAT_INNER(a, b) a##b
#define LATHE_CONCAT(a, b) LATHE_CONCAT_INNER(a, b)

// LATHE_TRY(expr): returns the error of a Status from the enclosing function.
// LATHE_TRY(declaration, expr): the same for a Result<T>, binding its value:
//   LATHE_TRY(const Json json, read_json(path));
#define LATHE_TRY_1(expr)                                                          \
  do {                                                                             \
    auto lathe_try_status = (expr);                                                \
    if (!lathe_try_status.has_value()) return std::move(lathe_try_status).error(); \
  } while (false)
#define LATHE_TRY_2_INNER(temporary, declaration, expr)            \
  auto temporary = (expr);                                         \
  if (!temporary.has_value()) return std::move(temporary).error(); \
  declaration = *std::move(temporary)
#define LATHE_TRY_2(declaration, expr) LATHE_TRY_2_INNER(LATHE_CONCAT(lathe_try_, __COUNTER__), declaration, expr)
#define LATHE_TRY_PICK(a, b, name, ...) name
#define LATHE_TRY(...) LATHE_TRY_PICK(__VA_ARGS__, LATHE_TRY_2, LATHE_TRY_1)(__VA_ARGS__)
