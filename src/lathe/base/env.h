// The only place that reads the environment.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace lathe {

// The variable's value, or nothing when it is unset or empty.
std::optional<std::string> env_string(const char* name);

// HuggingFace's truth values: 1, ON, YES, TRUE in any case.
bool env_flag(const char* name);

// $HOME, or the password file's entry, or "/".
std::filesystem::path home_directory();

// $XDG_CACHE_HOME/lathe or ~/.cache/lathe; $XDG_STATE_HOME/lathe or ~/.local/state/lathe.
std::filesystem::path lathe_cache_directory();
std::filesystem::path lathe_state_directory();

// Folder of the running executable.
std::filesystem::path executable_directory();

}  // namespace lathe
