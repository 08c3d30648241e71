#include "lathe/base/env.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>
#include <vector>

namespace lathe {
namespace {

// XDG directories count only when absolute; the specification says to ignore the others.
std::filesystem::path xdg_directory(const char* variable, std::string_view below_home) {
  if (const auto value = env_string(variable)) {
    const std::filesystem::path path(*value);
    if (path.is_absolute()) return path / "lathe";
  }
  return home_directory() / below_home / "lathe";
}

}  // namespace

std::optional<std::string> env_string(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nothing here writes the environment
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

bool env_flag(const char* name) {
  auto value = env_string(name);
  if (!value) return false;
  for (char& c : *value) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  constexpr std::array<std::string_view, 4> kTrue{"1", "ON", "YES", "TRUE"};
  return std::find(kTrue.begin(), kTrue.end(), *value) != kTrue.end();
}

std::filesystem::path home_directory() {
  if (auto home = env_string("HOME")) return *home;
  std::vector<char> buffer(16384);

  struct passwd entry {};
  struct passwd* found = nullptr;
  if (::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr &&
      found->pw_dir != nullptr && *found->pw_dir != '\0') {
    return found->pw_dir;
  }
  return "/";
}

std::filesystem::path lathe_cache_directory() {
  return xdg_directory("XDG_CACHE_HOME", ".cache");
}

std::filesystem::path lathe_state_directory() {
  return xdg_directory("XDG_STATE_HOME", ".local/state");
}

std::filesystem::path executable_directory() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::path(".") : self.parent_path();
}

}  // namespace lathe
