// One file of the hub: retries, resuming, verification; and what the hub's refusals mean.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/base/sha256.h"
#include "lathe/formats/hub.h"
#include "lathe/formats/hub_cache.h"
#include "lathe/formats/hub_http.h"

namespace lathe {

struct HubFile {
  std::string name;
  std::string etag;  // the hash in hex: SHA-256 for large files, git blob SHA-1 for small ones; empty: not told
  uint64_t size = 0;

  Hasher::Kind hash() const { return etag.size() == 64 ? Hasher::Kind::kSha256 : Hasher::Kind::kSha1; }
};

struct HubListing {
  std::string commit;
  std::vector<HubFile> files;  // the wanted ones, small ones first
};

// The answer of /api/models/ORG/NAME/revision/REV?blobs=true. Errors: no commit, hostile or repeated names, sizes that
// are not sizes, hashes that are not hashes.
Result<HubListing> parse_hub_listing(const Json& answer, const HubModelName& name);

// Fetches the listing; for files whose hash it leaves out, asks the file's own address (HEAD).
Result<HubListing> fetch_hub_listing(HubClient& client,
                                     const HubModelName& name,
                                     const HubSettings& settings,
                                     const HubStop& stop);

// Where a file of a commit is loaded from; redirects lead on from there.
std::string hub_file_url(const HubSettings& settings,
                         const HubModelName& name,
                         std::string_view commit,
                         std::string_view file);

// How often something is tried: settings.retries times after the first, with waits that double up to a minute, or as
// long as the hub asks for, up to five minutes.
class HubRetry {
 public:
  HubRetry(const HubSettings& settings, const HubStop& stop) : settings_(&settings), stop_(&stop) {}

  // Whether the answer is one that may be better the next time: broken connections, 408, 429, 5xx.
  static bool is_worth_it(const HubReply& reply);
  // Waits before the next try. False: no try is left, the hub asks for too long a wait, or stopped.
  bool wait(const HubReply& reply);

  // A transfer that got on starts counting again: one connection rarely lives through 100 GB.
  void forget() { failures_ = 0; }

  int tries() const { return tries_; }

 private:
  const HubSettings* settings_;
  const HubStop* stop_;
  int failures_ = 0;
  int tries_ = 1;
};

// The error that an answer amounts to: what was asked, what it means, what to do. `file` may be empty.
Error hub_reply_error(
    const HubReply& reply, const HubModelName& name, std::string_view file, const HubSettings& settings, int tries);

struct HubDownload {
  const HubModelName& name;
  const HubPaths& paths;
  const HubFile& file;
  const HubSettings& settings;
  const HubStop& stop;
  std::string url;
  std::function<void(uint64_t done)> moved;  // bytes of this file that are there
};

// Brings the blob under its final name, verified. Holds the blob's lock; resumes what a former run left.
Status download_blob(HubClient& client, const HubDownload& job);

}  // namespace lathe
