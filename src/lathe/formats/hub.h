// Model names and the HuggingFace hub cache: finding a model that is on this machine, downloading one, listing,
// removing. The layout, the environment variables and the protocol are huggingface_hub's (docs/formats.md section "Hub
// cache").
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"

namespace lathe {

struct HubSettings {
  std::filesystem::path cache;  // folder that holds models--org--name
  std::string endpoint;         // without trailing slash
  std::string token;            // empty: none; never logged, never sent to another host than the endpoint's
  bool offline = false;
  int parallel_files = 4;
  int retries = 5;
  double connect_timeout_s = 10.0;
  double stall_timeout_s = 30.0;    // a transfer that moves no byte for so long is retried
  double retry_base_delay_s = 1.0;  // doubled per attempt, Retry-After wins
  bool symlinks = true;             // false: files lie in snapshots/ themselves (HF_HUB_DISABLE_SYMLINKS)
  std::filesystem::path ca_file;    // certificate authorities, file or folder; empty: the system's
  // Set to true by somebody else, it ends a pull with kCancelled. What was loaded stays and the next pull resumes.
  const std::atomic<bool>* cancel = nullptr;
};

// From HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE,
// HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_HUB_DISABLE_SYMLINKS, HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT,
// REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE and their defaults. Errors name the variable, never a token.
Result<HubSettings> hub_settings_from_environment();

// A model of the hub, taken apart.
struct HubModelName {
  std::string organisation;
  std::string name;
  std::string revision;  // "main" when none was given
};

// ORG/NAME or ORG/NAME@REV with single path components of [A-Za-z0-9._-]; ORG and NAME have at most 96 characters, no
// "--" or ".." inside and no "-" or "." at either end. Anything else is an error naming the rule.
Result<HubModelName> parse_hub_name(std::string_view text);

struct HubProgress {
  std::string file;  // the file that moved; files that were there before are never reported
  uint64_t file_done = 0;
  uint64_t file_total = 0;
  uint64_t done = 0;  // over all files
  uint64_t total = 0;
  bool file_finished = false;
};

// Downloads what running a model needs (json, txt, safetensors, model and tokenizer files; never code or pickles) and
// returns the snapshot folder. Resumes, verifies SHA-256 or git SHA-1, checks free space, locks per file. Thread safe
// and safe against other processes doing the same. `progress` (may be empty) is called from several threads, one at a
// time. Offline it answers from the cache. On failure nothing lies under a final name that was not verified, and what
// was loaded is kept for the next try.
Result<std::filesystem::path> hub_pull(const HubModelName& name,
                                       const HubSettings& settings,
                                       const std::function<void(const HubProgress&)>& progress);

struct HubCachedModel {
  std::string name;      // ORG/NAME
  std::string revision;  // refs that point to it, or the commit
  std::string commit;
  std::filesystem::path snapshot;
  uint64_t bytes = 0;
  bool complete = false;  // has config.json and every file that an index names
};

// Every snapshot in the cache, sorted by name and revision. No cache folder: an empty list.
Result<std::vector<HubCachedModel>> hub_list(const HubSettings& settings);
// Removes a cached model (all revisions, or the named one) and returns the bytes freed. Content that another revision
// uses stays. kNotFound when it is not there, kIo when another process is downloading it.
Result<uint64_t> hub_remove(const HubModelName& name, bool all_revisions, const HubSettings& settings);

// MODEL of the command line -> folder: an existing folder or file, or ORG/NAME[@REV] in the hub cache. Never touches
// the network. A model that is absent or was not downloaded to the end is an error that says which `lathe pull` to run.
Result<std::filesystem::path> resolve_model(std::string_view model, const HubSettings& settings);

}  // namespace lathe
