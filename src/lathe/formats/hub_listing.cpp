// What the hub says: its listing of a model's files, and its refusals.
#include <algorithm>
#include <unordered_set>
#include <utility>

#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/formats/hub_download.h"

namespace lathe {
namespace {

constexpr size_t kMaxListing = size_t{64} << 20;

class TextSink final : public HubSink {
 public:
  bool begin(const HubReply&) override { return true; }

  bool write(std::string_view bytes) override {
    if (bytes.size() > kMaxListing - text.size()) return false;
    text.append(bytes);
    return true;
  }

  std::string text;
};

// A value of the listing, short, for a message.
std::string shown(const Json& value) {
  if (value.is_string()) return quoted(value.as_string());
  if (value.is_array() || value.is_object()) return std::string(value.kind_name());
  return value.dump();
}

// The size of one entry of the listing, or of its lfs object.
Result<uint64_t> size_of(const Json& entry) {
  const Json* size = entry.find("size");
  if (size == nullptr || !size->is_int() || size->as_int() < 0) {
    return Error{Errc::kInvalidData,
                 str("size: expected a number of bytes, found ", size == nullptr ? "none" : shown(*size))};
  }
  return static_cast<uint64_t>(size->as_int());
}

Result<std::string> hash_of(const Json& value, std::string_view field, size_t digits) {
  if (!value.is_string() || !is_lower_hex(value.as_string(), digits)) {
    return Error{Errc::kInvalidData, str(field, ": expected ", digits, " lower-case hex digits, found ", shown(value))};
  }
  return value.as_string();
}

bool is_present(const Json* value) {
  return value != nullptr && !value->is_null();
}

Result<HubFile> parse_file(const Json& entry, const std::string& name) {
  HubFile file;
  file.name = name;
  if (const Json* lfs = entry.find("lfs"); is_present(lfs)) {
    LATHE_TRY(file.size, size_of(*lfs));
    const Json* hash = lfs->find("sha256");
    if (hash == nullptr) hash = lfs->find("oid");
    LATHE_TRY(file.etag, hash_of(hash == nullptr ? Json() : *hash, "lfs.sha256", 64));
    return file;
  }
  const Json* hash = entry.find("blobId");
  if (!is_present(hash) || !is_present(entry.find("size"))) return file;  // to be asked for
  LATHE_TRY(file.size, size_of(entry));
  LATHE_TRY(file.etag, hash_of(*hash, "blobId", 40));
  return file;
}

// Texts around a model; it runs without them.
bool is_optional(std::string_view name) {
  return name.ends_with(".md") || name.ends_with(".txt") || name.find("LICENSE") != std::string_view::npos;
}

// Whether the listing's entry is to be downloaded.
Result<bool> is_taken(const std::string& file, const HubModelName& name) {
  switch (hub_file_rule(file)) {
    case HubFileRule::kSkipped:
      return false;
    case HubFileRule::kWanted:
      return true;
    case HubFileRule::kOdd:
      if (is_optional(file)) {
        log_warning(hub_label(name), ": ", quoted(file), ": left out, its name has characters outside [A-Za-z0-9._-]");
        return false;
      }
      break;
    case HubFileRule::kHostile:
      break;
  }
  return Error{
      Errc::kInvalidData,
      str("file name ",
          quoted(file),
          ": expected a relative path with components of [A-Za-z0-9._-] other than \"..\"; nothing was loaded")};
}

// X-Linked-Etag or ETag without `W/` and quotation marks.
std::string bare_etag(const HubReply& reply) {
  std::string_view etag = reply.header("x-linked-etag");
  if (etag.empty()) etag = reply.header("etag");
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return std::string(etag);
}

// Performs a request until it is answered, or for good refused.
Result<HubReply> ask(HubClient& client,
                     const HubRequest& request,
                     const HubModelName& name,
                     std::string_view file,
                     const HubSettings& settings,
                     const HubStop& stop,
                     TextSink* text) {
  HubRetry retry(settings, stop);
  while (true) {
    if (text != nullptr) text->text.clear();
    HubReply reply = client.perform(request);
    const bool redirect = request.head && reply.end == HubReply::End::kComplete && reply.status / 100 == 3;
    if (reply.ok() || redirect) return reply;
    if (HubRetry::is_worth_it(reply) && retry.wait(reply)) continue;
    if (stop.requested()) return Error{Errc::kCancelled, str(hub_label(name), ": stopped")};
    return hub_reply_error(reply, name, file, settings, retry.tries());
  }
}

Status ask_for_hash(HubClient& client,
                    const HubModelName& name,
                    std::string_view commit,
                    const HubSettings& settings,
                    const HubStop& stop,
                    HubFile& file) {
  const HubRequest request{.url = hub_file_url(settings, name, commit, file.name), .head = true};
  LATHE_TRY(const HubReply reply, ask(client, request, name, file.name, settings, stop, nullptr));
  const std::string etag = bare_etag(reply);
  if (!is_lower_hex(etag, 40) && !is_lower_hex(etag, 64)) {
    return Error{
        Errc::kInvalidData,
        str(hub_label(name), ": ", file.name, ": expected a SHA-256 or git SHA-1 as ETag, found ", quoted(etag))};
  }
  std::string_view length = reply.header("x-linked-size");
  if (length.empty() && reply.ok()) length = reply.header("content-length");
  int64_t size = 0;
  if (!parse_int(length, size) || size < 0) {
    return Error{Errc::kInvalidData,
                 str(hub_label(name), ": ", file.name, ": expected a size in X-Linked-Size, found ", quoted(length))};
  }
  file.etag = etag;
  file.size = static_cast<uint64_t>(size);
  return {};
}

void sort_small_first(std::vector<HubFile>& files) {
  std::sort(files.begin(), files.end(), [](const HubFile& a, const HubFile& b) {
    return std::pair(a.size, std::string_view(a.name)) < std::pair(b.size, std::string_view(b.name));
  });
}

// How the hub's refusal reads, after `ORG/NAME: `.
std::string refusal(const HubReply& reply, const HubModelName& name, const HubSettings& settings, Errc& code) {
  const std::string_view hub_code = reply.header("x-error-code");
  const std::string model = str(name.organisation, "/", name.name);
  const Result<HubOrigin> endpoint = hub_origin(settings.endpoint);
  const bool cleartext = endpoint && endpoint->scheme != "https" && !endpoint->is_this_machine();
  std::string token_hint = "set HF_TOKEN to a token that may read it";
  if (!settings.token.empty()) token_hint = "the token of HF_TOKEN or the token file may not read it";
  if (!settings.token.empty() && cleartext) token_hint = "the token was withheld because the endpoint is plain http";
  code = Errc::kNetwork;
  if (hub_code == "GatedRepo") {
    return str("gated: accept its terms at ",
               settings.endpoint,
               "/",
               model,
               " and ",
               settings.token.empty() ? "set HF_TOKEN to a token of that account" : token_hint);
  }
  if (hub_code == "DisabledRepo") return str("disabled by ", settings.endpoint);
  code = Errc::kNotFound;
  if (hub_code == "RevisionNotFound") return str("no revision ", quoted(name.revision), " at ", settings.endpoint);
  if (hub_code == "EntryNotFound") return str("no such file at ", settings.endpoint);
  if (hub_code == "RepoNotFound" || reply.status == 404) {
    return str("no such model at ", settings.endpoint, ", or a private one: ", token_hint);
  }
  code = Errc::kNetwork;
  if (reply.status == 401) return str("access refused (HTTP 401): no such model, or private or gated: ", token_hint);
  if (reply.status == 403) return str("access refused (HTTP 403): ", token_hint);
  if (const auto wait = reply.wanted_wait(); reply.status == 429 && wait) {
    return str(reply.origin, ": too many requests (HTTP 429), the hub asks to wait ", fixed(*wait, 0), " s");
  }
  const std::string_view message = reply.header("x-error-message");
  return str(
      reply.origin, ": HTTP ", reply.status, message.empty() ? "" : ": ", message.empty() ? "" : quoted(message));
}

}  // namespace

std::string hub_file_url(const HubSettings& settings,
                         const HubModelName& name,
                         std::string_view commit,
                         std::string_view file) {
  return str(settings.endpoint,
             "/",
             name.organisation,
             "/",
             name.name,
             "/resolve/",
             percent_encode(commit, false),
             "/",
             percent_encode(file, true));
}

Error hub_reply_error(
    const HubReply& reply, const HubModelName& name, std::string_view file, const HubSettings& settings, int tries) {
  std::string where = hub_label(name);
  if (!file.empty()) where += str(": ", file);
  const std::string tried = tries > 1 ? str(" (tried ", tries, " times)") : std::string();
  if (reply.end == HubReply::End::kStopped) return {Errc::kCancelled, str(where, ": stopped")};
  if (reply.end == HubReply::End::kRefused) return {Errc::kInvalidData, str(where, ": the answer is too long")};
  if (reply.end != HubReply::End::kComplete) return {Errc::kNetwork, str(where, ": ", reply.problem, tried)};
  Errc code = Errc::kNetwork;
  std::string text = refusal(reply, name, settings, code);
  return {code, str(where, ": ", text, tried)};
}

Result<HubListing> parse_hub_listing(const Json& answer, const HubModelName& name) {
  const std::string where = str(hub_label(name), ": listing");
  const auto bad = [&](const Error& error) { return Error{Errc::kInvalidData, str(where, ": ", error.message)}; };
  HubListing listing;
  const Json* sha = answer.find("sha");
  Result<std::string> commit = hash_of(sha == nullptr ? Json() : *sha, "sha", 40);
  if (!commit) return bad(commit.error());
  listing.commit = *std::move(commit);
  const Json* siblings = answer.find("siblings");
  if (siblings == nullptr || !siblings->is_array()) {
    return Error{Errc::kInvalidData, str(where, ": siblings: expected an array, found none")};
  }
  std::unordered_set<std::string> seen;
  for (const Json& entry : siblings->as_array()) {
    const Json* file_name = entry.find("rfilename");
    if (file_name == nullptr || !file_name->is_string()) {
      return Error{Errc::kInvalidData, str(where, ": siblings: rfilename: expected a string, found none")};
    }
    const std::string& text = file_name->as_string();
    const Result<bool> taken = is_taken(text, name);
    if (!taken) return bad(taken.error());
    if (!*taken) continue;
    if (!seen.insert(text).second) return Error{Errc::kInvalidData, str(where, ": ", quoted(text), ": named twice")};
    Result<HubFile> file = parse_file(entry, text);
    if (!file) return bad(file.error().at(quoted(text)));
    listing.files.push_back(*std::move(file));
  }
  sort_small_first(listing.files);
  return listing;
}

Result<HubListing> fetch_hub_listing(HubClient& client,
                                     const HubModelName& name,
                                     const HubSettings& settings,
                                     const HubStop& stop) {
  TextSink text;
  const std::string url = str(settings.endpoint,
                              "/api/models/",
                              name.organisation,
                              "/",
                              name.name,
                              "/revision/",
                              percent_encode(name.revision, false),
                              "?blobs=true");
  LATHE_TRY(ask(client, {.url = url, .sink = &text}, name, {}, settings, stop, &text));
  const Result<Json> answer = parse_json(text.text);
  if (!answer) return Error{Errc::kInvalidData, str(hub_label(name), ": listing: ", answer.error().message)};
  LATHE_TRY(HubListing listing, parse_hub_listing(*answer, name));
  for (HubFile& file : listing.files) {
    if (file.etag.empty()) {
      LATHE_TRY(ask_for_hash(client, name, listing.commit, settings, stop, file));
    }
  }
  sort_small_first(listing.files);
  return listing;
}

}  // namespace lathe
