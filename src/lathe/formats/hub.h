// Model names and the HuggingFace hub cache: finding a model that is on this machine, downloading one, listing, removing.
// The layout, the environment variables and the protocol are huggingface_hub's (docs/formats.md section "Hub cache").
#pragma once

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
};

// From HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT, HF_HUB_OFFLINE, ... and their defaults.
Result<HubSettings> hub_settings_from_environment();

struct HubModelName {
  std::string organisation;
  std::string name;
  std::string revision;  // "main" when none was given
};

// ORG/NAME or ORG/NAME@REV with single path components of [A-Za-z0-9._-]; anything else is an error naming the rule.
Result<HubModelName> parse_hub_name(std::string_view text);

struct HubProgress {
  std::string file;         // the file that moved
  uint64_t file_done = 0;
  uint64_t file_total = 0;
  uint64_t done = 0;        // over all files
  uint64_t total = 0;
  bool file_finished = false;
};

// Downloads what running a model needs (json, txt, safetensors, model and tokenizer files; never code or pickles) and
// returns the snapshot folder. Resumes, verifies SHA-256 or git SHA-1, checks free space, locks per file. Thread safe
// and safe against other processes doing the same. `progress` is called from several threads, one at a time.
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
Result<std::vector<HubCachedModel>> hub_list(const HubSettings& settings);
// Removes a cached model (all revisions, or the named one) and returns the bytes freed.
Result<uint64_t> hub_remove(const HubModelName& name, bool all_revisions, const HubSettings& settings);

// MODEL of the command line -> folder: an existing folder or file, or ORG/NAME[@REV] in the hub cache.
Result<std::filesystem::path> resolve_model(std::string_view model, const HubSettings& settings);

}  // namespace lathe
