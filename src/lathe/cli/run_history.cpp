#include "lathe/cli/run_history.h"

#include <algorithm>
#include <system_error>

#include "lathe/base/file.h"
#include "lathe/base/str.h"

namespace lathe::cli {
namespace fs = std::filesystem;

namespace {

// A file of another program or hand may be larger than what is ever written here.
constexpr uint64_t kMostRead = 16 * kHistoryBytes;

bool worth_keeping(const std::string& line) {
  return line.size() <= kHistoryLineBytes && line.find('\n') == std::string::npos &&
         line.find_first_not_of(" \t\r") != std::string::npos;
}

// How many of the oldest lines to drop.
size_t surplus(const std::vector<std::string>& lines) {
  size_t bytes = 0;
  size_t kept = 0;
  for (auto line = lines.rbegin(); line != lines.rend() && kept < kHistoryLines; ++line, ++kept) {
    bytes += line->size() + 1;
    if (bytes > kHistoryBytes) break;
  }
  return lines.size() - kept;
}

}  // namespace

Result<std::vector<std::string>> read_history(const fs::path& file) {
  std::vector<std::string> lines;
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return lines;
  LATHE_TRY(const std::string text, read_file(file, kMostRead));
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    if (worth_keeping(line)) lines.push_back(std::move(line));
    begin = end + 1;
  }
  lines.erase(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(surplus(lines)));
  return lines;
}

Status append_history(const fs::path& file, const std::vector<std::string>& lines) {
  LATHE_TRY(std::vector<std::string> all, read_history(file));
  const size_t before = all.size();
  for (const std::string& line : lines) {
    if (worth_keeping(line) && (all.empty() || all.back() != line)) all.push_back(line);
  }
  if (all.size() == before) return {};
  all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(surplus(all)));
  std::string text;
  for (const std::string& line : all) text += line + "\n";
  std::error_code error;
  if (fs::create_directories(file.parent_path(), error)) {
    fs::permissions(file.parent_path(), fs::perms::owner_all, error);
  }
  const bool is_new = !fs::exists(file, error);
  if (is_new) {
    // The content follows once the file is private; replacing it keeps its permissions.
    LATHE_TRY(write_file_atomically(file, {}));
    fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write, error);
    if (error) return Error{Errc::kIo, str(file, ": cannot make it private: ", error.message())};
  }
  return write_file_atomically(file, text);
}

}  // namespace lathe::cli
