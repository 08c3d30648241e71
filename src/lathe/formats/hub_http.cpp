#include "lathe/formats/hub_http.h"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <thread>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"

namespace lathe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMaxRedirects = 10;
constexpr size_t kMaxErrorBody = size_t{64} << 10;
constexpr size_t kMaxHeaders = 256;

struct UrlDeleter {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};

using Url = std::unique_ptr<CURLU, UrlDeleter>;

struct SlistDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

struct EasyDeleter {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r' || text.back() == '\n')) {
    text.remove_suffix(1);
  }
  return text;
}

std::string url_part(CURLU* url, CURLUPart part, unsigned int flags) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK || text == nullptr) return {};
  std::string out(text);
  curl_free(text);
  return out;
}

// A URL without its query, whose signature is as good as a password.
std::string without_query(std::string_view url) {
  return quoted(url.substr(0, url.find_first_of("?#")), 200);
}

Result<HubOrigin> origin_of(CURLU* url, std::string_view shown) {
  HubOrigin origin{.scheme = ascii_lowered(url_part(url, CURLUPART_SCHEME, 0)),
                   .host = ascii_lowered(url_part(url, CURLUPART_HOST, 0)),
                   .port = url_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT)};
  if (origin.scheme != "http" && origin.scheme != "https") {
    return Error{Errc::kNetwork, str(without_query(shown), ": expected an http or https URL")};
  }
  if (origin.host.empty()) return Error{Errc::kNetwork, str(without_query(shown), ": expected a URL with a host")};
  return origin;
}

}  // namespace

bool HubStop::sleep(double seconds) const {
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  while (!requested()) {
    const auto left = end - Clock::now();
    if (left <= Clock::duration::zero()) return true;
    std::this_thread::sleep_for(std::min<Clock::duration>(left, std::chrono::milliseconds(50)));
  }
  return false;
}

std::string HubOrigin::text() const {
  const bool usual = (scheme == "https" && port == "443") || (scheme == "http" && port == "80");
  return usual ? str(scheme, "://", host) : str(scheme, "://", host, ":", port);
}

bool HubOrigin::is_this_machine() const {
  if (host == "localhost" || host == "[::1]") return true;
  // "127.example.com" is a name, not an address.
  return host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos;
}

Result<HubOrigin> hub_origin(const std::string& url) {
  const Url parsed(curl_url());
  if (parsed == nullptr) return Error{Errc::kResourceExhausted, "out of memory for a URL"};
  if (curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), CURLU_DISALLOW_USER) != CURLUE_OK) {
    return Error{Errc::kNetwork,
                 str(without_query(url), ": expected a URL http(s)://HOST[:PORT][/PATH] without a user")};
  }
  return origin_of(parsed.get(), url);
}

Result<std::string> hub_redirect_target(const std::string& url, const std::string& location) {
  LATHE_TRY(const HubOrigin from, hub_origin(url));
  const Url parsed(curl_url());
  if (parsed == nullptr) return Error{Errc::kResourceExhausted, "out of memory for a URL"};
  if (curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK ||
      curl_url_set(parsed.get(), CURLUPART_URL, location.c_str(), CURLU_DISALLOW_USER) != CURLUE_OK) {
    return Error{Errc::kNetwork,
                 str(from.text(), ": redirect to ", without_query(location), ", expected an http or https URL")};
  }
  LATHE_TRY(const HubOrigin to, origin_of(parsed.get(), location));
  if (from.scheme == "https" && to.scheme != "https") {
    return Error{Errc::kNetwork, str(from.text(), ": redirect from https to ", to.text(), " refused")};
  }
  return url_part(parsed.get(), CURLUPART_URL, 0);
}

std::string percent_encode(std::string_view text, bool keep_slashes) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = is_ascii_alnum(c) || c == '-' || c == '_' || c == '.' || c == '~' || (c == '/' && keep_slashes);
    if (plain) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

std::string_view HubReply::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

std::optional<double> HubReply::wanted_wait() const {
  const std::string text(header("retry-after"));
  if (double seconds = 0.0; parse_double(text, seconds)) return std::max(seconds, 0.0);
  if (const time_t date = text.empty() ? -1 : curl_getdate(text.c_str(), nullptr); date != -1) {
    return std::max(std::difftime(date, std::time(nullptr)), 0.0);
  }
  // ratelimit: "api";r=0;t=55 says that 0 requests are left for 55 s.
  const std::string_view limit = header("ratelimit");
  const size_t left = limit.find("r=0");
  const size_t reset = limit.find("t=");
  if (left == std::string_view::npos || reset == std::string_view::npos) return std::nullopt;
  const std::string_view digits = limit.substr(reset + 2, limit.find_first_not_of("0123456789", reset + 2) - reset - 2);
  int64_t seconds = 0;
  return parse_int(digits, seconds) ? std::optional<double>(static_cast<double>(seconds)) : std::nullopt;
}

