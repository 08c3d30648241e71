// generation_config.json: the sampling settings that the model's authors recommend.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"

namespace lathe {

// Limits of the DRY penalty's settings, wherever they come from: this file, requests or options.
inline constexpr double kMaxDryMultiplier = 100.0;
inline constexpr double kMaxDryBase = 100.0;
inline constexpr int64_t kMaxDryLength = int64_t{1} << 20;

// Absent fields keep their defaults.
struct GenerationDefaults {
  bool do_sample = false;
  double temperature = 1.0;
  double top_p = 1.0;
  int64_t top_k = 0;  // 0: off
  double repetition_penalty = 1.0;
  double dry_multiplier = 0.0;  // 0: off; not of greedy answers; this and the next two are known to Lathe alone
  std::optional<double> dry_base = {};
  std::optional<int64_t> dry_allowed_length = {};
  std::vector<int64_t> eos_token_ids = {};
};

// Checks types and ranges; fields of other names are ignored. Errors are kInvalidData and name the field.
Result<GenerationDefaults> parse_generation_defaults(const Json& json);
// Reads folder/generation_config.json; without one, the defaults. Errors name the file and the field.
Result<GenerationDefaults> load_generation_defaults(const std::filesystem::path& folder);

}  // namespace lathe
