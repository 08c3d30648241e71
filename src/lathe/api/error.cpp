// The public error type: names, and what happens to who does not look at it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "lathe/lathe.h"

namespace lathe::v1 {

std::string_view name_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid argument";
    case ErrorCode::kInvalidData:
      return "invalid data";
    case ErrorCode::kNotFound:
      return "not found";
    case ErrorCode::kIo:
      return "input/output error";
    case ErrorCode::kOutOfMemory:
      return "out of memory";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kNetwork:
      return "network error";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kInternal:
      return "internal error";
  }
  return "internal error";
}

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "length";
}

std::string_view version() {
  return LATHE_VERSION;
}

void detail::bad_access(const char* what, std::string_view message) {
  const char* separator = message.empty() ? "" : ": ";
  std::fprintf(stderr, "lathe: %s%s%.*s\n", what, separator, static_cast<int>(message.size()), message.data());
  std::abort();
}

}  // namespace lathe::v1
