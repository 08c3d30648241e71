// Where test data lies: tests/golden of this repository, and the larger shared set (vocabularies, chat templates) that
// is used where it lies. LATHE_GOLDEN names it; by default ../shared/golden beside the repository.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace lathe::testing {

inline std::filesystem::path golden_dir() {
  return std::filesystem::path(LATHE_SOURCE_DIR) / "tests" / "golden";
}

// Empty when it is not there; tests then say so with GTEST_SKIP.
inline std::filesystem::path shared_golden_dir() {
  const char* named = std::getenv("LATHE_GOLDEN");  // NOLINT(concurrency-mt-unsafe)
  const std::filesystem::path path = named != nullptr
                                         ? std::filesystem::path(named)
                                         : std::filesystem::path(LATHE_SOURCE_DIR) / ".." / "shared" / "golden";
  std::error_code error;
  return std::filesystem::is_directory(path, error) ? path : std::filesystem::path();
}

}  // namespace lathe::testing
