#include "lathe/base/check.h"

#include <unistd.h>

#include <cstdlib>

namespace lathe {

void check_failed(const char* file, int line, const char* condition, const std::string& detail) {
  std::string text = str("lathe: internal error: ", file, ":", line, ": ", condition);
  if (!detail.empty()) text += ": " + detail;
  text += '\n';
  // The process ends here, so a failed write has nobody to tell.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
  std::abort();
}

}  // namespace lathe
