#include "lathe/formats/hub.h"

#include <algorithm>
#include <optional>

#include "lathe/base/env.h"
#include "lathe/base/file.h"
#include "lathe/base/str.h"
#include "lathe/formats/hub_cache.h"
#include "lathe/formats/hub_http.h"

namespace lathe {
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kDefaultEndpoint = "https://huggingface.co";
constexpr uint64_t kMaxTokenFile = 4096;

fs::path without_tilde(const std::string& path) {
  if (path == "~") return home_directory();
  if (path.starts_with("~/")) return home_directory() / path.substr(2);
  return path;
}

std::optional<std::string> first_set(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (std::optional<std::string> value = env_string(name)) return value;
  }
  return std::nullopt;
}

std::string stripped(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1));
}

// A token goes into a header line: nothing in it may end that line. The message does not repeat it.
Result<std::string> checked_token(std::string_view text, std::string_view where) {
  std::string token = stripped(text);
  if (!std::all_of(token.begin(), token.end(), [](char c) { return c > 32 && c < 127; })) {
    return Error{Errc::kInvalidArgument, str(where, ": expected one token of printable ASCII, found other characters")};
  }
  return token;
}

Result<std::string> token_from_environment(const fs::path& hf_home) {
  if (env_flag("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return std::string();
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    if (const std::optional<std::string> value = env_string(name)) return checked_token(*value, name);
  }
  const std::optional<std::string> named = env_string("HF_TOKEN_PATH");
  const fs::path path = named ? without_tilde(*named) : hf_home / "token";
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::string();
  LATHE_TRY(const std::string text, read_file(path, kMaxTokenFile));
  return checked_token(text, path.string());
}

Result<std::string> endpoint_from_environment() {
  const std::optional<std::string> value = env_string("HF_ENDPOINT");
  if (!value) return std::string(kDefaultEndpoint);
  std::string endpoint = stripped(*value);
  while (endpoint.ends_with('/')) endpoint.pop_back();
  const Result<HubOrigin> origin = hub_origin(endpoint);
  if (!origin || endpoint.find_first_of("?#") != std::string::npos) {
    return Error{Errc::kInvalidArgument,
                 str("HF_ENDPOINT: expected http(s)://HOST[:PORT][/PATH], found ",
                     quoted(endpoint.find('@') == std::string::npos ? endpoint : "a URL with a user name or '@'"))};
  }
  return endpoint;
}

Status read_seconds(const char* name, double& seconds) {
  const std::optional<std::string> value = env_string(name);
  if (!value) return {};
  double number = 0.0;
  if (!parse_double(*value, number) || number < 0.001 || number > 86400.0) {
    return Error{Errc::kInvalidArgument, str(name, ": expected seconds from 0.001 to 86400, found ", quoted(*value))};
  }
  seconds = number;
  return {};
}

}  // namespace

Result<HubSettings> hub_settings_from_environment() {
  HubSettings settings;
  fs::path hf_home;
  if (const std::optional<std::string> home = env_string("HF_HOME")) {
    hf_home = without_tilde(*home);
  } else if (const std::optional<std::string> xdg = env_string("XDG_CACHE_HOME")) {
    hf_home = without_tilde(*xdg) / "huggingface";
  } else {
    hf_home = home_directory() / ".cache" / "huggingface";
  }
  const std::optional<std::string> cache = first_set({"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"});
  settings.cache = cache ? without_tilde(*cache) : hf_home / "hub";
  LATHE_TRY(settings.token, token_from_environment(hf_home));
  LATHE_TRY(settings.endpoint, endpoint_from_environment());
  settings.offline = env_flag("HF_HUB_OFFLINE") || env_flag("TRANSFORMERS_OFFLINE");
  settings.symlinks = !env_flag("HF_HUB_DISABLE_SYMLINKS");
  LATHE_TRY(read_seconds("HF_HUB_ETAG_TIMEOUT", settings.connect_timeout_s));
  LATHE_TRY(read_seconds("HF_HUB_DOWNLOAD_TIMEOUT", settings.stall_timeout_s));
  if (const auto authorities = first_set({"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"})) {
    settings.ca_file = without_tilde(*authorities);
  }
  return settings;
}

Result<HubModelName> parse_hub_name(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) {
    return Error{Errc::kInvalidArgument, str("model name ", quoted(text), ": expected ORG/NAME or ORG/NAME@REVISION")};
  }
  const std::string_view rest = text.substr(slash + 1);
  const size_t at = rest.find('@');
  HubModelName name{.organisation = std::string(text.substr(0, slash)),
                    .name = std::string(rest.substr(0, at)),
                    .revision = at == std::string_view::npos ? "main" : std::string(rest.substr(at + 1))};
  LATHE_TRY(check_hub_name(name));
  return name;
}

Result<fs::path> resolve_model(std::string_view model, const HubSettings& settings) {
  if (model.empty()) {
    return Error{Errc::kInvalidArgument, "model: expected a folder, a .gguf file or ORG/NAME, found an empty name"};
  }
  if (model.find('\0') != std::string_view::npos) {
    return Error{Errc::kInvalidArgument, str("model ", quoted(model), ": expected a path without a zero byte")};
  }
  std::error_code error;
  const fs::path path(model);
  if (fs::exists(path, error)) return path;
  if (error && error != std::errc::filename_too_long && error != std::errc::not_a_directory) {
    return Error{Errc::kIo, str(quoted(model, 200), ": ", error.message())};
  }
  const Result<HubModelName> name = parse_hub_name(model);
  if (!name) {
    return Error{Errc::kNotFound,
                 str("model ",
                     quoted(model, 200),
                     ": no such file or folder, and not a name ORG/NAME[@REVISION] of the hub cache")};
  }
  return cached_snapshot(*name, settings);
}

}  // namespace lathe
