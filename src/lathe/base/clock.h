// The clock that durations are measured with.
#pragma once

#include <chrono>

namespace lathe {

// Seconds since some moment in the past; never goes back, whatever happens to the date.
inline double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace lathe
