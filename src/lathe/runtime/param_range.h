// Ranges of what a request asks for; the message names the field, its range and the value.
#pragma once

#include "lathe/base/result.h"
#include "lathe/base/str.h"

namespace lathe {

// kInvalidArgument unless low <= value <= high; a NaN is in no range.
inline Status in_range(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return {};
  return Error{Errc::kInvalidArgument, str(name, ": expected a number from ", low, " to ", high, ", found ", value)};
}

}  // namespace lathe
