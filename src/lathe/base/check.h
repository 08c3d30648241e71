// LATHE_CHECK(condition, parts...): aborts with file, line and values. For bugs only: no user input may reach a CHECK.
// LATHE_DCHECK: the same in debug and sanitizer builds (LATHE_DCHECKS), nothing in release builds.
#pragma once

#include <string>

#include "lathe/base/str.h"

namespace lathe {

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& detail);

}  // namespace lathe

#define LATHE_CHECK(condition, ...)                                                     \
  do {                                                                                  \
    if (!(condition)) [[unlikely]] {                                                    \
      ::lathe::check_failed(__FILE__, __LINE__, #condition, ::lathe::str(__VA_ARGS__)); \
    }                                                                                   \
  } while (false)

#if defined(LATHE_DCHECKS)
#define LATHE_DCHECK(condition, ...) LATHE_CHECK(condition __VA_OPT__(, ) __VA_ARGS__)
#else
#define LATHE_DCHECK(condition, ...) \
  do {                               \
  } while (false)
#endif