struct HubClient::State {
  const HubSettings* settings = nullptr;
  const HubStop* stop = nullptr;
  HubOrigin endpoint;
  std::unique_ptr<CURL, EasyDeleter> easy;
};

namespace {

// What the callbacks of one transfer share. They run inside curl_easy_perform, on the same thread.
struct Transfer {
  CURL* easy = nullptr;
  const HubStop* stop = nullptr;
  HubSink* sink = nullptr;
  HubReply* reply = nullptr;
  double stall_timeout_s = 0.0;
  Clock::time_point moved_at = Clock::now();
  curl_off_t moved = 0;
  bool begun = false;
  bool refused = false;
  bool stalled = false;
  bool cut = false;  // an error body longer than anybody reads

  bool success() const { return reply->status >= 200 && reply->status < 300; }

  bool begin() {
    if (begun) return true;
    begun = true;
    refused = !sink->begin(*reply);
    return !refused;
  }
};

size_t on_header(char* bytes, size_t size, size_t count, void* context) {
  Transfer& transfer = *static_cast<Transfer*>(context);
  HubReply& reply = *transfer.reply;
  const std::string_view line(bytes, size * count);
  if (line.starts_with("HTTP/")) {  // also after an interim answer (100, 103): only the last one counts
    reply.headers.clear();
    long status = 0;
    curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
    reply.status = static_cast<int>(status);
    return line.size();
  }
  const size_t colon = line.find(':');
  if (colon != std::string_view::npos && reply.headers.size() < kMaxHeaders) {
    reply.headers.emplace_back(ascii_lowered(line.substr(0, colon)), std::string(trimmed(line.substr(colon + 1))));
  }
  return line.size();
}

size_t on_body(char* bytes, size_t size, size_t count, void* context) {
  Transfer& transfer = *static_cast<Transfer*>(context);
  const std::string_view piece(bytes, size * count);
  if (transfer.success()) {
    if (transfer.sink == nullptr) return piece.size();
    if (!transfer.begin()) return 0;
    transfer.refused = !transfer.sink->write(piece);
    return transfer.refused ? 0 : piece.size();
  }
  std::string& body = transfer.reply->body;
  body.append(piece.substr(0, kMaxErrorBody - body.size()));
  transfer.cut = body.size() >= kMaxErrorBody;
  return transfer.cut ? 0 : piece.size();
}

int on_progress(void* context, curl_off_t, curl_off_t down, curl_off_t, curl_off_t up) {
  Transfer& transfer = *static_cast<Transfer*>(context);
  if (transfer.stop->requested()) return 1;
  const auto now = Clock::now();
  if (down + up != transfer.moved) {
    transfer.moved = down + up;
    transfer.moved_at = now;
  }
  transfer.stalled = std::chrono::duration<double>(now - transfer.moved_at).count() > transfer.stall_timeout_s;
  return transfer.stalled ? 1 : 0;
}

bool is_final(CURLcode code) {
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_OUT_OF_MEMORY:
    case CURLE_NOT_BUILT_IN:
    case CURLE_UNKNOWN_OPTION:
      return true;
    default:
      return false;
  }
}

void set_end(HubReply& reply, CURLcode code, const Transfer& transfer, const std::string& origin, double stall_s) {
  reply.origin = origin;
  if (transfer.refused) {
    reply.end = HubReply::End::kRefused;
  } else if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && transfer.cut)) {
    reply.end = HubReply::End::kComplete;
  } else if (transfer.stalled) {
    reply.end = HubReply::End::kBroken;
    reply.problem = str(origin, ": no byte moved for ", stall_s, " s");
  } else if (transfer.stop->requested()) {
    reply.end = HubReply::End::kStopped;
    reply.problem = "stopped";
  } else {
    reply.end = is_final(code) ? HubReply::End::kFatal : HubReply::End::kBroken;
    // Only curl's fixed texts: its detailed messages may repeat parts of a signed URL.
    reply.problem = str(origin, ": ", ascii_lowered(curl_easy_strerror(code)));
  }
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

