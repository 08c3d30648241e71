#include "lathe/server/access.h"

#include <algorithm>

#include "lathe/base/ascii.h"
#include "lathe/base/file.h"
#include "lathe/base/sha256.h"
#include "lathe/base/str.h"

namespace lathe::server {

namespace {

std::string digest(std::string_view text) {
  Hasher hasher(Hasher::Kind::kSha256);
  hasher.update(text);
  return hasher.hex_digest();
}

// In a time that does not depend on where two texts of equal length differ.
bool equal_in_constant_time(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned>(static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]));
  }
  return difference == 0;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, ascii_lower, ascii_lower);
}

// "name:port", "[::1]:port" -> the name.
std::string_view without_port(std::string_view host) {
  const size_t colon = host.rfind(':');
  const size_t bracket = host.rfind(']');
  if (colon == std::string_view::npos || (bracket != std::string_view::npos && bracket > colon)) return host;
  return host.substr(0, colon);
}

}  // namespace

Access::Access(const std::vector<std::string>& keys,
               std::vector<std::string> origins,
               std::vector<std::string> hosts,
               bool check_host)
    : origins_(std::move(origins)), hosts_(std::move(hosts)), check_host_(check_host) {
  for (const std::string& key : keys) digests_.push_back(digest(key));
}

Result<std::vector<std::string>> Access::read_keys(const std::filesystem::path& file) {
  LATHE_TRY(const std::string text, read_file(file, 1 << 20));
  std::vector<std::string> keys;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ' || line.back() == '\t')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    const bool visible = std::ranges::all_of(line, [](char c) { return c > 0x20 && c < 0x7f; });
    if (!visible || line.size() < 8) {
      return Error{Errc::kInvalidArgument,
                   str(file, ": expected keys of at least 8 visible ASCII characters, one a line, found another")};
    }
    keys.emplace_back(line);
  }
  if (keys.empty()) return Error{Errc::kInvalidArgument, str(file, ": expected at least one key, found none")};
  return keys;
}

std::optional<uint64_t> Access::find_key(std::string_view authorization, std::string_view x_api_key) const {
  if (digests_.empty()) return 0;
  std::string_view key = x_api_key;
  constexpr std::string_view kBearer = "Bearer ";
  if (authorization.size() > kBearer.size() && equal_ignoring_case(authorization.substr(0, kBearer.size()), kBearer)) {
    key = authorization.substr(kBearer.size());
    while (key.starts_with(' ')) key.remove_prefix(1);
  }
  // Digests are compared, so that neither length nor letters of the keys can be felt, and all of them always are.
  const std::string given = digest(key);
  std::optional<uint64_t> found;
  for (size_t i = 0; i < digests_.size(); ++i) {
    if (equal_in_constant_time(given, digests_[i])) found = i + 1;
  }
  return found;
}

bool Access::allows_host(std::string_view host) const {
  if (!check_host_) return true;
  const std::string_view name = without_port(host);
  for (const std::string_view own : {"localhost", "127.0.0.1", "[::1]", ""}) {
    if (equal_ignoring_case(name, own)) return true;
  }
  return std::ranges::any_of(hosts_, [&](const std::string& allowed) {
    return equal_ignoring_case(name, allowed) || equal_ignoring_case(host, allowed);
  });
}

std::string Access::allowed_origin(std::string_view origin) const {
  for (const std::string& allowed : origins_) {
    if (allowed == "*") return "*";
    if (!origin.empty() && equal_ignoring_case(allowed, origin)) return std::string(origin);
  }
  return {};
}

std::string Access::allowed_headers(std::string_view requested) {
  const auto is_list_character = [](char c) {
    return is_ascii_alnum(c) || c == '-' || c == '_' || c == ',' || c == ' ';
  };
  if (requested.empty() || !std::ranges::all_of(requested, is_list_character)) {
    return "Authorization, Content-Type, X-Api-Key";
  }
  return std::string(requested);
}

bool Access::allows_origin(std::string_view origin, std::string_view host) const {
  if (origin.empty() || !allowed_origin(origin).empty()) return true;
  const size_t scheme = origin.find("://");
  return scheme != std::string_view::npos && equal_ignoring_case(origin.substr(scheme + 3), host);
}

}  // namespace lathe::server