HubReply fatal(HubReply reply, std::string problem) {
  reply.end = HubReply::End::kFatal;
  reply.problem = std::move(problem);
  return reply;
}

bool append_header(std::unique_ptr<curl_slist, SlistDeleter>& list, const std::string& line) {
  curl_slist* longer = curl_slist_append(list.get(), line.c_str());
  if (longer == nullptr) return false;
  static_cast<void>(list.release());
  list.reset(longer);
  return true;
}

void set_options(CURL* easy, const HubSettings& settings, const HubOrigin& origin) {
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "lathe");
  curl_easy_setopt(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(settings.connect_timeout_s * 1000.0));
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L << 10);
  if (origin.is_this_machine()) curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
  if (!settings.ca_file.empty()) {
    std::error_code ignored;
    const bool folder = std::filesystem::is_directory(settings.ca_file, ignored);
    curl_easy_setopt(easy, folder ? CURLOPT_CAPATH : CURLOPT_CAINFO, settings.ca_file.c_str());
  }
}

}  // namespace

HubClient::HubClient(std::unique_ptr<State> state) : state_(std::move(state)) {}

HubClient::HubClient(HubClient&&) noexcept = default;
HubClient& HubClient::operator=(HubClient&&) noexcept = default;
HubClient::~HubClient() = default;

Result<HubClient> HubClient::create(const HubSettings& settings, const HubStop& stop) {
  static const CURLcode global = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (global != CURLE_OK) return Error{Errc::kNetwork, str("libcurl: ", curl_easy_strerror(global))};
  auto state = std::make_unique<State>();
  state->settings = &settings;
  state->stop = &stop;
  LATHE_TRY(state->endpoint, hub_origin(settings.endpoint));
  state->easy.reset(curl_easy_init());
  if (state->easy == nullptr) return Error{Errc::kResourceExhausted, "libcurl: cannot make a handle"};
  return HubClient(std::move(state));
}

HubReply HubClient::perform(const HubRequest& request) {
  const HubSettings& settings = *state_->settings;
  CURL* easy = state_->easy.get();
  std::string url = request.url;
  bool left_endpoint = false;
  for (int hop = 0; hop <= kMaxRedirects; ++hop) {
    HubReply reply;
    const Result<HubOrigin> origin = hub_origin(url);
    if (!origin) return fatal(std::move(reply), origin.error().message);
    left_endpoint = left_endpoint || *origin != state_->endpoint;
    const bool private_path = origin->scheme == "https" || origin->is_this_machine();

    std::unique_ptr<curl_slist, SlistDeleter> headers;
    bool listed = append_header(headers, "Accept-Encoding: identity");
    if (!settings.token.empty() && !left_endpoint && private_path) {
      listed = listed && append_header(headers, str("Authorization: Bearer ", settings.token));
    }
    if (request.range_begin > 0) {
      listed = listed && append_header(headers, str("Range: bytes=", request.range_begin, "-"));
    }
    if (!listed) return fatal(std::move(reply), "libcurl: out of memory");

    Transfer transfer{.easy = easy,
                      .stop = state_->stop,
                      .sink = request.sink,
                      .reply = &reply,
                      .stall_timeout_s = settings.stall_timeout_s};
    curl_easy_reset(easy);  // keeps connections, forgets options
    set_options(easy, settings, *origin);
    curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
    curl_easy_setopt(easy, CURLOPT_NOBODY, request.head ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, &on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, &transfer);
    const CURLcode code = curl_easy_perform(easy);
    // A 2xx answer without a body still has to be looked at.
    if (code == CURLE_OK && request.sink != nullptr && transfer.success()) transfer.begin();
    set_end(reply, code, transfer, origin->text(), settings.stall_timeout_s);
    if (reply.end != HubReply::End::kComplete || !is_redirect(reply.status)) return reply;

    const std::string location(reply.header("location"));
    if (location.empty()) return fatal(std::move(reply), str(origin->text(), ": redirect without a target"));
    Result<std::string> target = hub_redirect_target(url, location);
    if (!target) return fatal(std::move(reply), target.error().message);
    const Result<HubOrigin> next = hub_origin(*target);
    if (!next) return fatal(std::move(reply), next.error().message);
    if (request.head && *next != *origin) return reply;
    url = *std::move(target);
  }
  return fatal(HubReply{}, str(state_->endpoint.text(), ": more than ", kMaxRedirects, " redirects"));
}

}  // namespace lathe
